"""One rule for numbers: NumPy's, torch's and the standard library's are Python's, by value."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

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
