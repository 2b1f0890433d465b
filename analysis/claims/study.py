"""Claims 8 and 10: KerZOO and its parts against MeZO, seed by seed, at equal forward passes.

The tests are those of docs/kerzoo-plan.md, which was written before the runs.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
from scipy import stats

from analysis import text
from analysis.claims import power
from analysis.claims.claim import CODE, FAILS, HOLDS, PAPER, UNDECIDED, Claim
from analysis.claims.runs import COMPARISON, grids, last_loss, passes_to, planned, runs
from analysis.rows import Results
from analysis.statistics import Comparison, holm, paired
from zobench.figures.panels import LEVEL

BASE = "mezo"
CLAIMED = 0.026  # the smaller of the abstract's two gains
Told = tuple[str, str, float, str]  # estimate, verdict, p, needs
STUDY = ["study", "model", "task"]
WHOLE = ("kerzoo", "code")
"""Arms that stand for KerZOO as a whole: as in the paper, and as reconstructed from a port of its code."""
PARTS = {
    "mezo-clip": "the clip of each tensor",
    "mezo-4x": "C = 4, a fourfold rate",
    "mezo-3": "three directions",
    "copy": "the second copy of the weights",
    "mezo-hidden": "the hidden schedule alone",
    "per-tensor": "one r for each tensor",
    "kerzoo-matched": "the kernel at MeZO's mean step",
    "code-matched": "all of the code at MeZO's mean step",
    "kerzoo-unscaled": "the shrinking interval under the kernel of [−1, 1]",
    "kerzoo-rescaled": "the shrinking interval, rescaled",
    "optimal": "the optimal kernel",
}
"""Arms that have one part of KerZOO, or an alternative to its kernel, and what they isolate."""
FASTER = 0.9  # of MeZO's forward passes: a ratio above it is no saving
MISSING = (text.NONE, UNDECIDED, math.nan, "not run yet: `python -m llm compare`")
NOT_RUN = ("fine-tuning", "0 runs", *MISSING)
WORDS = ("fewer iterations", "fewer GPU hours", "higher accuracy")


Cells = list[tuple[tuple[str, ...], pd.DataFrame]]
Plan = dict[tuple[str, str, str], int]
Faults = dict[str, dict[str, str]]


def claims(results: Results) -> Iterator[Claim]:
    """Iterations, hours and accuracy of KerZOO on each task, then each part of it."""
    plan, cells = planned(results), _cells(results)
    faults = {study: {name: grid.fault for name, grid in grids(results, study).items()} for (study, *_), _ in cells}
    yield from _wholes(cells, plan, faults)
    yield from _parts(cells, plan, faults)


def missing(results: Results) -> Iterator[Claim]:
    """What is still to be run: of a plan the arms without a run, and all of it where there is no plan."""
    cells, plan = _cells(results), planned(results)
    if not any(set(WHOLE) & set(mine["arm"]) for _, mine in cells):
        for letter, words in zip("abc", map(_words, WORDS), strict=True):
            yield Claim(f"8{letter}", words, PAPER, *NOT_RUN)
    run = {(study, task, arm) for (study, _, task), mine in cells for arm in mine["arm"]}
    about = {study for study, _, arm in plan if arm in (*WHOLE, *PARTS)}  # other comparisons make no claim here
    absent = {place: count for place, count in plan.items() if place[0] in about and place not in run and count}
    if absent:
        arms = text.listed(dict.fromkeys(f"`{arm}`" for *_, arm in absent))
        n = f"0 of {sum(absent.values())} runs"
        yield Claim("10", f"Other arms of the plan: {arms}", CODE, "fine-tuning", n, *MISSING)
    elif not any(_other_arms(mine) for _, mine in cells):
        yield Claim("10", "Clipping, C = 4, three directions, the second copy: what each adds to MeZO", CODE, *NOT_RUN)


def _cells(results: Results) -> Cells:
    found = runs(results)
    return [(tuple(map(str, key)), mine) for key, mine in found.groupby(STUDY, sort=False) if _compares(mine)]


def _other_arms(runs: pd.DataFrame) -> list[str]:
    """The parts that a comparison by a plan has."""
    arms = set(runs.loc[runs["by"] == COMPARISON, "arm"])
    return [arm for arm in PARTS if arm in arms]


def _fault(faults: dict[str, str], arm: str) -> str:
    """What makes an arm and MeZO not comparable: a best rate at the edge of its grid."""
    return "; ".join(filter(None, (faults.get(name, "") for name in (BASE, arm))))


def _compares(runs: pd.DataFrame) -> bool:
    arms = set(runs["arm"])
    return BASE in arms and len(arms) > 1


def common(runs: pd.DataFrame, arm: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The runs of an arm and MeZO's, by seed, as far as both ended; a diverged run is an end."""
    ended = runs[runs["status"].isin(["ok", "diverged"])].set_index("seed")
    one, base = ended[ended["arm"] == arm], ended[ended["arm"] == BASE]
    seeds = one.index.intersection(base.index).sort_values()
    return one.loc[seeds], base.loc[seeds]


def ratios(one: pd.DataFrame, base: pd.DataFrame) -> list[float]:
    """For each seed, the forward passes to MeZO's mean final dev loss over MeZO's own; a miss is infinite, and 1 where
    MeZO misses too.
    """
    losses = [last_loss(curve) for curve in base["curve"]]
    loss = sum(losses) / len(losses)
    return [_ratio(passes_to(a, loss), passes_to(b, loss)) for a, b in zip(one["curve"], base["curve"], strict=True)]


def _ratio(passes: float, own: float) -> float:
    if math.isinf(own):
        return 1.0 if math.isinf(passes) else 0.0
    return passes / own if own else math.inf


def sign_test(values: list[float], bar: float = 1.0) -> float:
    """The two-sided p of the sign test that the median is `bar`; ties are left out."""
    less, more = sum(v < bar for v in values), sum(v > bar for v in values)
    return float(stats.binomtest(less, less + more).pvalue) if less + more else math.nan


def _wholes(cells: Cells, plan: Plan, faults: Faults) -> Iterator[Claim]:
    """Three claims for each task and each arm of WHOLE; the p of accuracies after Holm, over the plan's comparisons."""
    places = [
        (study, f"{model}, {task}", arm, *common(mine, arm), plan.get((study, task, arm)))
        for (study, model, task), mine in cells
        for arm in WHOLE
        if arm in set(mine["arm"])
    ]
    places = [place for place in places if len(place[3])]
    compared = [paired(one["test_accuracy"], base["test_accuracy"]) for *_, one, base, _ in places]
    planned = [total is not None for *_, total in places]
    adjusted = iter(holm([c.p for c, is_planned in zip(compared, planned, strict=True) if is_planned]))
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    for (study, where, arm, one, base, total), each in zip(places, compared, strict=True):
        p = each.p if total is None else next(adjusted)
        for words, told in _whole(one, base, each, p):
            n = f"{len(one)}{'' if total is None else f' of {total}'} seeds"
            claim = Claim(f"8{next(letters)}", words, PAPER, f"{where}: `{arm}` against `{BASE}`", n, *told)
            yield _finished(_comparable(claim, _fault(faults[study], arm)), len(one), total)


def _finished(claim: Claim, seeds: int, total: int | None) -> Claim:
    """The claim, undecided while the seeds of the plan are not complete: its tests are made once."""
    if total is None or seeds >= total:
        return claim
    return replace(claim, verdict=UNDECIDED, needs=f"the other {total - seeds} seeds of the plan")


def _comparable(claim: Claim, fault: str) -> Claim:
    """The claim, undecided where a rate lies at the edge of its grid."""
    return replace(claim, verdict=UNDECIDED, needs=f"not comparable, {fault}") if fault else claim


def _words(what: str) -> str:
    higher = f"KerZOO is more accurate than MeZO, by {100 * CLAIMED:g} points or more"
    return f"KerZOO needs {what} than MeZO" if what in WORDS[:2] else higher


def _whole(one: pd.DataFrame, base: pd.DataFrame, compared: Comparison, p: float) -> Iterator[tuple[str, Told]]:
    """The three claims of the abstract on one task."""
    passes, cost = ratios(one, base), _cost(one) / _cost(base)
    yield _words(WORDS[0]), _speed(passes, "forward passes to MeZO's mean final dev loss")
    yield _words(WORDS[1]), _speed([ratio * cost for ratio in passes], "seconds to it, by each run's own clock")
    yield _words(WORDS[2]), _accuracy(compared, p)


def _cost(runs: pd.DataFrame) -> float:
    return float((runs["seconds"] / runs["forward_passes"]).median())


def _speed(values: list[float], what: str) -> Told:
    """Estimate, verdict, p and needs of ratios to MeZO: holds below 1, does not hold above FASTER."""
    middle = power.median_interval(values)
    missed = sum(math.isinf(value) for value in values)
    bounds = "" if math.isnan(middle.low) else f" [{text.number(middle.low)}, {text.number(middle.high)}]"
    estimate = f"median ratio {text.number(middle.estimate)}{bounds} of {what}; missed by {missed} of {len(values)}"
    verdict = HOLDS if middle.high < 1 else FAILS if middle.low > FASTER else UNDECIDED
    needs = f"{power.FEWEST} seeds or more" if len(values) < power.FEWEST else "more seeds"
    return estimate, verdict, sign_test(values), needs if verdict == UNDECIDED else ""


def _accuracy(compared: Comparison, p: float) -> Told:
    """Holds where p, adjusted, is below 5 % and the difference positive; does not hold below the claimed gain."""
    difference = compared.difference
    excluded = FAILS if difference.high < CLAIMED else UNDECIDED
    verdict = HOLDS if p < 1 - LEVEL and difference.estimate > 0 else excluded
    estimate = f"{text.points(difference, signed=True)} points"
    return estimate, verdict, p, _more(compared) if verdict == UNDECIDED else ""


def _more(compared: Comparison) -> str:
    """The seeds that would show the claimed gain."""
    if compared.pairs < 2 or math.isnan(compared.difference.high):
        return "2 seeds or more"
    half = compared.difference.high - compared.difference.estimate
    deviation = half / float(stats.t.ppf(0.975, compared.pairs - 1)) * math.sqrt(compared.pairs)
    return f"{power.seeds_needed(deviation, CLAIMED):,} seeds (80 % power for {100 * CLAIMED:g} points)"


def _parts(cells: Cells, plan: Plan, faults: Faults) -> Iterator[Claim]:
    """Every arm of PARTS against MeZO on each task, p after Holm over all of them."""
    found = []
    for (study, model, task), mine in cells:
        for arm in _other_arms(mine):
            one, base = common(mine, arm)
            if len(one):
                compared = paired(one["test_accuracy"], base["test_accuracy"])
                found.append((arm, f"{model}, {task}", len(one), plan.get((study, task, arm)), compared, study))
    adjusted = holm([compared.p for *_, compared, _ in found])
    for i, ((arm, where, seeds, total, compared, study), p) in enumerate(zip(found, adjusted, strict=True), start=1):
        words = f"`{arm}`, {PARTS[arm]}: more accurate than MeZO"
        n = f"{seeds}{'' if total is None else f' of {total}'} seeds"
        claim = Claim(f"10.{i}", words, CODE, f"{where}: `{arm}` against `{BASE}`", n, *_accuracy(compared, p))
        yield _finished(_comparable(claim, _fault(faults[study], arm)), seeds, total)
