"""Exports: what plain transformers makes of the folder, where the weights come from, and what the card says."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import yaml

from llm.__main__ import main
from llm.export import ExportOptions, adapter_folder, card, export
from llm.export.base_model import base_model, rounding
from llm.loop.loop import Loop
from llm.loop.train import train
from llm.model import loading
from llm.model.language_model import DTYPES
from llm.options.train import TrainOptions
from llm.run import checkpoint
from zobench.run import toml

pytestmark = [
    pytest.mark.environment,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),  # of transformers, by peft
]

QUICK = {"steps": 6, "train": 20, "dev": 10, "test": 10, "max_tokens": 24, "batch": 4, "eval_every": 3, "lr": 1e-4}
PROMPT = "Win a prize, call now! This message is"
PLAIN = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
file, prompt, *folders = sys.argv[1:]
found = []
for folder in folders:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    inputs = tokenizer(prompt, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits.float()
    made = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert made.shape[1] <= inputs["input_ids"].shape[1] + 2
    found.append({"logits": logits, "dtype": str(model.dtype), "ids": inputs["input_ids"]})
torch.save(found, file)
"""


def trained(folder, **changes):
    options = TrainOptions(**{**QUICK, "out": str(folder), **changes})
    train(options)
    return folder


def plain(tmp_path, *folders):
    """What a process that knows transformers alone makes of folders."""
    file = tmp_path / "plain.pt"
    command = [sys.executable, "-c", PLAIN, str(file), PROMPT, *map(str, folders)]
    subprocess.run(command, check=True, cwd=tmp_path, env={"HF_HUB_OFFLINE": "1", "PATH": "", "OMP_NUM_THREADS": "1"})
    return torch.load(file, weights_only=True)


@torch.no_grad()
def logits(model, ids):
    return model(input_ids=ids).logits.float()


def weights(folder):
    return checkpoint.weights(loading.load(str(folder), dtype=loading.dtype_of(str(folder))).model)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def front_matter(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    return yaml.safe_load(text.split("---\n")[1])


def test_plain_transformers_loads_the_export_and_gives_the_same_logits(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")  # so products are torch's own
    run = trained(tmp_path / "run")
    dtypes = (None, "bfloat16", "float16")
    folders = [export(ExportOptions(str(run), str(tmp_path / f"{dtype}"), dtype=dtype)) for dtype in dtypes]
    for dtype, folder, found in zip(dtypes, folders, plain(tmp_path, *folders), strict=True):
        assert found["dtype"] == f"torch.{dtype or 'float32'}" and found["ids"][0, 0] == 2  # BOS
        tuned = loading.load(str(run / "model"))
        expected = logits(tuned.model.to(DTYPES[dtype or "float32"]), found["ids"])
        assert torch.allclose(found["logits"], expected, rtol=1e-5, atol=1e-5), dtype
        base = logits(loading.load("tiny-opt").model, found["ids"])
        assert not torch.allclose(found["logits"], base, rtol=1e-3, atol=1e-3)  # so the comparison sees six steps
        assert json.loads((folder / "config.json").read_text())["dtype"] == (dtype or "float32")
        # the class that transformers 5 would write is none to version 4, which then also makes token types up
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
        assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast" and "token_type_ids" not in str(tokenizer)
        assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {
            file.name for file in folder.iterdir()
        }
        assert all(file.stat().st_mode & 0o044 == 0o044 for file in folder.rglob("*") if file.is_file())


def test_the_weights_are_the_same_wherever_they_come_from(tmp_path, capsys):
    run = trained(tmp_path / "run", checkpoint_every=3)
    written = weights(run / "model")
    for source in ("model", "checkpoint", "journal"):
        assert main(["export", str(run), "--to", str(tmp_path / source), "--source", source]) == 0
        assert equal(weights(tmp_path / source), written)
    bare = trained(tmp_path / "bare", save=False, checkpoint_every=0)
    assert equal(weights(export(ExportOptions(str(bare), str(tmp_path / "rebuilt")))), written)
    assert "rebuilt from it and the journal" in (tmp_path / "rebuilt/README.md").read_text()
    with pytest.raises(ValueError, match="wrote no weights"):
        export(ExportOptions(str(bare), str(tmp_path / "none"), source="model"))
    with pytest.raises(ValueError, match="has no weights"):
        export(ExportOptions(str(bare), str(tmp_path / "none"), source="checkpoint"))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "bare", "checkpoint", "journal", "model", "rebuilt", "run",
    ]  # fmt: skip


def test_an_unfinished_run_is_exported_as_far_as_it_is_and_says_so(tmp_path, capsys):
    session = Loop.of(TrainOptions(**QUICK, checkpoint_every=2, out=str(tmp_path / "run")))
    take = session.stepper.step

    def stop(*arguments):
        if session.stepper.steps == 5:
            raise KeyboardInterrupt
        return take(*arguments)

    session.stepper.step = stop
    with pytest.raises(KeyboardInterrupt):
        session.go()
    here = checkpoint.weights(session.context.language_model.model)
    folder = export(ExportOptions(str(tmp_path / "run"), str(tmp_path / "out")))
    assert equal(weights(folder), here)  # step 5 by the journal, not step 4 by the checkpoint
    card = (folder / "README.md").read_text()
    assert "not finished: these are the weights after step 5 of 6" in card and "were not measured" in card
    assert "is missing" not in capsys.readouterr().err
    (tmp_path / "run/journal.bin").unlink()
    export(ExportOptions(str(tmp_path / "run"), str(tmp_path / "from checkpoint")))
    assert "journal.bin is missing: nothing shows whether checkpoint 4 is" in capsys.readouterr().err


def test_a_first_order_run_is_exported_from_its_checkpoint(tmp_path):
    run = trained(tmp_path / "run", method="adamw", checkpoint_every=3)
    written = weights(run / "model")
    (run / "model").rename(tmp_path / "aside")
    folder = export(ExportOptions(str(run), str(tmp_path / "out")))
    assert equal(weights(folder), written)
    card = (folder / "README.md").read_text()
    assert (
        "with backpropagation" in card
        and "journal replay" not in card
        and not (folder / "zobench/journal.bin").exists()
    )


def test_the_card_says_what_the_rows_say(tmp_path):
    run = trained(tmp_path / "run", method="kerzoo:n=2")
    folder = export(ExportOptions(str(run), str(tmp_path / "card")))
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    (final,) = [row for row in rows if row["kind"] == "final"]
    about, card = front_matter(folder), (folder / "README.md").read_text()
    assert (about["base_model"], about["library_name"], about["license"]) == ("tiny-opt", "transformers", "mit")
    assert {"zobench", "kerzoo", "spam"} <= set(about["tags"]) and "datasets" not in about
    (result,) = about["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == final["test_accuracy"]
    line = f"| **these weights** | {final['dev_accuracy']:.1%} | {final['test_accuracy']:.1%} | {final['dev_loss']:.4f}"
    assert line in card and "| calibrated zero-shot |" in card
    assert "24 forward passes and 0 backward passes" in card and 'method = "kerzoo:n=2"' in card
    assert str(tmp_path) not in card  # no place of this machine


def test_an_export_repeats_its_run_and_rebuilds_its_weights(tmp_path, monkeypatch, capsys):
    run = trained(tmp_path / "run")
    folder = export(ExportOptions(str(run), str(tmp_path / "card")))
    monkeypatch.chdir(folder)
    commands = [line.split()[3:] for line in (folder / "README.md").read_text().splitlines() if "    python" in line]
    assert [command[0] for command in commands] == ["train", "journal"]
    for command in commands:
        assert main(command) == 0
    assert equal(weights(folder / "runs/again/model"), weights(folder))
    assert equal(weights(folder / "rebuilt"), weights(folder))


def test_what_cannot_be_exported_is_told_and_leaves_nothing(tmp_path, capsys):
    run = trained(tmp_path / "run", checkpoint_every=0, save=False)
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("mine")
    journal = (run / "journal.bin").read_bytes()
    (tmp_path / "empty").mkdir()
    cases = [
        ((str(run), str(full)), "holds something already"),
        ((str(run), str(full / "mine")), "holds something already"),
        ((str(run), None), "give --to"),
        ((str(tmp_path / "empty"), str(tmp_path / "o")), "could not be loaded"),
        ((str(tmp_path / "nowhere"), str(tmp_path / "o")), "no such folder"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            export(ExportOptions(*arguments))
    for changes, message in (
        ({"dtype": "float8"}, "dtype"),
        ({"source": "jurnal"}, "journal"),
        ({"merge": True}, "no adapter"),
    ):
        with pytest.raises(ValueError, match=message):
            export(ExportOptions(str(run), str(tmp_path / "o"), **changes))
    (run / "journal.bin").write_bytes(journal[:-60] + b"\0" + journal[-59:])
    with pytest.raises(ValueError, match="record"):
        export(ExportOptions(str(run), str(tmp_path / "o")))
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(run), "--to", str(full)])
    assert stopped.value.code == 2
    assert (full / "mine").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "full", "run"]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("config.toml", b'model = "tiny-opt"', b"model = 3"),
        ("config.toml", b"steps = 6", b'steps = "six"'),
        ("config.toml", b'command = "train"', b'command = "study"'),
        ("config.toml", b"lr = ", b"lr = = "),
        ("config.toml", b"steps", b"\xff"),
        ("rows.jsonl", b'{"kind": "final"', b"[[["),
        ("rows.jsonl", b'"step": 3', b'"step": "3"'),
        ("rows.jsonl", b'"dev_accuracy": ', b'"dev_accuracy": true, "a": '),
        ("environment.json", b"{", b""),
        ("journal.bin", b"zobench", b"z\0bench"),
    ],
)
def test_a_run_folder_that_is_damaged_is_told_with_its_file(name, old, new, damaged, tmp_path):
    data = (damaged / name).read_bytes()
    assert old in data
    (damaged / name).write_bytes(data.replace(old, new))
    try:
        with pytest.raises(ValueError, match=re.escape(name)):
            export(ExportOptions(str(damaged), str(tmp_path / "out"), source="journal"))
    finally:
        (damaged / name).write_bytes(data)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("damaged") / "run", save=False)


def test_a_configuration_file_does_not_say_where_to_export(tmp_path, capsys):
    file = tmp_path / "c.toml"
    file.write_text(f'to = "{tmp_path}/elsewhere"\n')
    with pytest.raises(SystemExit):
        main(["export", "tiny-opt", "--config", str(file)])
    assert "to in" in capsys.readouterr().err and not (tmp_path / "elsewhere").exists()


def test_weights_that_float16_cannot_hold_are_refused(tmp_path):
    large = loading.load("tiny-opt")
    with torch.no_grad():
        large.model.model.decoder.layers[0].fc1.bias[3] = 1e5
    loading.save(large, tmp_path / "large")
    with pytest.raises(ValueError, match=r"fc1\.bias has entries that are not finite.*bfloat16"):
        export(ExportOptions(str(tmp_path / "large"), str(tmp_path / "out"), dtype="float16"))
    assert not (tmp_path / "out").exists()
    assert loading.dtype_of(
        str(export(ExportOptions(str(tmp_path / "large"), str(tmp_path / "out"), dtype="bfloat16")))
    )


def test_what_is_known_of_base_models(tmp_path):
    assert base_model("facebook/opt-1.3b").on_hub and base_model("facebook/opt-1.3b").license is None
    smol = base_model("smollm2-135m-instruct")
    assert "4-bit rounding" in smol.weights and (smol.license, smol.on_hub) == ("apache-2.0", True)
    assert "4-bit" in rounding("SmolLM2-135M-Instruct.Q4_1.gguf") and "6-bit" in rounding("a-Q6_K.gguf")
    assert "-bit" not in rounding("model-f16.gguf")
    run = trained(tmp_path / "run")
    again = base_model(str(run / "model"))
    assert again.name == "tiny-opt" and "tuned before on spam by mezo" in again.weights
    folder = export(ExportOptions(str(run), str(tmp_path / "out")))
    assert base_model(str(folder)).name == "tiny-opt"  # by its card
    (folder / "README.md").write_bytes(b"---\nbase_model: [\xff\n---\n")
    assert base_model(str(folder)).name == "out"


def lora(tmp_path):
    """An adapter that peft wrote, whose weights do something, and the adapted model."""
    peft = pytest.importorskip("peft")
    base = loading.load("tiny-opt")
    torch.manual_seed(0)
    adapted = peft.get_peft_model(
        base.model, peft.LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"])
    )
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    base.tokenizer.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", adapted.eval()


def test_an_adapter_is_exported_as_peft_has_it_or_merged(tmp_path):
    adapter, adapted = lora(tmp_path)
    import peft

    (adapter / "adapter_model.bin").write_bytes(b"a pickle")
    folder = export(ExportOptions(str(adapter), str(tmp_path / "out")))
    ids = torch.tensor([[2, 17, 4, 90]])
    loaded = peft.AutoPeftModelForCausalLM.from_pretrained(folder).eval()
    assert torch.allclose(logits(loaded, ids), logits(adapted, ids), atol=1e-6)
    assert not (folder / "adapter_model.bin").exists() and front_matter(folder)["library_name"] == "peft"
    merged = export(ExportOptions(str(adapter), str(tmp_path / "merged"), merge=True))
    (found,) = plain(tmp_path, merged)
    assert torch.allclose(found["logits"], logits(adapted, found["ids"]), atol=1e-4)
    base = logits(loading.load("tiny-opt").model, found["ids"])
    assert not torch.allclose(found["logits"], base, atol=1e-2)
    assert not (merged / adapter_folder.CONFIG).exists() and "merged" in (merged / "README.md").read_text()
    half = export(ExportOptions(str(adapter), str(tmp_path / "half"), dtype="bfloat16"))
    assert "in bfloat16" in (half / "README.md").read_text()


def test_a_run_that_trained_an_adapter_is_exported_from_wherever_it_is(tmp_path):
    peft = pytest.importorskip("peft")
    run = trained(tmp_path / "run", adapter="lora:r=2", lr=1e-2, select="last", checkpoint_every=3)
    ids = torch.tensor([[2, 17, 4, 90]])
    expected = logits(loading.load(str(run / "model")).model, ids)
    assert not torch.allclose(expected, logits(loading.load("tiny-opt").model, ids), atol=1e-3)
    folder = export(ExportOptions(str(run), str(tmp_path / "adapted")))
    adapted = peft.AutoPeftModelForCausalLM.from_pretrained(folder).eval()
    assert torch.allclose(logits(adapted, ids), expected, atol=1e-6)
    merged = export(ExportOptions(str(run), str(tmp_path / "merged"), merge=True))
    assert torch.allclose(logits(loading.load(str(merged)).model, ids), expected, atol=1e-4)
    assert front_matter(merged)["library_name"] == "transformers"
    written = weights(run / "model")
    (run / "model").rename(tmp_path / "aside")
    for source in ("checkpoint", "journal"):
        folder = export(ExportOptions(str(run), str(tmp_path / source), source=source))
        assert equal(weights(folder), written)
        card = (folder / "README.md").read_text()
        assert front_matter(folder)["library_name"] == "peft" and 'adapter = "lora:r=2"' in card


def test_a_run_of_selected_weights_and_tensors_is_rebuilt_to_what_it_wrote(tmp_path):
    run = trained(tmp_path / "run", trained=("*fc1*", "*fc2*"), lr=5e-3, checkpoint_every=3, steps=7)
    (final,) = [row for row in map(json.loads, (run / "rows.jsonl").read_text().splitlines()) if row["kind"] == "final"]
    assert final["selected_step"] == 6  # at this rate the last step makes dev worse
    for source in ("model", "checkpoint", "journal"):
        folder = export(ExportOptions(str(run), str(tmp_path / source), source=source))
        assert equal(weights(folder), weights(run / "model"))
        card = (folder / "README.md").read_text()
        assert f"Of 7 steps, these are the weights after step {final['selected_step']}" in card
        assert f"{final['test_accuracy']:.1%}" in card and f"--steps {final['selected_step']} " in card


EVIL = (
    "x/y](javascript:alert(1)) <script>alert(2)</script> **bold**",
    "fine.\n\n# owned\n\n---\nlicense: mit\n![](https://a.b/c.png) www.a.b https://a.b a@b.c `code` | cell |\n|---|",
)


def rendered(card):
    """The text of a card without its own code blocks, and what is markup in it."""
    text = re.sub(r"```.*?```", "", card.split("\n---\n", 1)[1], flags=re.DOTALL)
    return text, re.findall(
        r"<\w|\]\(|\*\*bold|!\[|https?://(?!huggingface)|www\.|a@b|^# owned|\| cell", text, re.MULTILINE
    )


def test_texts_of_others_are_no_markup_in_a_card(tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(loading.TINY_OPT, folder)
    for name in ("base_model", "base_weights", "license"):
        for text in EVIL:
            (folder / "README.md").write_text(f"---\n{json.dumps({name: text})}\n---\n")
            base = base_model(str(folder))
            made = card.Exported("transformers", False, "float32", 3, 0, "as it was", base)
            found = card.text("x", made, None)
            assert rendered(found)[1] == [] and found.count("\n---\n") == 1
            about = yaml.safe_load(found.split("---\n")[1])
            assert {"base_model", "library_name"} <= about.keys() <= {"base_model", "base_weights", "license", *TAGS}
    (folder / "README.md").write_text('---\nbase_model: "/home/somebody/secret/model"\n---\n')
    assert base_model(str(folder)).name == "model" and base_model("/home/somebody/model").name == "model"
    (folder / "README.md").write_text('---\nbase_model: "facebook/opt-125m"\n---\n')
    assert base_model(str(folder)).on_hub and base_model(str(folder)).name == "facebook/opt-125m"


TAGS = ("library_name", "pipeline_tag", "tags", "model_name", "model-index", "datasets")


def test_a_run_that_came_from_elsewhere_brings_no_markup_and_calls_no_function(tmp_path, monkeypatch):
    run = trained(tmp_path / "run")
    called = []
    monkeypatch.setattr("llm.tasks.function.own", lambda name: called.append(name) or list)
    evil = " ".join(EVIL)
    config = tomllib.loads((run / "config.toml").read_text())
    config |= {"task": "os:getcwd", "method": f"mezo {evil}", "provenance": evil, "also": [f"spam@{tmp_path}"]}
    (run / "config.toml").write_text(toml.dumps(config))
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    rows = [row | {"name": evil, "metric": evil, "status": evil} for row in rows]
    (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    about = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({name: evil for name in about}))
    folder = export(ExportOptions(str(run), str(tmp_path / "out")))
    text = (folder / "README.md").read_text()
    assert rendered(text)[1] == [] and not called and str(tmp_path) not in text
    assert "os:getcwd" in text and "--task os:getcwd" in text  # what the command line has to say


def test_a_card_has_the_names_of_files_and_not_their_places(tmp_path):
    shutil.copytree(loading.TINY_OPT, tmp_path / "mine")
    lines = "".join(f"word {i},{i % 2}\n" for i in range(60))
    (tmp_path / "a.csv").write_text(f"text,label\n{lines}")
    (tmp_path / "t.toml").write_text('train = "a.csv"\nprompt = "{text} It was"\n[labels]\n0 = " bad"\n1 = " good"\n')
    run = trained(tmp_path / "run", model=str(tmp_path / "mine"), task=str(tmp_path / "t.toml"), also=("spam",))
    folder = export(ExportOptions(str(run), str(tmp_path / "out")))
    for file in (run / "model/README.md", folder / "README.md", folder / "zobench/config.toml"):
        assert str(tmp_path) not in file.read_text() and "t.toml" in file.read_text()
    assert "--model MODEL --task TASK.toml" in (folder / "README.md").read_text()


def test_adapters_that_are_damaged_are_told(tmp_path):
    adapter, _ = lora(tmp_path)
    (adapter / "adapter_model.safetensors").rename(tmp_path / "kept")
    (adapter / "adapter_model.bin").write_bytes(b"what peft would unpickle")
    for merge in (False, True):
        with pytest.raises(ValueError, match="pickles are never read"):
            export(ExportOptions(str(adapter), str(tmp_path / "out"), merge=merge))
    (adapter / "adapter_model.safetensors").write_bytes(b"nothing")
    for merge, message in ((False, "cannot be read"), (True, "does not fit")):
        with pytest.raises(ValueError, match=message):
            export(ExportOptions(str(adapter), str(tmp_path / "out"), merge=merge))
    (adapter / "adapter_config.json").write_text("[1")
    with pytest.raises(ValueError, match="not JSON"):
        export(ExportOptions(str(adapter), str(tmp_path / "out")))
    assert sorted(Path(tmp_path).iterdir()) == [adapter, tmp_path / "kept"]
