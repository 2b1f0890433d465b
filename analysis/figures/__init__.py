"""Figures, each a function of a tidy frame; none reads a file or changes matplotlib's global state. Those of estimates
against epsilon are zobench's.

Those named here are for other people's rows too: `bias(pandas.read_csv("rows.csv"))`. `zobench.figures.printed_on` says
how wide they are and what they call the methods.
"""

from analysis.figures.convergence import convergence_figure as convergence
from analysis.figures.finetuning import accuracies_figure as accuracies
from analysis.figures.finetuning import curves_figure as curves
from analysis.figures.kernels import kernels_figure as kernels
from analysis.figures.phase import phase_figure as phase
from zobench.figures.bias import bias_figure as bias
from zobench.figures.estimate import cosine_figure as cosine
from zobench.figures.estimate import mse_figure as mse

__all__ = ["accuracies", "bias", "convergence", "cosine", "curves", "kernels", "mse", "phase"]
