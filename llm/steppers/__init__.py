"""Steppers: what takes the steps of a named method, or stands in its place where no step is taken."""
