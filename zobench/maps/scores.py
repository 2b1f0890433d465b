"""What theory needs of a map: four moments under normal slopes."""

from typing import NamedTuple


class Slopes(NamedTuple):
    """Slopes s_i = scale t_i + shift + shared w of a step, t_i and w independent standard normals: what the lines of a
    step see of a linear f under Gaussian directions and normal noise.

    `scale` is the root of |grad f|^2 and the variance of a line's own noise; `shift` the value f(x) / epsilon that a
    one-point estimate keeps; `shared` the standard deviation of the noise of a base point that all lines share. `even`
    and `base` are those of the mean of a line's losses at ± and of the base point's loss, over `epsilon`: the noise of
    curvatures and of the spread of losses.
    """

    scale: float
    shift: float = 0.0
    shared: float = 0.0
    even: float = 0.0
    base: float = 0.0
    epsilon: float = 1.0


class Scores(NamedTuple):
    """E[y_1 t_1], E[y_1^2], E[y_1^2 t_1^2] and E[y_1 y_2 t_1 t_2] of the mapped slopes y; `coverage` says in words
    which of them are exact.
    """

    mean: float
    square: float
    fourth: float
    cross: float
    coverage: str = "exact"
