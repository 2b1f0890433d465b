"""Models, tasks, objectives and the training suite: `python -m llm`."""
