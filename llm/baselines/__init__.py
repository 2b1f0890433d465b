"""Baselines: what a model can do without a step of training."""

from llm.baselines.baseline import Baseline, Outcome, Setting
from llm.baselines.table import BASELINES, known, parse
from llm.baselines.untouched import Untouched, untouched

__all__ = ["BASELINES", "Baseline", "Outcome", "Setting", "Untouched", "known", "parse", "untouched"]
