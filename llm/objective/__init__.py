"""Objectives: what is minimised and what evaluations report."""

from llm.objective.answers import AnswerObjective, Losses, MetricObjective, one_minus
from llm.objective.choose import TASKS_OWN, choose
from llm.objective.classification import Judged, Objective
from llm.objective.encoding import Encoded, Encoder
from llm.objective.measured import (
    Measured,
    calibrated_accuracy,
    calibration,
    chance_accuracy,
    measured,
    parts,
    shifted,
)
from llm.objective.notes import data_notes
from llm.objective.scoring import answer_log_probs, candidate_scores, first_places

__all__ = [
    "TASKS_OWN",
    "AnswerObjective",
    "Encoded",
    "Encoder",
    "Judged",
    "Losses",
    "Measured",
    "MetricObjective",
    "Objective",
    "answer_log_probs",
    "calibrated_accuracy",
    "calibration",
    "candidate_scores",
    "chance_accuracy",
    "choose",
    "data_notes",
    "first_places",
    "measured",
    "one_minus",
    "parts",
    "shifted",
]
