"""Metrics of answers, as the official evaluations define them: SQuAD, DROP, ReCoRD, MultiRC, CB.

Each takes one prediction and the right answers, of which the best match counts, and returns a number in [0, 1].
"""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from zobench.naming import require_known

Spans = str | Sequence[str]
"""An answer of DROP: one text, or several that belong together."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise(text: str) -> str:
    """Return the text in lower case without punctuation, articles (a, an, the) and superfluous white space.

    Source: evaluate-v1.1.py of SQuAD (Rajpurkar et al. 2016); ReCoRD's evaluation does the same.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1 if the prediction is some answer after `normalise`, else 0. Official for SQuAD and ReCoRD."""
    return float(any(normalise(prediction) == normalise(answer) for answer in answers))


def f1(prediction: str, answers: Sequence[str]) -> float:
    """Return the greatest token F1 = 2 P R / (P + R) over the answers, after `normalise`. Official for SQuAD, ReCoRD.

    P and R are the parts of the predicted and of the right tokens that both have, counted with repetition. A text that
    normalises to nothing matches only another such text (SQuAD 2.0).
    """
    return max((_token_f1(normalise(prediction).split(), normalise(answer).split()) for answer in answers), default=0.0)


def _token_f1(predicted: list[str], right: list[str]) -> float:
    if not predicted or not right:
        return float(predicted == right)
    return _harmonic((Counter(predicted) & Counter(right)).total(), len(predicted), len(right))


def _harmonic(common: int, predicted: int, right: int) -> float:
    return 2 * common / (predicted + right) if predicted + right else 0.0


def drop_exact_match(prediction: Spans, answers: Sequence[Spans]) -> float:
    """Return 1 if the spans of the prediction are those of some answer after DROP's normalisation, else 0."""
    found = sorted(map(_drop_normalise, _spans(prediction)))
    return float(any(found == sorted(map(_drop_normalise, _spans(answer))) for answer in answers))


def drop_f1(prediction: Spans, answers: Sequence[Spans]) -> float:
    """Return the greatest DROP F1 over the answers (Dua et al. 2019, drop_eval.py).

    Spans become sets of tokens; predicted and right ones are paired so that the sum of their F1 is greatest, and the
    sum is divided by the greater number of spans. A pair counts only where the right span has no number, or a number
    that the predicted one has. Texts split at spaces and hyphens; a token that is a number is kept as such (3.0 is 3),
    another loses its punctuation. Not done: the official script rounds F1 to two decimals, and skips empty answers.
    """
    return max((_drop_f1(_bags(prediction), _bags(answer)) for answer in answers), default=0.0)


def _drop_f1(predicted: list[set[str]], right: list[set[str]]) -> float:
    pairs = [[_bag_f1(p, r) for p in predicted] for r in right]
    rows, columns = linear_sum_assignment(pairs, maximize=True)
    return sum(pairs[r][c] for r, c in zip(rows, columns, strict=True)) / max(len(predicted), len(right))


def _bag_f1(predicted: set[str], right: set[str]) -> float:
    numbers = {token for token in right if _is_number(token)}
    if numbers and not numbers & predicted:
        return 0.0
    if not predicted or not right:
        return float(predicted == right)
    return _harmonic(len(predicted & right), len(predicted), len(right))


def _spans(answer: Spans) -> Sequence[str]:
    return [answer] if isinstance(answer, str) else answer


def _bags(answer: Spans) -> list[set[str]]:
    return [set(_drop_normalise(span).split()) for span in _spans(answer)]


def _drop_normalise(text: str) -> str:
    return " ".join(" ".join(map(_drop_token, re.split(r"[ -]", text))).split())


def _drop_token(token: str) -> str:
    token = token.lower()
    token = token if _is_number(token) else token.translate(_PUNCTUATION)
    return str(float(token)) if _is_number(token) else _ARTICLES.sub(" ", token)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def macro_f1(predicted: Tensor, labels: Tensor) -> float:
    """Return the mean over the classes of 2 TP / (2 TP + FP + FN); classes neither predicted nor right do not count.

    Official for CB, beside accuracy (SuperGLUE, Wang et al. 2019).
    """
    classes = torch.cat((predicted, labels)).unique()
    both = [int(((predicted == c) & (labels == c)).sum()) for c in classes]
    counts = [(int((predicted == c).sum()), int((labels == c).sum())) for c in classes]
    return sum(_harmonic(tp, p, r) for tp, (p, r) in zip(both, counts, strict=True)) / len(classes)


class MultiRC(NamedTuple):
    """F1 over all answers (class: right), and the part of the questions whose answers are all judged rightly."""

    f1a: float
    exact_match: float


def multirc(predicted: Sequence[int], labels: Sequence[int], questions: Sequence[Hashable]) -> MultiRC:
    """Return MultiRC's official metrics (Khashabi et al. 2018) of answers that belong to `questions`; 1 is right."""
    common = sum(p == y == 1 for p, y in zip(predicted, labels, strict=True))
    wrong = {q for p, y, q in zip(predicted, labels, questions, strict=True) if p != y}
    return MultiRC(_harmonic(common, sum(predicted), sum(labels)), 1 - len(wrong) / len(set(questions)))


def f1_of_each(predicted: Tensor, labels: Tensor, classes: int) -> list[float]:
    """Return 2 TP / (2 TP + FP + FN) of each class, 0 for one that is neither predicted nor right."""
    pairs = ((predicted == c, labels == c) for c in range(classes))
    return [_harmonic(int((p & right).sum()), int(p.sum()), int(right.sum())) for p, right in pairs]


OF_LABELS = ("accuracy", "macro-f1")
OF_TEXTS: dict[str, Callable[[str, Sequence[str]], float]] = {
    "f1": f1,
    "exact-match": exact_match,
    "drop-f1": drop_f1,
    "drop-exact-match": drop_exact_match,
}
METRICS = ("accuracy", *OF_TEXTS)


def values(name: str, predictions: Sequence[str | None], answers: Sequence[Sequence[str]]) -> Tensor:
    """Return the metric of each prediction, float64; NaN where there is none, which is not a wrong answer.

    Raises:
        UnknownNameError: no such metric of texts.
    """
    require_known(name, OF_TEXTS, "metric of texts")
    pairs = zip(predictions, answers, strict=True)
    found = [math.nan if text is None else OF_TEXTS[name](text, right) for text, right in pairs]
    return torch.tensor(found, dtype=torch.float64)


def together(name: str) -> tuple[str, ...]:
    """Return the metrics that are reported with this one, itself included."""
    family = "drop-" if name.startswith("drop-") else ""
    return (f"{family}f1", f"{family}exact-match")
