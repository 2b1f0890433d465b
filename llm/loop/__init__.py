"""The training loop: steps, resuming, evaluation, selection, divergence and signals."""
