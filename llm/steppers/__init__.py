"""Steppers, which take the steps of a named method; baselines take no step."""
