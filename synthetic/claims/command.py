"""`python -m synthetic claims`."""

from collections.abc import Callable, Iterator
from dataclasses import asdict

from synthetic import bias, predictable, problems
from synthetic.claims import cost, interval, large, tensors
from synthetic.options import BiasOptions, ClaimOptions
from zobench.naming import require_known
from zobench.run.progress import note
from zobench.run.records import Row, Run

SMOOTH = ("mlp", "logistic")
EPSILONS = (0.005, 0.01, 0.02, 0.05)


def smooth(samples: int, seed: int) -> Iterator[Row]:
    """Measure the bias on functions that are no polynomials, with a control variate."""
    options = BiasOptions(controlled_samples=max(1000, samples // 10), seed=seed)
    for name in SMOOTH:
        problem = problems.make(name, seed=seed)
        x = problems.start(problem, seed)
        for method in ("mezo", "kerzoo"):
            for epsilon in EPSILONS:
                estimator = predictable.parse(method, epsilon=epsilon)
                yield bias.measure(bias.BiasCell(method, estimator, name, problem, x, bias.CONTROLLED), options)


PARTS: dict[str, Callable[[int, int], Iterator[Row]]] = {
    "cost": cost.rows,
    "interval": interval.rows,
    "tensors": tensors.rows,
    "smooth": smooth,
    "large": large.rows,
}


def run(options: ClaimOptions) -> None:
    """Run the command: ClaimOptions says what it does."""
    for part in options.parts:
        require_known(part, PARTS, "part")
    if not options.parts or options.samples < 1000:
        raise ValueError(f"parts {options.parts}, samples {options.samples}: give a part, and 1000 samples or more")
    record = Run(options.out, {"command": "claims", **asdict(options)})
    for part in options.parts:
        if record.find(kind="claim-part", part=part):
            continue
        for row in PARTS[part](options.samples, options.seed):
            record.append(row)
            print(_line(row), flush=True)
        record.append({"kind": "claim-part", "part": part})
    note(f"rows: {record.folder / 'rows.jsonl'}")


def _line(row: Row) -> str:
    if row["kind"] == "bias":
        return f"bias      {row['problem']:16}{row['method']:20}{row['epsilon']:<8g}{row['bias']:.3e}"
    if row["kind"] == "claim-large":
        return f"large     {row['noise']:30}{row['method']:12}{row['epsilon']:<8g}{row['mse']:.3g}"
    where = " ".join(f"{name} {row[name]:.3g}" for name in ("scale",) if name in row)
    found = f"{row['measured']:.4g} +- {row['measured_error']:.2g}, predicted {row['predicted']:.4g}"
    return f"{row['part']:10}{row['quantity']:36}{row.get('problem', ''):16}{row['method']:20}{found} {where}"
