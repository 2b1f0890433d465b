"""The kernels with their moments, as rows from which they can be drawn."""

from dataclasses import asdict

import torch

from synthetic.options import KernelOptions
from zobench import kernels
from zobench.kernels import PolynomialKernel
from zobench.layout import CPU
from zobench.run.progress import note
from zobench.run.records import Row, Run


def run(options: KernelOptions) -> None:
    """Run the command: KernelOptions says what it does."""
    listed = [(kernels.legendre(order), "") for order in options.orders]
    record = Run(options.out, {"command": "kernels", **asdict(options)})
    printed = (kernels.kerzoo5_as_printed(), "as printed in KerZOO: 195/64 where 105/64 gives E[rK] = 1")
    print(f"{'kernel':24}{'E[rK]':>9}{'E[r^3K]':>9}{'E[r^5K]':>9}{'E[r^2K^2]':>11}{'E[K^2]':>9}")
    for kernel, remark in [*listed, printed]:
        row = describe(kernel, remark, options.points)
        moments = row["moments"]
        print(
            f"{row['name']:24}{moments['1']:9.4f}{moments['3']:9.4f}{moments['5']:9.4f}"
            f"{row['second_moment_r2k2']:11.4f}{row['second_moment_k2']:9.4f}"
        )
        if not record.find(kind="kernel", name=row["name"]):
            record.append(row)
    note(f"rows: {record.folder / 'rows.jsonl'}")


def describe(kernel: PolynomialKernel, note: str, points: int) -> Row:
    """Return the row of one kernel: values on a grid, E[r^j K], E[r^2 K^2] and E[K^2]."""
    r = torch.linspace(-1, 1, points, dtype=torch.float64, device=CPU)
    return {
        "kind": "kernel",
        "name": kernel.name,
        "order": kernel.order,
        "constant": kernel.constant,
        "first_moment": kernel.moment(1),
        "r": r,
        "values": kernel(r),
        "moments": {str(j): kernel.moment(j) for j in (1, 3, 5, 7)},
        "second_moment_r2k2": kernel.second_moment(),
        "second_moment_k2": kernel.second_moment(1.0) - kernel.second_moment(),
        "note": note,
    }
