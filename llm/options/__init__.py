"""The options of commands: fields alone, in groups that commands share, and presets."""
