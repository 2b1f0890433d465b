"""Claims 8 and 10: KerZOO and its parts against MeZO, seed by seed, at equal forward passes."""

import math
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
from scipy import stats

from analysis import text
from analysis.claims import power, verdicts
from analysis.claims.claim import CODE, PAPER, UNDECIDED, Claim
from analysis.claims.runs import COMPARISON, grids, last_loss, passes_to, planned, runs
from analysis.rows import Results
from analysis.statistics import Comparison, holm, paired

BASE = "mezo"
CLAIMED = 0.026  # the smaller of the abstract's two gains
Told = tuple[str, str, float, str]  # estimate, verdict, p, needs
STUDY = ["study", "model", "task"]
WHOLE = ("kerzoo", "kerzoo-code")
"""Arms that stand for KerZOO as a whole; all others are parts of it, or alternatives."""
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
    absent = {place: count for place, count in plan.items() if place not in run and count}
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
    """Arms of a comparison by a plan that take zeroth-order steps, other than the whole of KerZOO."""
    runs = runs[runs["by"] == COMPARISON]
    return sorted(arm for arm in set(runs["arm"]) - {BASE, *WHOLE} if _is_part(runs[runs["arm"] == arm]))


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
    """For each seed, the forward passes to MeZO's final dev loss over MeZO's own; a miss is infinite."""
    found = []
    for mine, reference in zip(one["curve"], base["curve"], strict=True):
        loss = last_loss(reference)
        own = passes_to(reference, loss)
        found.append(passes_to(mine, loss) / own if own > 0 and math.isfinite(own) else math.nan)
    return [ratio for ratio in found if not math.isnan(ratio)]


def sign_test(values: list[float], bar: float = 1.0) -> float:
    """The two-sided p of the sign test that the median is `bar`; ties are left out."""
    less, more = sum(v < bar for v in values), sum(v > bar for v in values)
    return float(stats.binomtest(less, less + more).pvalue) if less + more else math.nan


def _wholes(cells: Cells, plan: Plan, faults: Faults) -> Iterator[Claim]:
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    for (study, model, task), mine in cells:
        for arm in (arm for arm in WHOLE if arm in set(mine["arm"])):
            one, base = common(mine, arm)
            where, n = f"{model}, {task}: {arm} against {BASE}", f"{len(one)}{_planned(plan, study, task, arm)} seeds"
            for words, told in _whole(one, base) if len(one) else ():
                claim = Claim(f"8{next(letters)}", words, PAPER, where, n, *told)
                yield _comparable(claim, _fault(faults[study], arm))


def _comparable(claim: Claim, fault: str) -> Claim:
    """The claim, undecided where a rate lies at the edge of its grid."""
    return replace(claim, verdict=UNDECIDED, needs=f"not comparable, {fault}") if fault else claim


def _words(what: str) -> str:
    higher = f"KerZOO is more accurate than MeZO, by {100 * CLAIMED:g} points or more"
    return f"KerZOO needs {what} than MeZO" if what in WORDS[:2] else higher


def _whole(one: pd.DataFrame, base: pd.DataFrame) -> Iterator[tuple[str, Told]]:
    """The three claims of the abstract on one task."""
    passes, cost = ratios(one, base), _cost(one) / _cost(base)
    compared = paired(one["test_accuracy"], base["test_accuracy"])
    yield _words(WORDS[0]), _speed(passes, "forward passes to MeZO's final dev loss")
    yield _words(WORDS[1]), _speed([ratio * cost for ratio in passes], "seconds to it, by each run's own clock")
    yield _words(WORDS[2]), _accuracy(compared)


def _cost(runs: pd.DataFrame) -> float:
    return float((runs["seconds"] / runs["forward_passes"]).median())


def _speed(values: list[float], what: str) -> Told:
    """Estimate, verdict, p and needs of ratios to MeZO."""
    middle = power.median_interval(values)
    missed = sum(math.isinf(value) for value in values)
    bounds = "" if math.isnan(middle.low) else f" [{text.number(middle.low)}, {text.number(middle.high)}]"
    estimate = f"median ratio {text.number(middle.estimate)}{bounds} of {what}; missed by {missed} of {len(values)}"
    verdict = verdicts.below(middle, 1.0)
    needs = "6 seeds or more" if len(values) < 6 else "more seeds"
    return estimate, verdict, sign_test(values), needs if verdict == UNDECIDED else ""


def _accuracy(compared: Comparison) -> Told:
    verdict = verdicts.gain(compared.difference, CLAIMED)
    estimate = f"{text.points(compared.difference, signed=True)} points"
    return estimate, verdict, compared.p, _more(compared) if verdict == UNDECIDED else ""


def _more(compared: Comparison) -> str:
    """The seeds that would show the claimed gain."""
    if compared.pairs < 2 or math.isnan(compared.difference.high):
        return "2 seeds or more"
    half = compared.difference.high - compared.difference.estimate
    deviation = half / float(stats.t.ppf(0.975, compared.pairs - 1)) * math.sqrt(compared.pairs)
    return f"{power.seeds_needed(deviation, CLAIMED):,} seeds (80 % power for {100 * CLAIMED:g} points)"


def _planned(plan: Plan, study: str, task: str, arm: str) -> str:
    total = plan.get((study, task, arm))
    return "" if total is None else f" of {total}"


def _parts(cells: Cells, plan: Plan, faults: Faults) -> Iterator[Claim]:
    """Every other arm: how much its accuracy differs from MeZO's, p adjusted over all of them."""
    found = []
    for (study, model, task), mine in cells:
        for arm in _other_arms(mine):
            one, base = common(mine, arm)
            if len(one):
                compared = paired(one["test_accuracy"], base["test_accuracy"])
                seeds = f"{len(one)}{_planned(plan, study, task, arm)} seeds"
                found.append((arm, f"{model}, {task}", seeds, compared, _fault(faults[study], arm)))
    adjusted = holm([compared.p for *_, compared, _ in found])
    for i, ((arm, where, seeds, compared, fault), p) in enumerate(zip(found, adjusted, strict=True), start=1):
        verdict = verdicts.above(compared.difference, 0.0)
        estimate = f"{text.points(compared.difference, signed=True)} points, p after Holm"
        needs = _more(compared) if verdict == UNDECIDED else ""
        words = f"`{arm}` has a higher accuracy than MeZO"
        claim = Claim(f"10.{i}", words, CODE, where, seeds, estimate, verdict, p, needs)
        yield _comparable(claim, fault)


def _is_part(one: pd.DataFrame) -> bool:
    """Whether an arm takes zeroth-order steps: baselines and first-order references are no part of KerZOO."""
    name = str(one["method"].iloc[0]).split(":")[0]
    return name.startswith(("mezo", "kerzoo", "n-spsa", "optimal", "richardson", "chebyshev"))
