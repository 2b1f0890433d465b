"""The audit of a subject as rows, and as text."""

import importlib.metadata
import math
from collections.abc import Iterator
from typing import Any

from zobench.audit import matching, measuring
from zobench.audit.probing import Probe, probe
from zobench.testing import CHECKS, Report, Subject, examples
from zobench.testing.check import Level
from zobench.testing.examples import Example
from zobench.testing.mean import LARGEST
from zobench.testing.report import Row

HEAD = (
    f"  {'problem':10} {'epsilon':>9} {'|bias|/|grad f|':>18} {'predicted':>10} {'MSE':>10} {'predicted':>10}"
    f" {'cosine':>7} {'predicted':>9}"
)
COSINES = {"cosine": 7, "predicted_cosine": 9}
PROBLEMS = {"linear": examples.linear, "quadratic": examples.quadratic, "smooth": examples.smooth}


def audit(
    subject: Subject, problems: dict[str, Example], epsilons: tuple[float, ...], samples: int
) -> Iterator[dict[str, Any]]:
    """Yield the rows of an audit: "bias" for each problem, epsilon and sampling, one of kind "audit" with the facts,
    and one of kind "audit-check" for each check.
    """
    dim = max(next(iter(problems.values())).f.dim, subject.least_dim)
    probed, line = probe(subject, dim), examples.linear(dim)
    scale, moments = measuring.scale(subject, samples), measuring.moments(subject, line, samples)
    match = matching.candidate(subject, probed)
    match = matching.confirmed(match, line, moments.second, moments.error)
    bias: list[dict[str, Any]] = []
    for name, example in problems.items():
        for row in measuring.bias_rows(subject, example, epsilons, samples, match):
            bias.append({"method": subject.name, "problem": name, **row})
            yield bias[-1]
    last = [row for row in bias if row["problem"] == bias[-1]["problem"]]
    yield {
        "kind": "audit", "target": subject.name, "dim": dim, "samples": samples,
        **_looked(probed), "ratio": scale.ratio, "ratio_error": scale.error, "factor": scale.named or None,
        "second_moment": moments.second, "second_moment_error": moments.error,
        "alignment": moments.alignment, "bias_order": measuring.order(last),
        **measuring.sensitivity(subject, examples.smooth(dim)),
        "x_left": _left(subject, examples.smooth(dim)),
        "match": None if match is None else repr(match), "composition": None if match is None else match.composition,
    }  # fmt: skip
    level = Level(10 * samples, samples // 2, keys=2)
    for check in CHECKS:
        result = check.run(subject, level)
        yield {"kind": "audit-check", "target": subject.name, **result._asdict()}


def _looked(probed: Probe | None) -> dict[str, Any]:
    if probed is None:
        return {"evaluations": None, "lines": None}
    return {
        "evaluations": list(probed.evaluations), "at_x": probed.at_x, "lines": probed.lines,
        "nodes": list(probed.nodes), "law": None if probed.law is None else repr(probed.law), "length": probed.length,
        "effective_dimension": probed.effective_dimension, "still": probed.still, "asymmetry": probed.asymmetry,
    }  # fmt: skip


def _left(subject: Subject, example: Example) -> float | None:
    """How far a plain function leaves the vector x that it was given from where it was."""
    leaves = getattr(subject, "leaves", None)
    return None if leaves is None else float((leaves(example.f, example.x, 1) - example.x).abs().max())


def version(target: str) -> str | None:
    """Return the version of the distribution that a target's module is of."""
    top = target.split(":")[0].split(".")[0]
    names = importlib.metadata.packages_distributions().get(top, [])
    return f"{names[0]} {importlib.metadata.version(names[0])}" if names else None


def text(rows: list[dict[str, Any]]) -> str:
    """Return the rows of an audit as a person reads them."""
    (facts,) = (row for row in rows if row["kind"] == "audit")
    checks = [Row(*(row[name] for name in Row._fields)) for row in rows if row["kind"] == "audit-check"]
    lines = [facts["target"], *(f"  {name:22} {value}" for name, value in _told(facts))]
    lines.append(HEAD)
    lines += [_measured(row, rows) for row in rows if row["kind"] == "bias" and row["sampling"] == "plain"]
    return "\n".join([*lines, str(Report("checks", tuple(checks)))])


def _measured(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    same = ("problem", "epsilon")
    (controlled,) = (
        r for r in rows if r["kind"] == "bias" and r["sampling"] == "controlled" and all(r[k] == row[k] for k in same)
    )
    size = row["gradient_norm"]
    bias = f"{controlled['bias'] / size:.2e} ± {controlled['bias_error'] / size:.0e}"
    numbers = (controlled.get("predicted_bias"), row["mse"], row.get("predicted_mse"))
    scaled = (None if n is None else n / size**p for n, p in zip(numbers, (1, 2, 2), strict=True))
    shown = " ".join(f"{'-' if n is None else format(n, '.3g'):>10}" for n in scaled)
    cosine = " ".join(f"{'-' if row.get(k) is None else format(row[k], '.3f'):>{w}}" for k, w in COSINES.items())
    epsilon = "-" if row["epsilon"] is None else format(row["epsilon"], "g")
    return f"  {row['problem']:10} {epsilon:>9} {bias:>18} {shown} {cosine}"


def _told(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    dim, ratio = facts["dim"], facts["ratio"]
    if facts["evaluations"] is None:
        yield "evaluations", "f is evaluated nowhere but at x: no direction is seen from outside"
    else:
        yield from _points(facts, dim)
    named = f", which {facts['factor']}" if facts["factor"] else ""
    yield "scale", f"E[g] = {ratio:.4g} grad f (± {facts['ratio_error']:.1g}) on linear f{named}"
    second, error = facts["second_moment"], facts["second_moment_error"]
    yield "second moment", f"E|g|^2 = {second:.4g} |grad f|^2 (± {error:.2g}) on linear f, d = {dim}"
    yield "alignment", _aligned(facts)
    order = facts["bias_order"]
    yield "bias", "not seen at two epsilons" if order is None else f"grows as epsilon^{order:.2f} on the last problem"
    yield "f + 1 for f", _change(facts["shift"])
    yield "3 f for f", _change(facts["scale"], "g is 3 g")
    if facts["x_left"] is not None:
        yield "x afterwards", "as it was" if not facts["x_left"] else f"{facts['x_left']:.2g} from where it was"
    yield "on a constant", "g = 0" if not facts["constant"] else f"|g| is up to {facts['constant']:.2g}"
    yield "composition of ours", facts["match"] or "none matches by points, weights and second moment"


def _points(facts: dict[str, Any], dim: int) -> Iterator[tuple[str, str]]:
    least, most = facts["evaluations"]
    count = f"{least}" if least == most else f"{least} to {most}"
    yield "evaluations a call", f"{count}, {facts['at_x']} of them at x"
    yield "lines a call", f"{facts['lines']}, nodes {', '.join(f'{n:g}' for n in facts['nodes'])}"
    yield "directions", f"{facts['law'] or 'no law of ours'}; displacement {facts['length']:.4g} u, E|u|^2 = d"
    tied = facts["effective_dimension"]
    yield "effective dimension", f"{tied:.3g} of {dim}" + (": coordinates are tied" if tied < 0.85 * dim else "")
    if facts["still"]:
        yield "never moved", f"coordinates {', '.join(map(str, facts['still']))}"
    if facts["asymmetry"] > LARGEST:
        yield "symmetry", f"directions have a mean that is not 0 (z = {facts['asymmetry']:.3g})"


def _aligned(facts: dict[str, Any]) -> str:
    line = f"E g . grad f / sqrt(E|g|^2 |grad f|^2) = {facts['alignment']:.3f}"
    n, dim = facts["lines"], facts["dim"]
    return line if not n else f"{line}; Gaussian directions: sqrt(n / (n + d + 1)) = {math.sqrt(n / (n + dim + 1)):.3f}"


def _change(size: float, same: str = "the estimate is the same") -> str:
    return same if size < 1e-6 else f"not so that {same}: off by {size:.2g} |grad f|"
