"""The checks of estimators, a file for each concept."""
