"""The cost of a run: memory, time and forward and backward passes."""
