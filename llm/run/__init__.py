"""A run and its folder: options, presets, rows, journal and checkpoints."""
