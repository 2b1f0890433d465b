"""Result folders in, figures, tables and one self-contained report out; reads files only."""
