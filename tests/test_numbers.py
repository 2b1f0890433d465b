"""One rule for numbers: NumPy's, torch's and the standard library's are Python's, by value."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

import zobench
from synthetic import problems
from synthetic.noise import MinibatchNoise
from zobench import SGD, Combination, Estimator, Gaussian, Term, identity, kernels, methods, theory
from zobench.layout import Layout
from zobench.noise import Additive
from zobench.numbers import count, flag, real

WHOLE = {
    "int": 4, "float": 4.0, "np.int8": np.int8(4), "np.uint64": np.uint64(4), "np.float16": np.float16(4),
    "np.float64": np.float64(4), "np.longdouble": np.longdouble(4), "array": np.array(4),
    "array of float": np.array(4.0), "array of object": np.array(Fraction(4), dtype=object), "tensor": torch.tensor(4),
    "bfloat16": torch.tensor(4, dtype=torch.bfloat16), "leaf": torch.tensor(4.0, requires_grad=True),
    "Fraction": Fraction(4), "Decimal": Decimal("4"),
}  # fmt: skip

NO_NUMBERS = {
    "bool": True, "np.bool": np.True_, "bool tensor": torch.tensor(True), "bool array": np.array(True), "text": "4",
    "np.str": np.str_("4"), "bytes": b"4", "None": None, "complex": 4 + 0j, "np.complex": np.complex64(4),
    "complex tensor": torch.tensor(4 + 0j), "array (1,)": np.array([4]), "tensor (1,)": torch.tensor([4]), "list": [4],
    "duration": np.timedelta64(4, "ns"), "meta": torch.tensor(4, device="meta"), "nan": math.nan,
    "np.nan": np.float32("nan"), "Decimal NaN": Decimal("nan"), "type": int,
}  # fmt: skip


@pytest.mark.parametrize("value", WHOLE.values(), ids=WHOLE)
def test_a_number_is_python_s(value):
    found, whole = real("x", value), count("x", value)
    assert type(found) is float and repr(found) == "4.0"
    assert type(whole) is int and repr(whole) == "4"


@pytest.mark.parametrize("value", NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_what_is_no_number_is_named(value):
    for rule in (real, count):
        with pytest.raises(ValueError, match=r"^rate is .*: give a (finite number|whole number from 1)$"):
            rule("rate", value)


def test_float32_keeps_its_value():
    assert real("x", np.float32(0.1)) == float(np.float32(0.1)) != 0.1


def test_ranges():
    assert repr(real("x", -0.0)) == "0.0"
    assert real("x", math.inf, finite=False) == math.inf
    assert count("x", -3, least=None) == -3 and count("x", 0, least=0) == 0
    for value in (math.inf, -math.inf, 10**400, Decimal("1e999")):
        with pytest.raises(ValueError, match=r"x is .*: give a finite number"):
            real("x", value)
    with pytest.raises(ValueError, match=r"x is np.float64\(0.0\): give a positive one"):
        real("x", np.float64(0), "give a positive one", lambda x: x > 0)
    for value in (0, 2.5, Fraction(1, 2), math.inf):
        with pytest.raises(ValueError, match=r"n is .*: give a whole number from 1"):
            count("n", value)
    with pytest.raises(ValueError, match=r"x is .{200}: give"):
        real("x", "1" * 500)


def test_flags():
    assert flag("x", np.False_) is False and flag("x", True) is True
    for value in (0, 1, "true", None, torch.tensor(True)):
        with pytest.raises(ValueError, match=r"x is .*: give True or False"):
            flag("x", value)


KINDS = (np.float64, np.float32, np.float16, np.array, torch.tensor, Fraction, Decimal)
CALLS = {
    "epsilon": lambda x: methods.make("mezo", epsilon=x(0.5)),
    "epsilon of 1": lambda x: methods.make("mezo", epsilon=x(1)),
    "n": lambda x: methods.make("mezo", n=x(4)),
    "order": lambda x: methods.make("kerzoo", order=x(5)),
    "constant": lambda x: methods.make("kerzoo", constant=x(4)),
    "interval": lambda x: methods.make("kerzoo", interval=x(0.5)),
    "steps and least": lambda x: methods.make("kerzoo-code", steps=x(10), least=x(0.5), n=x(2), epsilon=x(0.25)),
    "ratio": lambda x: methods.make("optimal", noise_to_gradient=x(2)),
    "decay and depth": lambda x: methods.make("telescoping", decay=x(0.5), depth=x(4)),
    "auto": lambda x: zobench.AutoEpsilon(n=x(2), every=x(10), lines=x(3), start=x(0.5)),
    "reaches": lambda x: zobench.SymmetricStencil((x(0.5), x(1))),
    "least_noise": lambda x: zobench.least_noise(x(4)),
    "floored": lambda x: kernels.floored(x(3), x(0.5)),
    "on_nodes": lambda x: kernels.on_nodes((x(0.5), x(1)), x(2)),
    "rescaled": lambda x: kernels.rescaled(kernels.chebyshev(x(3)), x(0.5)),
    "shrunk": lambda x: kernels.shrunk(kernels.legendre(x(3), x(2)), x(0.5)),
    "printed": lambda x: kernels.kerzoo5_as_printed(x(2)),
    "least_second_moment": lambda x: kernels.least_second_moment(x(3), x(0.5)),
    "second_moment": lambda x: kernels.legendre(3).second_moment(x(0.1)),
    "SGD": lambda x: SGD(x(0.5), x(0.25)),
    "a schedule's rate": lambda x: SGD(lambda step: x(0.5)).rate(0),
    "schedule": lambda x: zobench.schedule("cosine", x(0.5), x(10), x(2))(5),
    "noise": lambda x: Additive(x(0.5)),
    "noise of theory": lambda x: theory.Noise(x(0.5)).evaluation,
    "mse": lambda x: theory.mse(MEZO, F, X, x(0.1)),
    "best_epsilon": lambda x: theory.best_epsilon(MEZO, F, X, x(0.1)),
    "descent": lambda x: theory.descent(MEZO, F, X, x(0.1), x(0.1)),
    "spend": lambda x: theory.spend(MEZO, x(8), 4),
    "estimate": lambda x: zobench.estimate(MEZO, F, X, key=x(3), samples=x(2), noise=x(0.1)).tolist(),
    "layout": lambda x: Layout.of({"w": (x(2), x(3))}),
    "groups": lambda x: zobench.Groups({"weight": x(0.5)}, {"bias": x(0.25)}),
    "momentum": lambda x: zobench.Momentum(x(0.5), beta=x(0.25), window=x(4)),
    "adam": lambda x: zobench.Adam(x(0.5), x(0.25), beta1=x(0.5), beta2=x(0.25), eps=x(0.125), window=x(4)),
    "factor-momentum": lambda x: zobench.FactorMomentum(x(0.5), x(0.25), beta=x(0.25)),
    "muon": lambda x: zobench.Muon(x(0.5), vectors=x(0.25)),
    "power-muon": lambda x: zobench.PowerMuon(x(0.5), k=x(4), beta=x(0.25), vectors=x(0.125)),
    "gains": lambda x: zobench.Gains(x(0.5), stability=x(10), alpha=x(0.5))(3),
    "adamezo": lambda x: zobench.AdaMeZO(x(0.5), beta1=x(0.5), eps=x(0.125), factor=x(8), window=x(4)),
    "tensor clip": lambda x: zobench.TensorClip(x(0.5), most=x(8)),
    "interpolated": lambda x: zobench.Interpolated(x(0.5), beta=x(8), most=x(4)),
    "problem": lambda x: float(problems.make("quartic", dim=x(4), condition=x(8), seed=x(1))(X)),
    "dim": lambda x: problems.make("levy", dim=x(4)).dim,
    "minibatch": lambda x: MinibatchNoise(x(4)),
    "step": lambda x: stepped(x(0.1), x(0.2)),
    "combination": lambda x: (x(0.1) * COMBINATION).terms[0].coefficients.tolist(),
}  # fmt: skip
MEZO, F, X = methods.make("mezo"), problems.make("quartic", dim=4), torch.ones(4, dtype=torch.float64)
COMBINATION = Combination((Term(Gaussian(), 3, torch.ones(1, dtype=torch.float64)),))


def stepped(scale, shrink):
    space = zobench.FlatSpace(X.clone())
    space.step_(COMBINATION, scale, shrink)
    return space.x.tolist()


@pytest.mark.parametrize("name", CALLS)
def test_every_public_name_takes_numbers_of_every_kind(name):
    for kind in KINDS:
        if name == "combination" and kind in (np.array, torch.tensor):
            continue  # these multiply by themselves
        given = CALLS[name](kind)
        plain = CALLS[name](lambda value, kind=kind: float(kind(value)))
        assert repr(given) == repr(plain), kind
        assert not isinstance(given, Estimator) or given == plain == identity.restore(repr(given))


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    "bad", [True, np.True_, "0.5", None, np.array([0.5]), 1j, float("nan"), np.float32("nan")], ids=repr
)
def test_every_public_name_refuses_what_is_no_number(name, bad):
    if name in ("problem", "dim", "order") and bad is None:
        return  # where None means the default
    with pytest.raises(ValueError, match=r" is .*: (give|a finite|\w+ wants)"):
        CALLS[name](lambda value: bad)
