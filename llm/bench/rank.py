"""A process of the benchmark of several: it takes a step for each line that it reads, and says what it has sent."""

import sys

from llm.bench.setting import setting
from llm.steppers.engines import ENGINES
from zobench import derive, methods, query
from zobench.distributed import ALONE, Division, Ranks, slice_of
from zobench.space import Shared


def main(size: str, dtype: str, batch: str, tokens: str, ranks: str) -> None:
    """Take steps until there are no more lines."""
    here = setting(size, dtype, int(batch), int(tokens))
    space, estimator, rows, sent = ENGINES["in-forward"](here.model), methods.make("mezo"), here.batch, None
    if ranks != ALONE:
        sent = Ranks()
        division = Division.parse(ranks, sent.world)
        space.share(Shared(sent, division))
        rows = [rows[i] for i in slice_of(len(rows), division.data, division.part_of(sent.rank))]
    for step, _ in enumerate(sys.stdin):
        before = (sent.bytes, sent.exchanges) if sent else (0, 0)
        estimate = query(space, estimator, lambda: here.objective.losses(rows), derive("bench", "step", step), ())
        space.step_(estimate.gradient, -1e-7)
        after = (sent.bytes, sent.exchanges) if sent else (0, 0)
        print(after[0] - before[0], after[1] - before[1], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
