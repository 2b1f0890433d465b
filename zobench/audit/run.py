"""`zobench audit`: options, the run folder, and the exit status."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from zobench.audit import target
from zobench.audit.command import Program
from zobench.audit.facts import PROBLEMS, audit, text, version
from zobench.methods import listing
from zobench.naming import require_known
from zobench.numbers import count, real
from zobench.run import exit_status
from zobench.run.options import argument, option
from zobench.run.progress import note
from zobench.run.records import Run
from zobench.spelling import made, spelled
from zobench.testing import Subject
from zobench.testing.examples import Example, point
from zobench.testing.report import FAILED

LEAST_SAMPLES = 100


@dataclass(frozen=True)
class AuditOptions:
    """Options of `zobench audit`."""

    target: str = argument("package.module:object[:option=value...], or a method's name", default="")
    program: str = option(
        "", "a program in any language in place of TARGET (docs/audit.md)", code=True, also=("--command",)
    )
    array: str = option("numpy", "what a plain function is given: numpy or torch")
    vary: str = option("epsilon", "option of the target that is the displacement")
    problem: tuple[str, ...] = option(
        ("quadratic", "smooth"), "linear, quadratic, smooth, or package.module:function of a problem with a gradient"
    )
    dim: int = option(6, "number of variables")
    epsilons: tuple[float, ...] = option((0.05, 0.1, 0.2, 0.4), "displacements, where the target takes one")
    samples: int = option(2000, "estimates for each number")
    out: str = option("runs/audit", "folder of the results")
    figure: str = option(
        "", "a file .pdf, .svg, .png or .pgf, after which figures of bias, MSE and cosine are named (extra: figures)"
    )


def run(options: AuditOptions) -> int:
    """Audit an estimator from outside: what it does, which composition of ours it is, and the verdict of each check."""
    problems = _checked(options)
    if options.figure:
        _figures().require_format(Path(options.figure), "--figure")
    with _subject(options) as subject:
        return _run(options, subject, problems)


def _run(options: AuditOptions, subject: Subject, problems: dict[str, Example]) -> int:
    record = Run(options.out, {"command": "audit", **asdict(options)}, free=("out", "figure"))
    if not record.find(kind="audit-check"):
        about = {"target": subject.name, "version": version(options.target)}
        for row in audit(subject, problems, options.epsilons, options.samples):
            record.append({**row, **(about if row["kind"] == "audit" else {})}, sync=False)
    print(text(record.rows))
    if options.figure:
        note(f"figures: {', '.join(map(str, _figures().draw(record.rows, Path(options.figure))))}")
    note(f"rows: {record.folder / 'rows.jsonl'}")
    return exit_status.DIFFERENT if record.find(kind="audit-check", status=FAILED) else exit_status.OK


def _checked(options: AuditOptions) -> dict[str, Example]:
    """The problems; every option is looked at before any work."""
    if bool(options.target) == bool(options.program):
        raise ValueError("give a TARGET, as package.module:object, or --command, and not both")
    count("--samples", options.samples, least=LEAST_SAMPLES)
    count("--dim", options.dim, least=2)
    if not options.epsilons or not options.problem:
        raise ValueError("--epsilons and --problem each need at least one entry")
    for epsilon in options.epsilons:
        if not real("an epsilon", epsilon) > 0:
            raise ValueError(f"--epsilons holds {epsilon:g}: give displacements above 0")
    require_known(options.array, ("numpy", "torch"), "kind of array")
    return {name: _problem(name, options.dim) for name in options.problem}


def _figures() -> ModuleType:
    """The module that needs Matplotlib and pandas, of which the rest of an audit knows nothing."""
    try:
        return importlib.import_module("zobench.audit.figures")
    except ModuleNotFoundError as error:
        raise ValueError(f"--figure: {error}") from None


@contextmanager
def _subject(options: AuditOptions) -> Iterator[Subject]:
    """The target; a program is ended with the audit."""
    if options.target:
        yield target.subject(options.target, options.array, options.epsilons[0], options.vary)
        return
    program = Program(options.program)
    with closing(program):
        yield target.program(program, options.epsilons[0])


def _problem(name: str, dim: int) -> Example:
    spelling = spelled(name, PROBLEMS)
    if not spelling.is_own:
        require_known(spelling.name, PROBLEMS, "problem")
        make: Callable[[int], Example] = PROBLEMS[spelling.name]
        return make(dim)
    problem: Any = made(spelling.name, spelling.options)
    if not callable(problem) or not hasattr(problem, "gradient") or not hasattr(problem, "dim"):
        raise ValueError(
            f"{name!r} makes {problem!r:.80}, which is no zobench.problem.Problem: dim, gradient and a call"
        )
    return Example(problem, point(problem.dim))


@dataclass(frozen=True)
class MethodsOptions:
    """Options of `zobench methods`."""

    markdown: bool = option(False, "print the table in Markdown")


def list_methods(options: MethodsOptions) -> None:
    """List the methods of zobench: name, evaluations a step, formula, law x stencil x map x rule, options."""
    print(listing.markdown() if options.markdown else listing.plain())
