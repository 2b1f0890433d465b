"""Baselines: what a model can do without a step of training."""

from llm.baselines.baseline import Baseline, BaselineSetting, Outcome
from llm.baselines.table import BASELINES, known, parse
from llm.baselines.untouched import Untouched, untouched

__all__ = ["BASELINES", "Baseline", "BaselineSetting", "Outcome", "Untouched", "known", "parse", "untouched"]
