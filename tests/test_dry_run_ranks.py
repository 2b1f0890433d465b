"""What a dry run says of the processes that torchrun has started."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from llm.dry_run import dry_run
from llm.dry_run.several import Several
from llm.model.language_model import LanguageModel
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


@pytest.mark.parametrize(("local", "room"), [(1, None), (3, None), (3, 5 * 2**20)])
def test_processes_of_one_machine_need_memory_and_disk_together(local, room, monkeypatch, tmp_path, capsys):
    for name, value in (("WORLD_SIZE", "4"), ("RANK", "0"), ("LOCAL_WORLD_SIZE", str(local))):
        monkeypatch.setenv(name, value)
    sizes = {"train": 8, "dev": 4, "test": 4, "batch": 4, "max_tokens": 16, "baselines": False}
    options = TrainOptions(engine="streamed", ranks="2x2", out=str(tmp_path / "out"), **sizes)
    if room:
        full = shutil.disk_usage(tmp_path)._replace(free=room)  # for one working copy of 4.13 MiB
        monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    dry_run.run(options)
    said = capsys.readouterr().out
    assert "4.13 MiB read from disk in a step" in said and "and 4.13 MiB written" in said
    assert (
        ("3 of them on this machine need" in said) == ("12.4 MiB of disk for 3 working copies" in said) == (local == 3)
    )
    assert ("start fewer processes on a machine" in said) == bool(room)


def test_another_device_gets_the_weights_through_the_memory_of_the_host():
    model = torch.nn.Linear(256, 1024, bias=False, device="meta")
    language_model = LanguageModel("m", model, None, "")
    (line,) = dry_run._while_loading(SimpleNamespace(language_model=language_model))
    assert line.startswith("1 MiB of host memory while the weights are loaded")


def test_one_process_has_nothing_to_tell(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert Several.of(TrainOptions()) is None
