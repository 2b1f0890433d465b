"""One row: a quantity as theory predicts it and as it was measured."""

from zobench.run.records import Row


def check(
    part: str, quantity: str, method: str, predicted: float, measured: tuple[float, float], **about: object
) -> Row:
    """Return a row "claim-check" of a measurement and its standard error, which is 0 where it is exact."""
    value, error = measured
    values = {"predicted": float(predicted), "measured": float(value), "measured_error": float(error)}
    return {"kind": "claim-check", "part": part, "quantity": quantity, "method": method, **values, **about}
