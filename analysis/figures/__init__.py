"""Figures, each a function of a tidy frame; none reads a file or changes matplotlib's global state."""
