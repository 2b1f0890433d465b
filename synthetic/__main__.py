"""`python -m synthetic COMMAND`."""

import sys
from collections.abc import Sequence

from synthetic import bench, bias, claims, converge, descent, design, epsilon, kernel_table, phase, smoke
from zobench.audit.run import AuditOptions
from zobench.audit.run import run as run_audit
from zobench.run.options import Command, run_command

COMMANDS: dict[str, Command] = {
    "bias": (bias.BiasOptions, bias.run),
    "converge": (converge.ConvergeOptions, converge.run),
    "kernels": (kernel_table.KernelOptions, kernel_table.run),
    "claims": (claims.ClaimOptions, claims.run),
    "design": (design.DesignOptions, design.run),
    "descent": (descent.DescentOptions, descent.run),
    "epsilon": (epsilon.EpsilonOptions, epsilon.run),
    "phase": (phase.PhaseOptions, phase.run),
    "smoke": (smoke.SmokeOptions, smoke.run),
    "audit": (AuditOptions, run_audit),
    "bench": (bench.MonteCarloBenchOptions, bench.run),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of the synthetic suites."""
    return run_command("python -m synthetic", "Estimators on functions whose gradient is known.", COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
