"""`python -m docs.examples.audit.everything`: the audits of docs/audit.md, one run folder each under results/audit, and
their table.
"""

import importlib.metadata
import json
import sys
from pathlib import Path

from docs.examples.audit import table
from zobench.__main__ import main

PEERS = "docs.examples.audit.targets"
TARGETS = {
    "torchzero-rademacher": ("torchzero", "--vary", "h"),
    "torchzero-gaussian": ("torchzero:distribution=gaussian:n_samples=4", "--vary", "h"),
    "torchzero-forward": ("torchzero:formula=forward:distribution=sphere", "--vary", "h"),
    "torchzero-central4": ("torchzero:formula=central4", "--vary", "h"),
    "torchzero-spsa1": ("torchzero_spsa1", "--vary", "h"),
    "torchzero-fdm": ("torchzero_fdm", "--vary", "h"),
    "nevergrad-spsa-first": ("nevergrad_spsa",),
    "scipy-approx-fprime": ("scipy_forward",),
    "scipy-approx-derivative": ("scipy_derivative",),
    "numdifftools-central": ("numdifftools_gradient",),
    "evotorch-symmetric": ("evotorch_gradient:n=2",),
    "evotorch-separable": ("evotorch_gradient:symmetric=false:n=2",),
    "gaussianzeroorder": ("gaussianzeroorder_step",),
    "zeroth-learn": ("zeroth_learn:n=2",),
    "cma-mean": ("cma_mean",),
    "cbx-drift": ("cbx_drift:particles=20",),
}
"""The folder of each audit, and its words on the command line."""
COMMON = ("--problem", "smooth", "--epsilons", "0.1,0.2,0.4", "--samples", "500")

PACKAGES = (
    "torchzero",
    "nevergrad",
    "scipy",
    "numdifftools",
    "evotorch",
    "gaussianzeroorder",
    "zeroth-learn",
    "cma",
    "cbx",
)

if __name__ == "__main__":
    Path("results/audit").mkdir(parents=True, exist_ok=True)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    Path("results/audit/versions.json").write_text(json.dumps(versions, indent=2) + "\n")
    for name in sys.argv[1:] or TARGETS:
        target, *words = TARGETS[name]
        print(f"\n## {name}\n", flush=True)
        main(["audit", f"{PEERS}:{target}", *words, *COMMON, "--out", f"results/audit/{name}"])  # exits if it cannot
    table.write()
