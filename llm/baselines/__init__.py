"""Baselines: what a model can do without a step of training."""

from llm.baselines.baseline import Baseline, BaselineSetting, Outcome
from llm.baselines.table import BASELINES, parse
from llm.baselines.untouched import StartMeasurements, untouched

__all__ = ["BASELINES", "Baseline", "BaselineSetting", "Outcome", "StartMeasurements", "parse", "untouched"]
