"""Integrations: each module imports the library it serves, and nothing imports these modules."""
