"""Figures of estimates against epsilon, each a function of a tidy frame; none reads a file or changes Matplotlib's
global state. Needs the extra `figures`: Matplotlib and pandas.

`bias(pandas.read_json("rows.jsonl", lines=True).query("kind == 'bias'"))` draws the rows of an audit; rows of other
programs are drawn too. `sheet.printed_on` says how wide figures are and what they call the methods.
"""

try:
    from zobench.figures.bias import bias_figure as bias
    from zobench.figures.estimate import cosine_figure as cosine
    from zobench.figures.estimate import mse_figure as mse
    from zobench.figures.files import write
    from zobench.figures.frame import ReadError
    from zobench.figures.sheet import Sheet, printed_on
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] not in ("matplotlib", "pandas"):
        raise
    told = f'{error}: figures need the extra, pip install "zobench[figures]"'
    raise ModuleNotFoundError(told, name=error.name) from error

__all__ = ["ReadError", "Sheet", "bias", "cosine", "mse", "printed_on", "write"]
