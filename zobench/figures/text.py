"""Numbers as a reader of figures wants them: few digits, in their shortest form."""

import math

NONE = "–"


def number(value: float, digits: int = 3) -> str:
    """Return `value` to some significant digits, as 1.23e-05 when very small or large; a dash for NaN or null."""
    if value is None or math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.{digits}g}" if value == 0 or 1e-3 <= abs(value) < 10**digits else _scientific(value, digits)
    return text.replace("-", "−")


def _scientific(value: float, digits: int) -> str:
    if 10**digits <= abs(value) < 1e6:
        return f"{value:,.0f}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}"
