"""What a dry run says of the processes that torchrun has started."""

import pytest

from llm.dry_run.several import Several
from llm.options.train import TrainOptions


@pytest.mark.parametrize(
    ("method", "ranks", "world", "share", "sent"),
    [
        ("mezo", "auto", 2, 1 / 2, 4 + 1 + 1),
        ("mezo:n=4", "probes", 3, 3 / 8, 4 + 1 + 3),
        ("mezo", "data", 4, 1 / 4, 4 + 1 + 2 * 4 + 1 + 2),
        ("mezo", "auto", 4, 1 / 4, 4 + 1 + 8 + 1 + 1),
        ("forward-gradient:n=2", "probes", 2, 1 / 2, 4 + 1 + 2),
    ],
)
def test_shares_and_bytes_of_a_step(method, ranks, world, share, sent, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", str(world))
    monkeypatch.setenv("RANK", "0")
    several = Several.of(TrainOptions(method=method, ranks=ranks))
    assert several is not None and several.share == share
    assert several.bytes_a_step(16) == 8 * sent


def test_one_process_has_nothing_to_tell(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert Several.of(TrainOptions()) is None
