"""The options of the suites: what a command line is parsed by, without the suites themselves."""

import math
from dataclasses import dataclass

from zobench.run.options import option

OWN = "package.module:function of your own"


@dataclass(frozen=True)
class BiasOptions:
    """Measure bias, variance, mean squared error and cosine against exact gradients, beside the theory."""

    methods: tuple[str, ...] = option(
        ("mezo", "kerzoo", "forward", "richardson", "coordinate"), "name[:option=value]..."
    )
    problem: tuple[str, ...] = option(("quadratic", "sextic"), f"quadratic, cubic, quartic, sextic, or {OWN}")
    dim: int = option(16, "number of variables")
    condition: float = option(10.0, "largest over least eigenvalue of the Hessian at the centre")
    rotated: bool = option(True, "take random eigenvectors of the Hessian instead of the axes")
    epsilons: tuple[float, ...] = option((0.02, 0.05, 0.1, 0.2, 0.5), "displacements at which estimators are measured")
    samples: int = option(1_000_000, "number of plain estimates in each cell")
    controlled_samples: int = option(
        100_000, "number of estimates with the control variate in each cell; 0 leaves them out"
    )
    noise: float = option(0.0, "standard deviation of the noise of one evaluation (plain sampling only)")
    seed: int = option(0, "seed of the problem, the point and the draws")
    out: str = option("runs/bias", "folder of the results; an interrupted run continues there")


@dataclass(frozen=True)
class ConvergeOptions:
    """Minimise a problem with every method at equal loss evaluations; other seeds choose the learning rates."""

    methods: tuple[str, ...] = option(
        ("mezo", "kerzoo", "forward", "richardson", "coordinate"),
        "name[:option=value]..., or peer:NAME of another package, such as peer:torchzero-spsa or peer:scipy-powell",
    )
    problem: str = option("quartic", f"quadratic, quartic, sextic, or {OWN}")
    dim: int = option(16, "number of variables")
    condition: float = option(10.0, "largest over least eigenvalue of the Hessian at the centre")
    epsilon: float = option(1e-3, "displacement")
    evaluations: int = option(20_000, "number of loss evaluations in one run")
    seeds: int = option(5, "number of runs of each method, each with its own starting point and directions")
    tuning_seeds: int = option(5, "number of further runs, on which the learning rate is chosen")
    rates: tuple[float, ...] = option(
        tuple(2.0**-k for k in range(11)), "learning rates tried, the same number for every method"
    )
    points: int = option(100, "number of rows that a run writes")
    out: str = option("runs/converge", "folder of the results; an interrupted run continues there")


@dataclass(frozen=True)
class KernelOptions:
    """Print the kernels with their moments and costs, KerZOO's misprint beside the intended kernel."""

    orders: tuple[int, ...] = option((1, 3, 5), "orders of the Legendre kernels")
    points: int = option(201, "points on [-1, 1]")
    out: str = option("runs/kernels", "folder of the results")


@dataclass(frozen=True)
class DesignOptions:
    """Print nodes, moments and costs of kernels and stencils, and what each way to less bias costs."""

    orders: tuple[int, ...] = option((1, 3, 5, 7), "orders of the kernels")
    ratios: tuple[float, ...] = option((0.01, 0.1, 1.0, 10.0, math.inf), "noise-to-gradient ratios t; inf: only noise")
    scales: tuple[float, ...] = option(
        (1.0, 0.9, 0.77, 0.7, 0.5, 0.25, 0.1), "lengths of the interval of r under KerZOO's kernel"
    )
    least: float = option(0.05, "floor on |r| of the kernels for t = 0")
    depths: tuple[int, ...] = option((2, 5, 20), "depths of the telescoping stencils")
    points: int = option(201, "points at which a polynomial kernel is listed")
    out: str = option("runs/design", "folder of the results")


@dataclass(frozen=True)
class DescentOptions:
    """Predict how far SGD steps lower the loss, at each method's best rate and at one for all, and measure it."""

    methods: tuple[str, ...] = option(
        ("mezo", "kerzoo", "kerzoo:order=5", "optimal", "forward", "richardson", "orthogonal", "coordinate"),
        "name[:option=value]...",
    )
    problem: tuple[str, ...] = option(
        ("quadratic", "quartic"), f"with a minimum and a Hessian: quadratic, quartic, ..., or {OWN}"
    )
    dim: int = option(32, "number of variables")
    condition: float = option(3.0, "largest over least eigenvalue of the Hessian at the centre")
    epsilon: float = option(0.05, "displacement")
    noise: float = option(0.0, "standard deviation of one evaluation")
    n: int = option(1, "directions of a step")
    evaluations: int = option(800, "loss evaluations of a run")
    fraction: float = option(0.02, "the equal rate, in units of MeZO's best rate at the start")
    seeds: int = option(10, "number of runs of each method, each with its own starting point and directions")
    out: str = option("runs/descent", "folder of the results; an interrupted run continues there")


@dataclass(frozen=True)
class EpsilonOptions:
    """Compare epsilon="auto" with the best epsilon of a fine grid, and with a fixed one, cell by cell."""

    problem: tuple[str, ...] = option(
        (
            *("cubic", "quartic", "sextic", "rosenbrock", "styblinski-tang", "rastrigin", "levy", "ackley", "logistic"),
            "mlp",
        ),
        f"names, or {OWN}",
    )
    dim: int = option(20, "number of variables, for problems of any dimension")
    noises: tuple[float, ...] = option(
        (0.0, 1e-5, 1e-3, 1e-1), "standard deviations of the noise of one evaluation, as shares of |f(x)|"
    )
    dtypes: tuple[str, ...] = option(("float32", "bfloat16"), "dtypes to which losses are rounded")
    lines: int = option(5, "number of lines of a probe")
    start: float = option(1e-3, "displacement at which the probe starts")
    choices: int = option(9, "number of independent choices in each cell, which reports their median ratio")
    directions: int = option(1000, "number of lines over which the excess error is averaged")
    fixed: float = option(1e-3, "the fixed epsilon of the comparison")
    seed: int = option(0, "seed of the problems, points and draws")
    out: str = option("runs/epsilon", "folder of the results; an interrupted run continues there")


@dataclass(frozen=True)
class PhaseOptions:
    """Map which estimator is best at which noise, dimension, curvature and budget, by error and by expected descent."""

    methods: tuple[str, ...] = option(
        ("mezo", "kerzoo", "kerzoo:order=5", "optimal", "chebyshev", "forward", "central4", "telescoping"),
        "name[:option=value]...",
    )
    measured: tuple[str, ...] = option(("mezo", "kerzoo"), "methods that are sampled in addition to the winners")
    noises: tuple[float, ...] = option((1e-6, 1e-4, 1e-2, 1.0), "standard deviations of the noise of one evaluation")
    dims: tuple[int, ...] = option((8, 32, 256), "dimensions (numbers of variables)")
    bends: tuple[float, ...] = option(
        (0.0, 0.25, 1.0, 4.0),
        "departures of the function from a quadratic, which has 0; the others have the length scale 1/sqrt(bend)",
    )
    evaluations: tuple[int, ...] = option((4, 64, 1024), "numbers of loss evaluations in one step")
    epsilons: tuple[float, ...] = option((1e-3, 0.1, 0.5), "displacements that all methods share")
    entries: int = option(
        2_000_000, "how many random numbers one measurement draws: samples = entries / (n d), from 20 to 20,000"
    )
    seed: int = option(0, "seed of the problems, points and draws")
    out: str = option("runs/phase", "folder of the results; an interrupted run continues there")


@dataclass(frozen=True)
class SmokeOptions:
    """Take steps of every method of the table on a few problems; the printed table is no ranking."""

    methods: tuple[str, ...] = option((), "names of the table; by default all")
    problems: tuple[str, ...] = option(
        ("quadratic", "quartic", "sextic", "rosenbrock", "logistic"), "problems in 78 variables"
    )
    evaluations: int = option(2000, "loss evaluations of a run")
    rates: tuple[float, ...] = option(tuple(4.0**-k for k in range(10)), "learning rates tried")
    seed: int = option(0, "starting point and directions")
    out: str = option("runs/smoke", "folder of the results; an interrupted run continues there")


@dataclass(frozen=True)
class MonteCarloBenchOptions:
    """Time `moments`; print estimates per second, and the share of the time that drawing random numbers takes alone."""

    methods: tuple[str, ...] = option(("mezo", "kerzoo", "kerzoo:law=rademacher"), "name[:option=value]...")
    problem: str = option("quartic", f"quadratic, cubic, quartic, sextic, or {OWN}")
    dim: int = option(16, "number of variables")
    samples: int = option(10_000_000, "number of estimates in a repetition")
    repetitions: int = option(3, "alternating repetitions; their median is printed")
    predict_dim: int = option(1000, "number of variables of the problems that are predicted; 0 leaves predictions out")
    draws: int = option(20_000_000, "how many numbers of a stream are drawn on one thread; 0 leaves streams out")
    out: str = option("runs/bench", "folder of the results; every call appends rows")


@dataclass(frozen=True)
class ClaimOptions:
    """Measure the quantities that the claims ledger compares with theory: python -m analysis claims."""

    parts: tuple[str, ...] = option(("cost", "interval", "tensors", "smooth", "large"), "quantities that are measured")
    samples: int = option(
        200_000, "number of estimates of each quantity; expensive quantities take a fixed share of it"
    )
    seed: int = option(0, "seed of the problems, the points and the draws")
    out: str = option("runs/claims", "folder of the results; parts whose rows are there are not measured again")
