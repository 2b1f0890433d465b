"""Studies: many runs for one question, which rate, which method, on which task; each resumes from its own runs."""
