"""Problems whose value, gradient and higher derivatives are exact."""

from synthetic.problems.ackley import Ackley
from synthetic.problems.catalogue import NAMES, CatalogueEntry, make, start, table
from synthetic.problems.draws import orthogonal
from synthetic.problems.empirical import Empirical
from synthetic.problems.exact import ExactProblem
from synthetic.problems.formula import Formula
from synthetic.problems.logistic import LogisticRegression
from synthetic.problems.mlp import MLP
from synthetic.problems.psi import DEGREES
from synthetic.problems.ridge import RidgePolynomial
from synthetic.problems.rosenbrock import Rosenbrock
from synthetic.problems.separable import Levy, Rastrigin, Separable, SeparablePolynomial, StyblinskiTang
from synthetic.problems.series import PowerSeries

__all__ = [
    "DEGREES",
    "MLP",
    "NAMES",
    "Ackley",
    "CatalogueEntry",
    "Empirical",
    "ExactProblem",
    "Formula",
    "Levy",
    "LogisticRegression",
    "PowerSeries",
    "Rastrigin",
    "RidgePolynomial",
    "Rosenbrock",
    "Separable",
    "SeparablePolynomial",
    "StyblinskiTang",
    "make",
    "orthogonal",
    "start",
    "table",
]  # fmt: skip
