"""Linear probing: a logistic regression on the hidden states of the untouched model."""

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from llm.baselines.baseline import Baseline, BaselineSetting, Outcome
from llm.model.language_model import LanguageModel
from llm.model.logits import padded, states_at
from llm.objective import Encoded, Measured, first_places, measured, parts
from llm.tasks import Task

FOLDS, ITERATIONS, BATCH = 5, 5000, 64


@dataclass(frozen=True)
class LinearProbing(Baseline):
    """scikit-learn's LogisticRegressionCV on the last hidden state of the last prompt token, the one from which the
    model's head foretells the answer (at the mask, for masked models).

    As in MeZO: L2, its strength chosen among 10 by 5-fold cross-validation on the training examples, no intercept where
    the model's own head has none (causal models), up to 5000 iterations. There the classes are the tokens of the
    candidates; here they are the candidates, which is the same where each is one token.

    Cost: the forward passes of train, dev and test, and the regression on the CPU.
    """

    about: ClassVar[str] = "logistic regression on the last hidden state of the prompt (scikit-learn)"

    def check(self, task: Task) -> None:
        if task.candidates is None:
            raise ValueError(
                f"linear-probing learns a class for each candidate that all examples share; those of task {task.name} "
                "have their own, or answers that are generated: give --method icl"
            )
        if importlib.util.find_spec("sklearn") is None:
            raise ValueError(
                'linear-probing needs scikit-learn: pip install -e ".[suites]", or pip install scikit-learn'
            )

    def check_setting(self, setting: BaselineSetting) -> None:
        assert setting.task.candidates is not None  # check has seen to it
        counts = np.bincount([row.label for row in setting.train], minlength=len(setting.task.candidates))
        if counts.min() < 2:
            scarce = setting.task.candidates[int(counts.argmin())]
            raise ValueError(
                f"linear-probing needs 2 or more training examples of each candidate, but {scarce!r} has "
                f"{counts.min()}: give more training examples (--train)"
            )

    def measure(self, setting: BaselineSetting) -> Outcome:
        model = setting.objective.language_model
        states = [features(model, part) for part in (setting.train, setting.dev, setting.test)]
        fit = _fit(states[0], [row.label for row in setting.train], intercept=model.masked)
        for warning in fit.warnings:
            setting.note(f"linear-probing: {warning}")
        dev = _judged(fit.regression, states[1], setting.dev, setting.objective.metric)
        test = _judged(fit.regression, states[2], setting.test, setting.objective.metric)
        return Outcome(dev, test, {"inverse_penalty": float(np.ravel(fit.regression.C_)[0])})


@torch.no_grad()
def features(language_model: LanguageModel, rows: Sequence[Encoded]) -> Tensor:
    """Return the last hidden state where the answer of each prompt is foretold, float32 (rows, hidden), on the CPU."""
    lengths = [len(row.tokens) for row in rows]
    rows_of: list[Tensor] = [torch.empty(0, dtype=torch.float32)] * len(rows)
    for part in parts(lengths, lengths, BATCH):
        prompts = [rows[i].tokens for i in part]
        states = states_at(language_model, padded(language_model, prompts), first_places(language_model, prompts))
        for i, state in zip(part, states.float().cpu(), strict=True):
            rows_of[i] = state
    return torch.stack(rows_of)


@dataclass(frozen=True, eq=False)
class _Fit:
    """A fitted regression, and its warnings."""

    regression: Any
    warnings: tuple[str, ...]


def _fit(states: Tensor, labels: Sequence[int], intercept: bool) -> _Fit:
    from sklearn.exceptions import ConvergenceWarning  # slow to import, and optional
    from sklearn.linear_model import LogisticRegressionCV

    folds = min(FOLDS, int(np.bincount(labels)[np.unique(labels)].min()))
    regression = LogisticRegressionCV(
        cv=folds, fit_intercept=intercept, scoring="accuracy", max_iter=ITERATIONS, tol=1e-4, random_state=0
    )
    with warnings.catch_warnings(record=True) as caught:  # of defaults that will change in a later scikit-learn, too
        warnings.simplefilter("always")
        regression.fit(states.double().numpy(), np.asarray(labels))
    stopped = any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    fewer = (f"{folds} folds, not {FOLDS}: a label has no more training examples",) if folds < FOLDS else ()
    return _Fit(regression, (*fewer, *((f"not converged after {ITERATIONS} iterations",) if stopped else ())))


def _judged(regression: Any, states: Tensor, rows: Sequence[Encoded], metric: str) -> Measured:
    """The scores are the regression's log-odds; of two classes it gives those of the second over the first."""
    scores = torch.from_numpy(regression.decision_function(states.double().numpy()))
    scores = scores if scores.ndim == 2 else torch.stack((torch.zeros_like(scores), scores), 1)
    labels = torch.tensor([row.label for row in rows])
    loss = float(functional.cross_entropy(scores, labels))
    examples = [row.example for row in rows]
    return measured(metric, loss, labels, examples, scores=scores, common=True)
