"""Export: a run's tuned weights as a folder for others, with a model card."""

from llm.export.command import ExportOptions, export, run

__all__ = ["ExportOptions", "export", "run"]
