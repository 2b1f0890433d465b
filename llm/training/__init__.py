"""Training: options, what takes the steps, what keeps them, and what measures the model on its way."""
