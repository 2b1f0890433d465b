"""`--compile`: losses, steps and journals are those of the uncompiled forward, one code serves all layers, and what
cannot be compiled is refused before anything is loaded.
"""

import json
import shutil
from functools import partial

import pytest
import tiny_models
import torch
from sampled import sampled
from torch._dynamo.utils import counters

import llm.bench.compiled
from llm.bench.setting import setting
from llm.dry_run.tryout import Tryout
from llm.gpu.cells import compiled_steps
from llm.gpu.job import Here
from llm.loop.train import train
from llm.model import compiled, logits
from llm.model.adapters import adapt
from llm.model.generation import greedy
from llm.options.journal import main
from llm.options.train import TrainOptions
from llm.run.check import check
from llm.run.context import prepare
from zobench.run.journal import read

pytestmark = [
    pytest.mark.usefixtures("one_thread", "anew"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated"),  # where inductor is imported
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),  # torch looks itself
]
COMPILE = compiled.compile_
QUICK = {"steps": 4, "train": 8, "dev": 4, "test": 4, "max_tokens": 16, "batch": 2, "eval_every": 2, "lr": 3e-4}
BATCHES = ([9, 6], [9, 9], [4], [12, 6, 7], [5, 5], [31, 2], [17], [8, 3, 3, 3])
"""Lengths of texts: of several lengths (with a mask), of one (without), and one text alone."""


@pytest.fixture
def anew():
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


@pytest.fixture
def traced(monkeypatch):
    """Compilation without a code generator: torch traces, guards and counts, and runs the same operations."""
    monkeypatch.setattr(compiled, "compile_", partial(COMPILE, backend="eager"))
    monkeypatch.setattr(compiled.shutil, "which", lambda name: name)


def graphs():
    return counters["stats"]["unique_graphs"]


def options(folder, **changed):
    return TrainOptions(**{**QUICK, "compile": "layers", "select": "last", "out": str(folder), **changed})


def found(language_model, lengths):
    rows = [[5 + i] * length for i, length in enumerate(lengths)]
    places = [(i, length - 1) for i, length in enumerate(lengths)]
    return logits.logits_at(language_model, logits.padded(language_model, rows), places)


CASES = {
    "layers": ("layers", None, 3),
    "lora": ("layers", "lora", 3),
    "prompt": ("layers", "prompt", 3),
    "cuda-graphs": ("cuda-graphs", None, 2),
}
"""Compilation, adapter, and the most graphs: with a mask or none, and of one text alone."""


@torch.no_grad()
@pytest.mark.parametrize("case", sampled(CASES, ("layers", "lora").__contains__))
def test_one_code_serves_all_layers_and_lengths(case):
    way, adapter, most = CASES[case]
    if adapter:
        pytest.importorskip("peft", reason="adapters need peft")
    with torch.enable_grad():
        made = adapt(tiny_models.language_model("opt", num_hidden_layers=4), adapter, 0)
    names, right = list(made.model.state_dict()), [found(made, lengths) for lengths in BATCHES]
    COMPILE(made, way, backend="eager")
    assert list(made.model.state_dict()) == names
    for k, lengths in enumerate(BATCHES):
        assert torch.allclose(found(made, lengths), right[k], rtol=1e-5, atol=1e-6)
        if k == 2:
            seen = graphs()
    assert 0 < seen == graphs() <= most and not counters["graph_break"]


@torch.no_grad()
def test_models_of_one_class_share_the_code_and_generation_has_none():
    for known in (0, 1):
        made = tiny_models.language_model("opt", num_hidden_layers=2)
        right = greedy(made, [[5] * 4, [6] * 7], 3)
        COMPILE(made, "layers", backend="eager")
        assert greedy(made, [[5] * 4, [6] * 7], 3) == right
        assert graphs() == known
        found(made, [9, 6])
    assert graphs() == 1


@pytest.mark.parametrize("method", sampled(("mezo", "adamw"), "mezo".__eq__))
def test_a_compiled_run_is_an_uncompiled_one_to_rounding(method, traced, tmp_path, capsys):
    rows = {}
    for way in ("off", "layers"):
        train(options(tmp_path / way, compile=way, method=method, lr=1e-4))
        rows[way] = [json.loads(line) for line in (tmp_path / way / "rows.jsonl").read_text().splitlines()]
        assert (graphs() > 0) == (way == "layers")
    losses = {way: [row["train_loss"] for row in each if row["kind"] == "step"] for way, each in rows.items()}
    assert losses["layers"] == pytest.approx(losses["off"], rel=1e-5) and len(losses["off"]) == 4
    assert 'compile = "layers"' in (tmp_path / "layers/config.toml").read_text()
    header = read(tmp_path / "layers/journal.bin").header
    assert (header["engine"], header["compile"]) == ("plain", "layers")
    assert "compile" not in read(tmp_path / "off/journal.bin").header
    if method == "mezo":
        replayed(tmp_path / "layers")


def replayed(folder):
    """No loss is evaluated in a replay, and nothing compiled."""
    before = graphs()
    assert main(["verify", str(folder), "--replay"]) == 0
    assert graphs() == before


@pytest.mark.exhaustive
@pytest.mark.skipif(shutil.which("g++") is None, reason="the code of a CPU needs a C++ compiler")
def test_generated_code_computes_the_losses(tmp_path):
    """The only test that generates code: half a minute of a core."""
    for way in ("off", "layers"):
        train(options(tmp_path / way, compile=way))
    records = [read(tmp_path / way / "journal.bin").records for way in ("off", "layers")]
    for one, other in zip(*records, strict=True):
        assert one.losses == pytest.approx(other.losses, rel=1e-5) and one.key == other.key
    assert 0 < graphs() <= 4
    replayed(tmp_path / "layers")


REFUSED = {
    "engine": ({"engine": "in-forward"}, "--engine is in-forward: leave --engine out"),
    "own engine": ({"engine": "engines:Copied"}, "--engine is engines:Copied"),
    "rounding": ({"rounding": "stochastic", "dtype": "bfloat16"}, "--rounding is stochastic: leave --rounding out"),
    "codes": ({"quantize": "int4"}, "--quantize is int4"),
    "fake": ({"fake_quantize": "w8a8"}, "--fake-quantize is w8a8"),
    "slopes": ({"method": "forward-gradient"}, "--method is forward-gradient: give --method mezo"),
    "hybrid": ({"method": "hybrid"}, "--method is hybrid"),
    "recomputed": ({"method": "adamw", "gradient_checkpointing": True}, "leave --gradient-checkpointing out"),
    "prefix": ({"adapter": "prefix"}, "--adapter prefix gives each layer keys of its own"),
    "device": ({"compile": "cuda-graphs"}, "--device is cpu: give --compile layers, or --device cuda"),
    "gradients": ({"method": "sgd", "compile": "cuda-graphs"}, "--method is sgd: give --compile layers"),
    "name": ({"compile": "layer"}, "Did you mean 'layers'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compiled_is_refused_before_anything_is_loaded(case, tmp_path):
    changed, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        check(options(tmp_path, model="nowhere", **changed))


def test_a_compiler_is_needed_and_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="no-such-compiler was not found: install it"):
        check(options(tmp_path))
    check(options(tmp_path, method="zero-shot"))  # takes no step and compiles nothing


def test_a_model_without_layers_and_a_failing_compiler_are_told(traced, monkeypatch, tmp_path):
    made = tiny_models.language_model("opt", num_hidden_layers=2)
    made.model.model.decoder.layers = torch.nn.ModuleList()
    with pytest.raises(ValueError, match=r"OPTForCausalLM has no list of layers .* leave --compile out"):
        COMPILE(made, "layers")

    def broken(*_):
        raise RuntimeError("no assembler")

    monkeypatch.setattr(compiled, "compile_", partial(COMPILE, backend=broken))
    with pytest.raises(ValueError, match=r"torch.compile fails with this model .*: leave --compile layers out"):
        prepare(options(tmp_path))


def test_a_dry_run_measures_memory_uncompiled_and_time_compiled(traced, tmp_path):
    peaks = []
    for way in ("off", "layers"):
        context = prepare(options(tmp_path, compile=way))
        peaks.append(Tryout.of(context, context.stepper()).step_peak)
    assert peaks[0] == peaks[1] > 0 and graphs() > 0


def test_the_bench_compiles_on_the_same_parameters_and_skips_what_is_impossible(traced, monkeypatch, tmp_path):
    monkeypatch.setattr(llm.bench.compiled, "compile_", partial(COMPILE, backend="eager"))
    here = setting("opt-1m", "float32", 2, 8)
    twin = llm.bench.compiled.compiled(here, "layers")
    assert all(one is other for one, other in zip(twin.model.parameters(), here.model.parameters(), strict=True))
    assert twin.model is not here.model and here.model.model.decoder.layers[0]._compiled_call_impl is None
    skipped, off, layers = compiled_steps(Here("cpu", tmp_path, tmp_path), "opt-1m", "float32", 2, 8)
    assert (skipped["compile"], skipped["status"]) == ("cuda-graphs", "skipped") and "--device cuda" in skipped[
        "reason"
    ]
    assert off["of_uncompiled"] == 1 and layers["compile"] == "layers" and layers["first_seconds"] > 0
    monkeypatch.setattr(
        llm.bench.compiled, "compile_", lambda made, way: made.model.model.decoder.layers.__delitem__(0)
    )
    with pytest.raises(RuntimeError, match="a compiled forward gives the losses"):
        list(compiled_steps(Here("cpu", tmp_path, tmp_path), "opt-1m", "float32", 2, 8))
