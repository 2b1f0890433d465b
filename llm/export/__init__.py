"""Export: a run's tuned weights as a folder for others, with a model card."""

from llm.export.command import export, run
from llm.options.export import ExportOptions

__all__ = ["ExportOptions", "export", "run"]
