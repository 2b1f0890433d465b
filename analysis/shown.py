"""The kinds of figures and what each shows, for a command line that is parsed without Matplotlib."""

SHOWN = {
    "bias": "norm of the bias against epsilon, over its prediction",
    "mse": "mean squared error of one estimate against epsilon",
    "cosine": "cosine of one estimate with the gradient against epsilon",
    "convergence": "loss gap against loss evaluations",
    "phase": "maps of the best estimator over noise and dimension",
    "kernels": "kernels K(r), and steps r K(r)",
    "finetuning": "dev loss and accuracy against forward passes",
    "accuracy": "test accuracies with intervals and seeds",
}
FORMATS = ("pdf", "svg", "png", "pgf")
