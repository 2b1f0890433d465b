"""The dry run: prints what a training run would do and cost, before the run."""
