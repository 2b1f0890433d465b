"""The audit of estimators that install from the package index."""
