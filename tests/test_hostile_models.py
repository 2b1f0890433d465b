"""What a model, a name or a configuration file from anywhere may not do."""

import json
import pickle
import sys
from pathlib import Path

import pytest

from llm.__main__ import main
from llm.loop.loop import Loop
from llm.model import loading
from llm.run.options import TrainOptions

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = {"steps": 6, "train": 20, "dev": 10, "test": 10, "max_tokens": 24, "batch": 4, "save": False}


def options(tmp_path, **changes):
    return TrainOptions(**{**QUICK, "out": str(tmp_path / "run"), **changes})


class Bomb:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_pickles_are_never_read(tmp_path):
    folder, harm = tmp_path / "model", tmp_path / "harm"
    loading.save(loading.load("tiny-opt"), folder)
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(pickle.dumps(Bomb(harm)))
    loading.load(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="pickles can run code and are never read"):
        loading.load(str(folder))
    (folder / "a.safetensors").write_bytes(b"")  # so that only transformers is left to refuse
    with pytest.raises(ValueError, match="could not be loaded"):
        loading.load(str(folder))
    assert not harm.exists()
    pickle.loads((folder / "pytorch_model.bin").read_bytes())
    assert harm.exists()  # the bomb is a real one


CODE = """
from pathlib import Path
from transformers import OPTConfig, OPTForCausalLM
Path({harm!r}).touch()
class OwnConfig(OPTConfig):
    model_type = "own"
class Own(OPTForCausalLM):
    config_class = OwnConfig
"""


def test_code_that_comes_with_a_model_runs_only_when_asked_for(tmp_path, monkeypatch):
    folder, harm = tmp_path / "model", tmp_path / "harm"
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    loading.save(loading.load("tiny-opt"), folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(CODE.format(harm=str(harm)))
    with pytest.raises(ValueError, match="only with --trust-remote-code"):
        loading.load(str(folder))
    assert not harm.exists()
    with pytest.raises(ValueError, match="only with --trust-remote-code"):
        Loop.of(options(tmp_path, model=str(folder)))
    assert not harm.exists() and not (tmp_path / "run").exists()
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "modules")])
    loading.load(str(folder), trust_remote_code=True)
    assert harm.exists()


def test_a_folder_that_is_not_there_is_told_where_the_hub_does_not_know_it_either(monkeypatch):
    def unknown(*_, **__):
        raise OSError("no such repository")

    monkeypatch.setattr(loading, "_tokenizer", unknown)
    with pytest.raises(ValueError, match=r"no folder here has that name.*no such repository"):
        loading.load("runs/nothere")


def test_the_hub_is_not_asked_about_folders_and_typos(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("socket.socket.connect", lambda *a: asked.append(a))
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: asked.append(a) or [])
    loading.save(loading.load("tiny-opt"), tmp_path / "model")
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / "model" / name).rename(tmp_path / name)
        with pytest.raises(ValueError, match="could not be loaded"):
            loading.load(str(tmp_path / "model"))
        (tmp_path / name).rename(tmp_path / "model" / name)
    for name in ("tiny-optt", "smollm2-135m-instrct", "", "a\0b"):
        with pytest.raises(ValueError, match="tiny-opt"):
            loading.load(name)
    assert not asked


def test_a_configuration_file_does_not_say_where_to_write(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for out in ("../elsewhere", str(tmp_path / "elsewhere"), "x/../../elsewhere", ".", "a\\u0000b"):
        (tmp_path / "c.toml").write_text(f'out = "{out}"\n')
        with pytest.raises(SystemExit):
            main(["train", "--config", str(tmp_path / "c.toml")])
        assert "out in " in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.toml", "here"]
