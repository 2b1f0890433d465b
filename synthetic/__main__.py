"""`python -m synthetic COMMAND`."""

import sys
from collections.abc import Sequence

from synthetic import options
from zobench.audit.options import AuditOptions
from zobench.run.command import Command, run_command

COMMANDS: dict[str, Command] = {
    "bias": (options.BiasOptions, "synthetic.bias:run"),
    "converge": (options.ConvergeOptions, "synthetic.converge:run"),
    "kernels": (options.KernelOptions, "synthetic.kernel_table:run"),
    "claims": (options.ClaimOptions, "synthetic.claims:run"),
    "design": (options.DesignOptions, "synthetic.design:run"),
    "descent": (options.DescentOptions, "synthetic.descent:run"),
    "epsilon": (options.EpsilonOptions, "synthetic.epsilon:run"),
    "phase": (options.PhaseOptions, "synthetic.phase:run"),
    "smoke": (options.SmokeOptions, "synthetic.smoke:run"),
    "audit": (AuditOptions, "zobench.audit.run:run"),
    "bench": (options.MonteCarloBenchOptions, "synthetic.bench:run"),
}


def main(argv: Sequence[str] | None = None, prog: str = "python -m synthetic") -> int:
    """Run one command of the synthetic suites."""
    return run_command(
        prog, "Gradient estimators measured on functions whose gradient is known exactly.", COMMANDS, argv
    )


if __name__ == "__main__":
    sys.exit(main())
