"""Answers to rows without labels, from Python and from the command line."""

from llm.predict.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]
