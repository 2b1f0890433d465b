"""The measurement of an objective on a set of examples, and accuracies derived from scores alone."""

import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from llm.objective import metrics
from llm.tasks import Example

BATCH_TOKENS = 32768  # of an evaluation batch with its padding: a bound on memory
NONE: Mapping[str, float] = MappingProxyType({})


class Measured(NamedTuple):
    """Mean loss and metric over a set of examples, with the candidates' scores (examples, candidates).

    `accuracy` is the value of `metric`; `others` holds further metrics by name. `scores` is None where answers are
    generated, and -inf where an example has fewer candidates; `common` says that all examples have the same ones.
    """

    loss: float
    accuracy: float
    scores: Tensor | None
    labels: Tensor
    metric: str = "accuracy"
    others: Mapping[str, float] = NONE
    common: bool = True

    def named(self, prefix: str) -> dict[str, float | str]:
        """Return what rows say beside loss and accuracy: nothing where the metric is accuracy and there is no other."""
        metric: dict[str, float | str] = {"metric": self.metric} if self.metric != "accuracy" else {}
        return {**metric, **{f"{prefix}_{name.replace('-', '_')}": value for name, value in self.others.items()}}


def measured(
    metric: str,
    loss: float,
    labels: Tensor,
    examples: Sequence[Example | None],
    scores: Tensor | None = None,
    answers: Sequence[str | None] | None = None,
    common: bool = False,
) -> Measured:
    """Return the metrics of the best candidates, where there are scores, or of generated answers.

    Raises:
        ValueError: accuracy is asked of generated answers.
    """
    if metric in metrics.OF_LABELS:
        if scores is None:
            raise ValueError(f"generated answers have no {metric}: give the task the metric f1 or exact-match")
        found = _of_labels(metric, scores, labels, examples, common)
        return Measured(loss, found.pop(metric), scores, labels, metric, found, common)
    texts = answers if scores is None else chosen(scores, examples)
    gold = [right_answers(example) for example in examples]
    found = {name: float(metrics.values(name, texts or (), gold).mean()) for name in metrics.together(metric)}
    return Measured(loss, found.pop(metric), scores, labels, metric, found, common)


def _of_labels(
    metric: str, scores: Tensor, labels: Tensor, examples: Sequence[Example | None], common: bool
) -> dict[str, float]:
    """The metrics of labels; NaN where an example has no answer, which is not a wrong one, let alone a right one."""
    predicted, lost = scores.argmax(1), not bool(answered(scores, examples).all())
    found = {"accuracy": math.nan if lost else float((predicted == labels).double().mean())}
    if metric == "macro-f1" or (common and scores.shape[1] > 2):
        found["macro-f1"] = math.nan if lost and metric == "macro-f1" else metrics.macro_f1(predicted, labels)
    if metric == "macro-f1" and common:
        each = metrics.f1_of_each(predicted, labels, scores.shape[1])
        names = _class_names(examples[0], scores.shape[1])
        found |= {f"f1-of-{name}": math.nan if lost else value for name, value in zip(names, each, strict=True)}
    if metric == "macro-f1":
        del found["accuracy"]  # rows keep that name for the metric itself
    return found


def _class_names(example: Example | None, count: int) -> list[str]:
    """The labels as columns of a row may name them: their words, or their numbers where these are not distinct."""
    texts = choices(example) if example else ()
    names = [re.sub(r"\W+", "-", text.strip()).strip("-") for text in texts]
    return names if len(set(filter(None, names))) == count else [str(i) for i in range(count)]


def chosen(scores: Tensor, examples: Sequence[Example | None]) -> list[str | None]:
    """Return what the best candidate of each example stands for, or None where its scores are not finite."""
    best = zip(scores.argmax(1).tolist(), answered(scores, examples).tolist(), examples, strict=True)
    return [choices(example)[k] if ok and example else None for k, ok, example in best]


def choices(example: Example) -> tuple[str, ...]:
    """Return what the candidates stand for: `example.choices` (ReCoRD: the entity filled in), or themselves."""
    return example.choices or example.candidates


def answered(scores: Tensor, examples: Sequence[Example | None]) -> Tensor:
    """Return which examples have a finite score for each of their candidates."""
    counts = [len(example.candidates) if example and example.candidates else scores.shape[1] for example in examples]
    return scores.isfinite().sum(1) == torch.tensor(counts, device=scores.device)


def right_answers(example: Example | None) -> tuple[str, ...]:
    """Return the right answers of an example: its own, or else what the right candidate stands for."""
    if example is None:
        return ()
    return example.answers or choices(example)[example.label : example.label + 1]


def parts(keys: Sequence[int], lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Return indices in the order of their keys, in parts of at most `batch_size` and about BATCH_TOKENS tokens."""
    found: list[list[int]] = []
    longest = 0
    for i in sorted(range(len(keys)), key=lambda i: keys[i]):
        longest = max(longest, lengths[i])
        if not found or len(found[-1]) == batch_size or longest * (len(found[-1]) + 1) > BATCH_TOKENS:
            found.append([])
            longest = lengths[i]
        found[-1].append(i)
    return found


def calibration(fitted: Measured) -> Tensor:
    """Return what to subtract from the candidates' scores, by what `fitted` (training rows) says.

    float64 (candidates,). Two candidates: 0 and the threshold on their score difference that is most accurate on
    `fitted`. More: each candidate's mean score (batch calibration, Zhou et al. 2023).
    """
    assert fitted.scores is not None
    scores = fitted.scores.double()
    if scores.shape[1] != 2:
        return scores.mean(0)
    margin = scores[:, 1] - scores[:, 0]
    order = margin.sort().values
    thresholds = torch.cat((order[:1] - 1, (order[1:] + order[:-1]) / 2, order[-1:] + 1))
    hits = ((margin[None, :] > thresholds[:, None]).long() == fitted.labels).sum(1)
    return torch.stack((torch.zeros_like(thresholds[0]), thresholds[int(hits.argmax())]))


def shifted(judged: Measured, shift: Tensor, examples: Sequence[Example | None] | None = None) -> Measured:
    """Return what `judged` would have been with `shift` (candidates,) subtracted from the scores of every example; the
    examples are needed for other metrics than accuracy.
    """
    assert judged.scores is not None
    scores = judged.scores.double() - shift
    loss, known = float(functional.cross_entropy(scores, judged.labels)), examples or [None] * len(scores)
    return measured(judged.metric, loss, judged.labels, known, scores=scores, common=judged.common)


def calibrated_accuracy(fitted: Measured, judged: Measured) -> float:
    """Return the accuracy of `judged` after scores were shifted by `calibration(fitted)`.

    NaN where examples have candidates of their own or answers are generated, as there is nothing common to shift, and
    for metrics of texts.
    """
    of_labels = judged.metric in metrics.OF_LABELS
    if fitted.scores is None or judged.scores is None or not (judged.common and of_labels):
        return math.nan
    return shifted(judged, calibration(fitted)).accuracy


def chance_accuracy(fitted: Measured, judged: Measured) -> float:
    """Return the accuracy on `judged` of always answering with the most frequent label of `fitted`.

    Where examples have candidates of their own: of guessing among them. NaN for metrics of texts.
    """
    if judged.scores is None or judged.metric not in metrics.OF_LABELS:
        return math.nan
    if judged.common and judged.metric == "macro-f1":
        return metrics.macro_f1(fitted.labels.mode().values.expand_as(judged.labels), judged.labels)
    if judged.common:
        return float((judged.labels == fitted.labels.mode().values).double().mean())
    return float((1 / (judged.scores != -torch.inf).sum(1).double()).mean())
