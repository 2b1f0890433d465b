"""The report on the claims on KerZOO: the rows of the ledger that these runs decide."""

from dataclasses import replace

from analysis.claims import ledger
from analysis.figures.interval import interval_figure
from analysis.figures.large import large_figure
from analysis.figures.parts import parts_figure
from analysis.rows import Results
from analysis.sections.section import Illustration, Section, missing
from analysis.tables.parts import parts_table

TITLE = "Claims on KerZOO that these runs checked"
LIVE = "live"
PARTS = (
    "Root mean squares over the norm of the gradient, against ε, on a real model. The black line shows the error of "
    "one estimate along one direction, nearly all of which is variance; n directions divide it by √n. Circles and "
    "squares show upper bounds on the bias of the central difference and of the order-3 kernel, in float64 against the "
    "exact gradient. Triangles show the rounding of one slope in a narrower dtype at the same weights."
)
ALT_PARTS = "Error of one estimate, bounds on the bias, and rounding against epsilon, with a panel for each model."
INTERVAL = (
    "The interval of r shrinks from [−1, 1] to [−s, s], from left to right. First panel: the mean step, where C = 4. "
    "Second panel: the bias on a cubic over MeZO's, after division by the mean step. Points are measured, with 95 % "
    "intervals; lines join the predictions."
)
ALT_INTERVAL = (
    "Mean step and remaining bias against the length of the interval: both change under the unscaled kernel, and "
    "neither does under the rescaled one."
)
LARGE = (
    "Squared error of one step over the squared norm of the gradient, against ε, on a tanh network of 37 weights. "
    "Each panel has one kind of noise and one number of evaluations a step, which is the same for all methods. Bars "
    "are 95 % intervals."
)
ALT_LARGE = "Squared error against epsilon for MeZO, kernels and a four-point stencil, with a panel for each noise."


def section(results: Results) -> Section:
    """The ledger of the live runs, with a figure of each kind of rows that it alone reads."""
    mine = live(results)
    claims = ledger.measured(mine)
    if not claims:
        return missing("claims", TITLE, "claim-check")
    tables, parts = [ledger.claims_table(claims)], mine.of("error-parts")
    tables += [parts_table(parts)] if len(parts) else []
    sentence = f"{len(claims)} claims were checked: {ledger.counted(claims)}."
    return Section("claims", TITLE, [sentence], _shown(mine), tables)


def live(results: Results) -> Results:
    """The results without those that came with the repository."""
    frames = {kind: frame[frame["provenance"] == LIVE] for kind, frame in results.frames.items()}
    return replace(results, runs=tuple(run for run in results.runs if run.provenance == LIVE), frames=frames)


def _shown(results: Results) -> list[Illustration]:
    checks, parts, large = (results.of(kind) for kind in ("claim-check", "error-parts", "claim-large"))
    checks, shown = checks[checks["part"] == "interval"], []
    if len(checks):
        shown.append(Illustration("claims-interval", interval_figure(checks), INTERVAL, ALT_INTERVAL))
    if len(parts):
        shown.append(Illustration("claims-parts", parts_figure(parts), PARTS, ALT_PARTS))
    if len(large):
        shown.append(Illustration("claims-large", large_figure(large), LARGE, ALT_LARGE))
    return shown
