"""What a run costs: memory, time, passes, and the dry run that tells them before."""
