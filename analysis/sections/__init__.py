"""Sections of the report, each a function of Results."""
