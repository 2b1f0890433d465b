"""A study that goes on elsewhere: from the committed files alone, to the weights of one that was never interrupted."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from interrupted import gone

from llm.__main__ import main
from llm.loop.loop import Loop
from llm.run.folder import CONFIG, ENVIRONMENT, JOURNAL, ROWS
from llm.studies import archive
from llm.studies.compare import FREE, CompareOptions, Study
from llm.studies.plan import read_plan
from llm.studies.runs import SEEDS, Named
from zobench.run.records import Run

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[1]
COMMITTED = (CONFIG, ENVIRONMENT, ROWS, JOURNAL)
PLAN = """
model = "tiny-opt"
tuned_on = "spam"
tuning_passes = 4
evaluations = 3

[train]
batch = 4
train = 20
dev = 10
test = 10
max_tokens = 24
checkpoint_every = 3
schedule = "linear"
baselines = false

[tasks.spam]
forward_passes = 24

[arms.mezo]
method = "mezo"
{options}
rates = [1e-3]
"""
ARMS = {
    "full": "",
    "lora": 'adapter = "lora:r=2"\nepsilon = 1e-2',
    "copy": 'rule = "interpolated:most=10"\nengine = "in-forward"\nselect = "last"',
}


@pytest.fixture
def plan(request, tmp_path):
    file = tmp_path / "plan.toml"
    file.write_text(PLAN.format(options=ARMS[request.param]))
    return file


def compare(plan, out, *more):
    assert main(["compare", "--plan", str(plan), "--out", str(out), *more]) == 0
    lines = map(json.loads, (out / ROWS).read_text().splitlines())
    (row,) = [row for row in lines if row.get("group") == SEEDS]
    return {name: value for name, value in row.items() if name not in ("seconds", "peak_mb")}


def interrupted(plan, out, step):
    """The study of a plan whose last run stops before this step, in a folder."""
    config = {"command": "compare", **asdict(CompareOptions(plan=str(plan)))}
    study = Study(read_plan(str(plan), None), Run(out, config, free=FREE), "live")
    options = study.options(Named(SEEDS, "spam", "mezo", 0, study.rates(["mezo"])["mezo"]))
    gone(Loop.of(options), step)
    return Path(options.out)


def committed(source, target):
    """A copy of a run with what is committed of it: no checkpoint, no weights."""
    target.mkdir(parents=True)
    for name in COMMITTED:
        shutil.copy(source / name, target / name)


@pytest.mark.parametrize("plan", [pytest.param("full", marks=pytest.mark.exhaustive), "lora", "copy"], indirect=True)
def test_journals_and_rows_that_were_copied_continue_to_the_same_weights(plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # as from the root of the repository: folders are named from it
    there, here, whole = Path("there"), Path("here"), Path("whole")
    run = interrupted(plan, there, 8)
    assert (run / "checkpoints").is_dir()
    committed(run, here / run.relative_to(there))
    row = compare(plan, here)
    assert row == compare(plan, whole)  # its curve, its losses and the fingerprint of its weights
    assert row["fingerprint"]


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("plan", ["full"], indirect=True)
def test_a_packed_run_that_was_interrupted_is_unpacked_and_continued(plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there, here = Path("there"), Path("here")
    interrupted(plan, there, 5)
    archive.pack(there, ("tune", "seeds"))
    here.mkdir()
    shutil.copy(there / archive.FILE, here)
    wanted = compare(plan, Path("whole"))
    monkeypatch.setattr(Study, "compare", interrupt)
    with pytest.raises(SystemExit, match="130"):
        main(["compare", "--plan", str(plan), "--out", "there", "--pack"])
    assert (there / "seeds/spam-mezo-seed0/checkpoints").is_dir() and not (there / "tune").exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert compare(plan, here, "--pack") == wanted
    assert JOURNAL in {Path(name).name for name in archive.contents(here)}


@pytest.mark.parametrize("task", ["wsc", "multirc"])
def test_the_plan_for_opt_says_what_it_would_take_without_the_model(task, tmp_path, capsys):
    """The sizes of OPT-2.7B from its configuration; the weights are nowhere."""
    sizes = {"hidden_size": 2560, "ffn_dim": 10240, "num_hidden_layers": 32, "num_attention_heads": 32}
    config = {"model_type": "opt", "architectures": ["OPTForCausalLM"], "vocab_size": 50272, **sizes}
    config |= {"word_embed_proj_dim": 2560, "max_position_embeddings": 2048}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for file in (ROOT / "llm/tiny_opt").glob("tokenizer*.json"):
        shutil.copy(file, tmp_path)
    plan = ROOT / f"llm/configs/kerzoo-opt-2.7b-{task}.toml"
    assert main(["compare", "--plan", str(plan), "--data", "data", "--model", str(tmp_path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "2,651,596,800 weights, 4.94 GiB in float16 without activations" in said
    assert "each number that a rule holds for a weight is 9.88 GiB" in said
    assert "code                 1,333       8     5" in said and "(holds 1 float32 a weight)" in said
    assert "56 runs and at least 62 trials, 523,926 forward passes of batches" in said
    read = read_plan(str(plan), "data")
    options = read.run_options(task, "mezo", 8000)
    assert (options.steps, options.batch, options.epsilon, options.dtype) == (4000, 16, 1e-3, "float16")
    assert not Path("runs/compare").exists()


@pytest.mark.parametrize("name", ["smollm2-long", "smollm2-superglue", "compositions"])
def test_the_plans_for_smollm2_can_be_run(name):
    plan = read_plan(str(ROOT / f"llm/studies/{name}.toml"), "data")
    assert plan.options["select"] == "last"
    assert plan.options.get("journal", True) == plan.model.startswith("smollm2")  # tiny runs are made again
    if name == "smollm2-long":
        assert {plan.run_options("sst2", arm, 8000).steps for arm in ("mezo", "mezo-lora")} == {4000}
        assert {plan.run_options("sst2", arm, plan.tuning_passes).steps for arm in ("mezo", "mezo-lora")} == {400}
