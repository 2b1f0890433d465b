"""The dry run: what a training run would do and cost, told before it."""
