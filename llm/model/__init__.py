"""Models: loading and saving, adapters, which tensors are trained, logits and generation."""
