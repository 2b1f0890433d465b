"""`zobench audit`: options, the run folder, and the exit status."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from zobench.audit import target
from zobench.audit.command import Program
from zobench.audit.facts import PROBLEMS, audit, text, version
from zobench.audit.options import AuditOptions, MethodsOptions
from zobench.methods import listing
from zobench.naming import require_known
from zobench.numbers import count, real
from zobench.run import exit_status
from zobench.run.progress import note
from zobench.run.records import Run
from zobench.spelling import made, spelled
from zobench.testing import Subject
from zobench.testing.examples import Example, point
from zobench.testing.report import FAILED

LEAST_SAMPLES = 100


def run(options: AuditOptions) -> int:
    """Run the command: AuditOptions says what it does."""
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


def list_methods(options: MethodsOptions) -> None:
    """Run the command: MethodsOptions says what it does."""
    print(listing.markdown() if options.markdown else listing.plain())
