"""The design suite: kernels and stencils with nodes, moments and costs, and all ways to less bias side by side."""

import math
from collections.abc import Iterator
from dataclasses import asdict

import torch

from synthetic.options import DesignOptions
from zobench import (
    CentralStencil,
    KernelStencil,
    RichardsonStencil,
    Stencil,
    SymmetricStencil,
    TelescopingStencil,
    kernels,
    least_noise,
)
from zobench.kernels import DiscreteKernel, Kernel, PolynomialKernel
from zobench.layout import CPU
from zobench.run.progress import note
from zobench.run.records import Row, Run

NEGLIGIBLE = 1e-14


def run(options: DesignOptions) -> None:
    """Run the command: DesignOptions says what it does."""
    rows = [*kernel_rows(options), *interval_rows(options), *road_rows(options)]
    record = Run(options.out, {"command": "design", **asdict(options)})
    for row in rows:
        if not record.find(**{key: row[key] for key in ("kind", "family", "name", "noise_share")}):
            record.append(row)
    print(kernel_table([row for row in rows if row["family"] in ("optimal", "chebyshev", "floored")]))
    print(interval_table([row for row in rows if row["family"] in ("shrunk", "rescaled")]))
    print(road_table([row for row in rows if row["kind"] == "road"]))
    note(f"rows: {record.folder / 'rows.jsonl'}")


def kernel_rows(options: DesignOptions) -> Iterator[Row]:
    """Yield the kernels of each order at each ratio: optimal, Chebyshev and Legendre; and with a floor at t = 0."""
    for order in options.orders:
        legendre = kernels.legendre(order)
        for t in options.ratios:
            bound = float(order**2) if t == math.inf else kernels.least_second_moment(order, t)
            named = [("optimal", kernels.optimal(order, t)), ("chebyshev", kernels.chebyshev(order))]
            for family, kernel in [*named[t == math.inf :], ("legendre", legendre)]:
                versus = {"bound": bound, "legendre_second_moment": second_moment(legendre, t)}
                yield {**describe(kernel, family, order, t, options.points), **versus}
        floored = kernels.floored(order, options.least)
        bound = math.cosh((order - 1) * math.atanh(options.least)) ** 2
        versus = {"bound": bound, "legendre_second_moment": legendre.second_moment()}
        yield {**describe(floored, "floored", order, 0.0, options.points), **versus}


def interval_rows(options: DesignOptions) -> Iterator[Row]:
    """Yield the order-3 kernel with constant 4 on shrinking intervals: as KerZOO's code has it, and rescaled."""
    kernel = kernels.legendre(3, 4.0)
    for scale in options.scales:
        for family, change in (("shrunk", kernels.shrunk), ("rescaled", kernels.rescaled)):
            yield {**describe(change(kernel, scale), family, 3, 0.0, options.points), "scale": scale}


def road_rows(options: DesignOptions) -> Iterator[Row]:
    """Yield for every way to less bias and every finite ratio the cost at the evaluations of one central pair.

    `cost` is the second moment times evaluations / 2: that of as many directions as a budget allows, against r = K = 1
    at two evaluations, whose cost is 1 + t.
    """
    for t in (t for t in options.ratios if t < math.inf):
        for name, stencil, order in roads(options, t):
            yield road(name, stencil, order, t)


def roads(options: DesignOptions, t: float) -> list[tuple[str, Stencil, int | None]]:
    """Return the name, stencil and order of every road; the order is None for bias removed at all orders at once."""
    listed: list[tuple[str, Stencil, int | None]] = [
        ("central", CentralStencil(), 1),
    ]
    for order in (3, 5):
        listed += [
            (f"legendre({order})", KernelStencil(kernels.legendre(order)), order),
            (f"chebyshev({order})", KernelStencil(kernels.chebyshev(order)), order),
            (f"optimal({order}, t)", KernelStencil(kernels.optimal(order, t)), order),
        ]
    listed += [
        ("Richardson 1, 2", RichardsonStencil(), 3),
        ("Richardson 1/2, 1", SymmetricStencil((0.5, 1.0)), 3),
        ("least noise, 4", least_noise(4), 3),
        ("least noise, 6", least_noise(6), 5),
    ]
    for depth in options.depths:
        listed += [
            (f"central at 2^-{depth}", SymmetricStencil((2.0**-depth,)), 1),
            (f"telescoping {depth}", TelescopingStencil(0.5, depth), None),
            (f"telescoping {depth}, by parts", TelescopingStencil(0.5, depth, by_parts=True), None),
        ]
    return listed


def road(name: str, stencil: Stencil, order: int | None, t: float) -> Row:
    """Return the row of one road at one ratio."""
    rule = stencil.quadrature(8)
    slope, noise, evaluations = stencil.slope_second_moment(), stencil.noise_second_moment(), rule.nodes.shape[-1]
    kernel = isinstance(stencil, KernelStencil)  # its rule may be a quadrature of a continuous law
    return {
        "kind": "road",
        "family": "road",
        "name": name,
        "stencil": repr(stencil),
        "order": order,
        **_ratio(t),
        "evaluations": evaluations,
        "second_moment": slope + 2 * t * noise,
        "cost": (slope + 2 * t * noise) * evaluations / 2,
        "slope_second_moment": slope,
        "noise_second_moment": noise,
        "probabilities": None if kernel else rule.probabilities,
        "nodes": None if kernel else rule.nodes,
        "values": None if kernel else rule.weights,
        **{f"m{j}": _clean(stencil.moment(j)) for j in (1, 3, 5, 7)},
    }


def describe(kernel: Kernel, family: str, order: int, t: float, points: int) -> Row:
    """Return the row of one kernel at one ratio: nodes, probabilities and values (a polynomial one: values on a grid).

    `second_moment` is E[r^2 K^2] + t E[K^2], and E[K^2] at t = inf.
    """
    stencil = KernelStencil(kernel)
    return {
        "kind": "design",
        "family": family,
        "name": repr(kernel),
        "order": order,
        **_ratio(t),
        "evaluations": 2,
        **_listed(kernel, points),
        "second_moment": second_moment(kernel, t),
        "slope_second_moment": stencil.slope_second_moment(),
        "noise_second_moment": stencil.noise_second_moment(),
        **{f"m{j}": _clean(stencil.moment(j)) for j in (1, 3, 5, 7)},
    }


def _listed(kernel: Kernel, points: int) -> Row:
    if isinstance(kernel, DiscreteKernel):
        return {"nodes": kernel.nodes, "probabilities": kernel.probabilities, "values": kernel.values}
    assert isinstance(kernel, PolynomialKernel)
    r = torch.linspace(-kernel.reach, kernel.reach, points, dtype=torch.float64, device=CPU)
    return {"nodes": r, "probabilities": None, "values": kernel(r)}


def second_moment(kernel: Kernel, t: float) -> float:
    """Return E[r^2 K^2] + t E[K^2], at t = inf E[K^2]."""
    return 2 * KernelStencil(kernel).noise_second_moment() if t == math.inf else kernel.second_moment(t)


def _ratio(t: float) -> Row:
    """The ratio t, null where infinite, and t / (1 + t)."""
    return {"noise_to_gradient": t, "noise_share": 1.0 if t == math.inf else t / (1 + t)}


def _clean(moment: float) -> float:
    return 0.0 if abs(moment) < NEGLIGIBLE else moment


def kernel_table(rows: list[Row]) -> str:
    """Return the discrete kernels as aligned text."""
    lines = [f"{'kernel':22}{'t':>7}{'V':>11}{'bound':>11}{'Legendre':>11}{'ratio':>7}  |r| with probability: K"]
    for row in rows:
        triples = zip(row["nodes"], row["probabilities"], row["values"], strict=True)
        shown = ", ".join(f"{r:.4f} {p:.4f}: {k:+.3f}" for r, p, k in triples)
        ratio = row["second_moment"] / row["legendre_second_moment"]
        lines.append(
            f"{row['name']:22}{row['noise_to_gradient']:7g}{row['second_moment']:11.4f}{row['bound']:11.4f}"
            f"{row['legendre_second_moment']:11.4f}{ratio:7.3f}  {shown}"
        )
    return "\n".join(lines) + "\n"


def interval_table(rows: list[Row]) -> str:
    """Return the kernels on shrinking intervals as aligned text."""
    lines = [f"{'4 legendre(3) on [-s, s]':26}{'s':>6}{'E[rK]':>9}{'E[r^3K]/E[rK]':>15}{'E[r^2K^2]/E[rK]^2':>19}"]
    for row in sorted(rows, key=lambda row: str(row["family"])):
        ratio, spread = row["m3"] / row["m1"], row["second_moment"] / row["m1"] ** 2
        lines.append(f"{row['family']:26}{row['scale']:6g}{row['m1']:9.4f}{ratio:15.4f}{spread:19.4f}")
    return "\n".join(lines) + "\n"


def road_table(rows: list[Row]) -> str:
    """Return the roads to less bias as aligned text: one line a road, its cost at every ratio."""
    ratios = list(dict.fromkeys(row["noise_to_gradient"] for row in rows))
    titles = f"{'evaluations':>12}{'slope':>8}{'noise':>11}{'m3':>10}{'m5':>10}"
    lines = [f"{'road':28}{titles}  cost at t =" + "".join(f"{t:>11g}" for t in ratios)]
    for name in dict.fromkeys(row["name"] for row in rows):
        costs = {row["noise_to_gradient"]: row for row in rows if row["name"] == name}
        row = costs[ratios[0]]
        changing = len({round(r["noise_second_moment"], 12) for r in costs.values()}) > 1
        numbers = (
            f"{'with t':>19}" if changing else f"{row['slope_second_moment']:8.3f}{row['noise_second_moment']:11.4g}"
        )
        moments = f"{'':>10}{'with t':>10}" if changing else f"{row['m3']:10.2g}{row['m5']:10.2g}"
        shown = "".join(f"{costs[t]['cost']:11.4g}" for t in ratios)
        lines.append(f"{name:28}{row['evaluations']:12d}{numbers}{moments}{'':13}{shown}")
    return "\n".join(lines) + "\n"
