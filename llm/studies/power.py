"""The power of a comparison before it is run: which differences so many seeds and questions can show."""

import math

from scipy import stats

from llm.options.studies import PowerOptions

MOST_SEEDS = 100_000


def run(options: PowerOptions) -> None:
    """Run the command: PowerOptions says what it does."""
    _check(options)
    questions = _questions(options) if options.questions else []
    spread = options.spread if options.spread is not None else 100 * one_run(*_answers(options))
    print("\n".join([*_seeds(options, spread), *questions]))


def paired_power(difference: float, spread: float, seeds: int, level: float) -> float:
    """Return the power of the two-sided paired t test of n = `seeds` normal differences of this mean and standard
    deviation: P(|t| > t_level) under the noncentral t with noncentrality difference sqrt(n) / spread.
    """
    critical = stats.t.ppf(1 - level / 2, seeds - 1)
    shift = abs(difference) * math.sqrt(seeds) / spread
    tails = stats.nct.sf(critical, seeds - 1, shift), stats.nct.cdf(-critical, seeds - 1, shift)
    return min(1.0, sum(float(tail) for tail in tails if not math.isnan(tail)))  # NaN is a tail below 1e-16


def detectable(spread: float, seeds: int, level: float, power: float) -> float:
    """Return the least difference that the test shows with this power, by bisection."""
    low, high = 0.0, spread
    while paired_power(high, spread, seeds, level) < power:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if paired_power(middle, spread, seeds, level) >= power else (middle, high)
    return high


def seeds_needed(difference: float, spread: float, level: float, power: float) -> int | None:
    """Return the least number of seeds with which the test shows a difference with this power; None above 100,000."""
    low, high = 1, 2
    while paired_power(difference, spread, high, level) < power:
        low, high = high, 2 * high
        if low > MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if paired_power(difference, spread, middle, level) >= power else (middle, high)
    return high


def one_run(disagreement: float, questions: int) -> float:
    """Return the standard deviation of the difference of two equally good runs' accuracies on the same q questions,
    sqrt(d / q): d is the share of questions that one run has right and the other wrong. For independent answers
    d = 2 p (1 - p).
    """
    return math.sqrt(disagreement / questions)


def _answers(options: PowerOptions) -> tuple[float, int]:
    d = options.disagreement
    return 2 * options.accuracy * (1 - options.accuracy) if d is None else d, options.questions or 1


def _seeds(options: PowerOptions, spread: float) -> list[str]:
    lines = [f"paired differences with a standard deviation of {spread:.3g} points, {options.seeds} seeds"]
    for count in sorted({1, options.tests}):
        level = options.level / count
        least = detectable(spread, options.seeds, level, options.power)
        lines.append(
            f"  level {level:.3g} ({count} test{'s' * (count > 1)}): {options.power:.0%} power from {least:.2f} points"
        )
        for difference in options.differences:
            shown = paired_power(difference, spread, options.seeds, level)
            needed = seeds_needed(difference, spread, level, options.power)
            seeds = f"more than {MOST_SEEDS:,}" if needed is None else f"{needed:,}"
            line = f"{difference:5.1f} points: power {shown:6.1%}; {options.power:.0%} power takes {seeds} seeds"
            lines.append(f"    {line}")
    return lines


def _questions(options: PowerOptions) -> list[str]:
    """What a test set leaves open, however many seeds there are."""
    disagreement, questions = _answers(options)
    alone = 100 * one_run(disagreement, questions)
    z = float(stats.norm.ppf(1 - options.level / 2))
    lines = [
        f"test set of {questions} questions, one of which is {100 / questions:.2f} points",
        f"  two runs of equal quality that differ on {disagreement:.0%} of them: their accuracies differ by "
        f"{alone:.1f} points (standard deviation), 95 % within {z * alone:.1f}",
    ]
    for difference in options.differences:
        wanted = (z + float(stats.norm.ppf(options.power))) ** 2 * disagreement / (difference / 100) ** 2
        lines.append(
            f"    {difference:5.1f} points = {difference / 100 * questions:.1f} questions; one run each shows that "
            f"with {options.power:.0%} power on {math.ceil(wanted):,} questions"
        )
    return lines


def _check(options: PowerOptions) -> None:
    shares = {"level": options.level, "power": options.power, "accuracy": options.accuracy}
    shares |= {} if options.disagreement is None else {"disagreement": options.disagreement}
    for name, value in shares.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} is {value}: give a share between 0 and 1")
    if options.spread is None and options.questions is None:
        raise ValueError("nothing says how much the differences vary: give --spread or --questions")
    if options.spread is not None and not options.spread > 0:
        raise ValueError(f"spread is {options.spread}: give a positive number of points")
    counts = {"seeds": (options.seeds, 2), "tests": (options.tests, 1), "questions": (options.questions or 1, 1)}
    for name, (count, least) in counts.items():
        if count < least:
            raise ValueError(f"{name} is {count}: give {least} or more")
    if not options.differences or not min(options.differences) > 0:
        raise ValueError(f"differences are {options.differences}: give positive numbers of points")
