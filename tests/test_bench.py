"""The bench and the profile: every part gives its rows, and engines that compute another loss are refused."""

import json
from multiprocessing import get_context

import pytest
import torch
from trimmed import trim

from llm.__main__ import main
from llm.bench import memory, methods, steps
from llm.bench.published import Published
from llm.bench.setting import ENGINES, setting
from llm.options.bench import PARTS

SMALL = ["--size", "opt-1m", "--batch", "2", "--tokens", "8", "--repetitions", "1", "--entries", "100000"]
PROBES = ["--probe-cells", "1x4,2x8", "--probe-directions", "2"]
PROCESSES = ("quantised", "distributed", "streamed", "limited")
"""Parts whose processes import torch and transformers anew."""
COMPILED = "compiled"
"""The part whose code a C++ compiler builds: tests/test_compiled.py."""
METHODS = ["--methods", "mezo,lozo,sparse-mezo,es,zo-adam,mezo-svrg,conmezo"]
SCALING = ["--scaling-sizes", "opt-1m,opt-10m", "--scaling-batches", "1,2", "--scaling-lengths", "4,8"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("bench")
    parts = ["--parts", ",".join(part for part in PARTS if part not in (*PROCESSES, COMPILED, "padding"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "PROCESSES", imported())
        assert (
            main([
                "bench", *SMALL, *SCALING, *PROBES, *METHODS, *parts, "--scaling-repetitions", "1", "--out", str(folder)
            ])
            == 0
        )  # fmt: skip
    return _rows(folder)


def imported():
    """Processes that begin where torch and transformers are imported, which takes longer than what is measured here."""
    context = get_context("forkserver")
    context.set_forkserver_preload([memory.__name__, "transformers.models.opt.modeling_opt"])
    return context


def _rows(folder):
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def of(rows, kind):
    return [row for row in rows if row["kind"] == kind]


def test_steps_are_set_beside_the_published_loop_and_the_limit(rows):
    found = {row["job"]: row for row in of(rows, "bench-step")}
    assert found["limit"]["of_limit"] == 1 and found["published"]["speedup"] == 1
    for law in ("gaussian", "rademacher"):
        assert f"plain, {law}" in found and f"in-forward, paired, {law}, touched rows" in found
    barred = {row["job"] for row in found.values() if row["bar"]}
    assert barred == {f"in-forward, paired, {law}, touched rows" for law in ("gaussian", "rademacher")}


def test_every_step_is_set_beside_forwards_and_mezo(rows):
    found = {row["method"]: row for row in of(rows, "bench-method")}
    assert list(found) == METHODS[1].split(",") and all(row["status"] == "ok" for row in found.values())
    evaluations = {name: row["evaluations"] for name, row in found.items()}
    assert evaluations == dict.fromkeys(found, 2) | {"es": 4, "mezo-svrg": 3}  # 2 at a snapshot and 4 after it, in turn
    assert {name for name, row in found.items() if row["bar"]} == {"lozo", "sparse-mezo"}
    assert all(row["of_mezo"] > 0 < row["of_limit"] for row in found.values())


def test_a_method_that_fails_is_a_row_with_its_reason(monkeypatch):
    monkeypatch.setattr(methods, "ZerothOrderStepper", lambda *_, **__: 1 / 0)
    (row,) = methods.measure(setting("opt-1m", "float32", 1, 4), ("mezo",), 1)
    assert row["status"] == "failed" and "failed: ZeroDivisionError" in methods.table([row])


def test_memory_is_that_of_processes_of_their_own(rows):
    found = {row["job"]: row for row in of(rows, "bench-memory")}
    assert set(found) == {"inference", "published", *ENGINES, *memory.FIRST_ORDER}
    assert found["inference"]["of_inference"] == 1
    for row in found.values():
        assert row["peak_mb"] > row["model_mb"] > row["largest_mb"] > 0
        assert row["held"] == (row["peak_mb"] <= row["limit_mb"])


def test_a_process_starts_anew_and_its_failure_is_told():
    assert memory.PROCESSES.get_start_method() == "spawn"
    with pytest.raises(RuntimeError, match=r"measures nothing failed: .*'nothing'"):
        memory.peak_of("opt-1m", "float32", 2, 8, "nothing")


def test_the_peak_is_that_of_the_block():
    trim()
    with memory.Peak() as empty:
        pass
    with memory.Peak() as peak:
        held = torch.ones(30_000_000)
        del held
    assert 100 < peak.mb - empty.mb < 200


def test_sweeps_adapters_and_scaling_give_their_rows(rows):
    assert {row["law"] for row in of(rows, "bench-sweep")} >= {"gaussian", "rademacher", "coordinate", "sphere"}
    timed, fits = of(rows, "bench-scaling"), of(rows, "bench-scaling-fit")
    assert [(row["batch"], row["tokens"]) for row in timed[::2]] == [(1, 4), (1, 8), (2, 4)] * 2
    assert {fit["job"] for fit in fits} == {"forward", "step"}


def test_adapters_train_little():
    pytest.importorskip("peft", reason="adapters need peft")
    from llm.bench import adapters

    found = {row["adapter"]: row for row in adapters.measure(lambda: setting("opt-1m", "float32", 2, 8), 1)}
    assert found["lora"]["trainable"] == 4 * 2 * 2 * 8 * 64  # layers, matrices, factors, rank, width
    assert found["prefix"]["trainable"] == 5 * 2 * 4 * 64  # tokens, keys and values, layers, width


def test_engines_that_compute_another_loss_are_refused(monkeypatch):
    here = setting("opt-1m", "float32", 2, 8)
    steps.require_equal_losses(here, Published(here))
    monkeypatch.setattr(Published, "loss", lambda self: torch.tensor(0.7))
    with pytest.raises(RuntimeError, match="differ at one point"):
        steps.require_equal_losses(here, Published(here))


def test_the_profile_adds_up(tmp_path):
    assert main(["profile", *SMALL[:6], "--steps", "2", "--out", str(tmp_path)]) == 0
    found = of(_rows(tmp_path), "profile")
    for engine in ("plain", "in-forward"):
        for law in ("gaussian", "rademacher"):
            parts = {row["part"]: row["share"] for row in found if (row["engine"], row["law"]) == (engine, law)}
            assert sum(parts.values()) == pytest.approx(1) and min(parts.values()) >= -1e-9
            assert all(parts[name] > 0 for name in ("draw", "attention", "MLP", "embeddings and logits"))


def test_slopes_are_set_beside_a_forward(rows):
    found = {row["job"]: row for row in of(rows, "bench-slope")}
    assert found.keys() == {"forward", "slope, plain", "slope, in-forward", "backward"}
    assert found["forward"]["of_forward"] == found["forward"]["flops_of_forward"] == 1
    for engine in ("plain", "in-forward"):
        row = found[f"slope, {engine}"]
        assert 2.9 < row["flops_of_forward"] < 3.6 and row["peak_mb"] > found["forward"]["peak_mb"] > 0


def test_probes_are_set_beside_as_many_bare_forwards(rows):
    found = of(rows, "bench-probes")
    assert [(row["batch"], row["tokens"], row["job"]) for row in found[:4]] == [
        (1, 4, job) for job in ("bare", "repeated", "points", "step")
    ]
    assert len(found) == 8 and all(row["points"] == 4 and row["of_bare"] > 0 for row in found)
    assert all(row["of_bare"] == 1 for row in found if row["job"] == "bare")


@pytest.mark.parametrize("cell", ["4", "4x", "0x16", "4x1", "axb", "1x2x3"])
def test_a_cell_that_is_no_minibatch_is_refused(cell, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "--parts", "probes", "--probe-cells", cell, "--out", str(tmp_path)])
    assert "is no minibatch: give examples x tokens" in capsys.readouterr().err


def test_the_padding_table_counts_the_places_of_both_ways(tmp_path, capsys):
    main(["bench", "--parts", "padding", "--repetitions", "1", "--padding-tasks", "spam", "--out", str(tmp_path)])
    (row,) = of(_rows(tmp_path), "bench-padding")
    places = row["places"]
    assert row["tokens"] <= places["shared"] < 0.8 * places["padded"] and row["of_padded"] > 0
    assert str(places["shared"]) in capsys.readouterr().out


@pytest.mark.exhaustive
def test_quantised_distributed_and_streamed_steps_are_measured(tmp_path):
    quantised = ["--quantised-models", "opt-1m", "--quantised-formats", "int8,int4"]
    assert main(["bench", *SMALL, *quantised, "--parts", ",".join(PROCESSES), "--out", str(tmp_path)]) == 0
    found = _rows(tmp_path)
    shares = {row["format"]: row["of_bfloat16"] for row in of(found, "bench-quantised-bytes")}
    assert shares == {"int8": pytest.approx(0.5625), "int4": pytest.approx(0.3125)}
    assert all(row["of_dense"] > 0 for row in of(found, "bench-quantised-time"))
    assert all(row["peak_mb"] > row["empty_mb"] > 0 for row in of(found, "bench-quantised-peak"))
    assert {row["kind"] for row in found} >= {"bench-distributed", "bench-streamed-memory", "bench-streamed"}
    (limited,) = of(found, "bench-streamed-limited")
    assert limited["status"] == 0 and limited["anonymous_mb"] > 0
