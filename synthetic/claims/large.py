"""Where correcting bias pays: a small network under noisy losses, over epsilon and evaluations a step."""

from collections.abc import Iterator

import zobench
from synthetic import predictable, problems
from synthetic.noise import MinibatchNoise
from zobench import derive
from zobench.evaluations import evaluations_a_step
from zobench.noise import Additive, NoiseModel
from zobench.run.records import Row

EVALUATIONS = (4096, 65536)
EPSILONS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
NOISES: dict[str, NoiseModel] = {
    "none": Additive(0.0),
    "additive, 1": Additive(1.0),
    "minibatch of 4 an evaluation": MinibatchNoise(4, per="evaluation"),
}
METHODS = ("mezo", "kerzoo", "optimal", "central4")


def rows(samples: int, seed: int) -> Iterator[Row]:
    """Measure the mean squared error of steps of 4,096 and of 65,536 evaluations on a network of 37 weights.

    A step of more directions is made of the same draws as several of fewer: the two budgets are not independent.
    """
    problem = problems.make("mlp", seed=seed)
    x, most = problems.start(problem, seed), max(EVALUATIONS)
    gradient = problem.gradient(x)
    steps = max(5, samples // 40_000)
    for name, noise in NOISES.items():
        for epsilon in EPSILONS:
            for method in METHODS:
                single = predictable.parse(method, epsilon=epsilon)
                cost = evaluations_a_step(single)
                key = derive("claims", "large", seed, epsilon.hex())
                drawn = zobench.estimate(single, problem, x, key, steps * most // cost, noise)
                about = {"problem": "mlp", "dim": problem.dim, "noise": name, "method": method, "epsilon": epsilon}
                for evaluations in EVALUATIONS:
                    means = drawn.unflatten(0, (-1, evaluations // cost)).mean(1)
                    errors = (means - gradient).square().sum(1) / gradient.square().sum()
                    measured = {"mse": float(errors.mean()), "mse_error": float(errors.std()) / len(errors) ** 0.5}
                    yield {"kind": "claim-large", **about, "evaluations": evaluations, **measured, "steps": len(errors)}
