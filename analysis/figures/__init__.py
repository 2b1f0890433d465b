"""Figures, each a function of a tidy frame; none reads a file or changes matplotlib's global state.

Those named here are for other people's rows too: `bias(pandas.read_csv("rows.csv"))`. `analysis.sheet.printed_on` says
how wide they are and what they call the methods.
"""

from analysis.figures.bias import bias_figure as bias
from analysis.figures.convergence import convergence_figure as convergence
from analysis.figures.estimate import cosine_figure as cosine
from analysis.figures.estimate import mse_figure as mse
from analysis.figures.finetuning import accuracies_figure as accuracies
from analysis.figures.finetuning import curves_figure as curves
from analysis.figures.kernels import kernels_figure as kernels
from analysis.figures.phase import phase_figure as phase

__all__ = ["accuracies", "bias", "convergence", "cosine", "curves", "kernels", "mse", "phase"]
