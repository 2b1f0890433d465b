"""What a model, a name or a configuration file from anywhere may not do."""

import json
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llm.__main__ import main
from llm.loop.loop import Loop
from llm.model import loading
from llm.options.train import TrainOptions

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


@pytest.fixture
def sharded(tmp_path):
    """A model whose index names the file that is given, and a file of each name, pickled."""
    folder = tmp_path / "model"
    loading.save(loading.load("tiny-opt"), folder)
    tensors = load_file(folder / "model.safetensors")

    def names(shard, pickled=True):
        index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, shard)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        (folder / "model.safetensors").unlink(missing_ok=True)
        if isinstance(shard, str):
            (folder / "sub").mkdir(exist_ok=True)
            (torch.save if pickled else save_file)(tensors, folder / shard)
        return str(folder)

    return names


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ("weights.dat", "from .safetensors in the model's own folder alone"),
        ("pytorch_model.bin", "pickles can run code and are never read"),
        ("sub/WEIGHTS.PT", "pickles can run code and are never read"),
        ("../outside.bin", "pickles can run code and are never read"),
        ("../outside.safetensors", "in the model's own folder alone"),
        ("sub/../../outside.safetensors", "in the model's own folder alone"),
        (".\\..\\outside.safetensors", "in the model's own folder alone"),
        ("C:outside.safetensors", "in the model's own folder alone"),
        (3, "in the model's own folder alone"),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_an_index_names_safetensors_of_its_folder_alone(shard, message, beside, sharded):
    folder = Path(sharded(shard))
    if beside:
        (folder / "other.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=rf"index\.json names .*{message}"):
        loading.load(str(folder))


def test_an_index_that_names_an_absolute_path_or_is_none_is_refused(sharded, tmp_path):
    with pytest.raises(ValueError, match="in the model's own folder alone"):
        loading.load(sharded(str(tmp_path / "outside.safetensors"), pickled=False))
    folder = sharded("x.safetensors", pickled=False)
    for text in ("[]", "3", "{}", '{"weight_map": []}', "[" * 100_000, "{", "\ud800".encode("utf-8", "surrogatepass")):
        text = text if isinstance(text, bytes) else text.encode()
        (Path(folder) / "model.safetensors.index.json").write_bytes(text)
        with pytest.raises(ValueError, match=r"index\.json: (wanted a|not a?) ?JSON"):
            loading.load(folder)


def test_shards_in_the_folder_and_below_it_are_read(sharded):
    wanted = loading.load("tiny-opt").model.state_dict()
    for shard in ("a.safetensors", "sub/a.safetensors"):
        found = loading.load(sharded(shard, pickled=False)).model.state_dict()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_what_transformers_would_unpickle_is_refused_where_the_names_were_not_seen(sharded, monkeypatch):
    """As of a repository of the hub, whose files come one by one."""
    usual = torch.load
    monkeypatch.setattr("llm.model.files.require_safe", lambda *_: None)
    with pytest.raises(ValueError, match="is a pickle: pickles can run code"):
        loading.load(sharded("weights.dat"))
    assert torch.load is usual


def test_a_configuration_names_no_pickle_no_place_and_no_kernel(tmp_path):
    folder = tmp_path / "model"
    loading.save(loading.load("tiny-opt"), folder)
    kept = json.loads((folder / "config.json").read_text())
    torch.save(dict(load_file(folder / "model.safetensors")), folder / "adapter_model.bin")
    for changes, message in (
        ({"transformers_weights": "adapter_model.bin"}, "pickles can run code"),
        ({"transformers_weights": "../model.safetensors"}, "in the model's own folder alone"),
        ({"attn_implementation": "somebody/kernel"}, "attn_implementation .* 'somebody/kernel', code from the hub"),
        ({"attn_implementation": "somebody/kernel@main:f"}, "code from the hub"),
    ):
        (folder / "config.json").write_text(json.dumps(kept | changes))
        for read in (loading.load, loading.skeleton):
            with pytest.raises(ValueError, match=message):
                read(str(folder))
    (folder / "config.json").write_text(json.dumps(kept | {"attn_implementation": "eager"}))
    loading.load(str(folder))


def test_a_link_brings_no_file_of_the_user_into_what_is_written(tmp_path):
    folder, secret = tmp_path / "model", tmp_path / "secret"
    loading.save(loading.load("tiny-opt"), folder)
    secret.write_text("a key")
    (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
    (folder / "model.safetensors").symlink_to(tmp_path / "model.safetensors")  # weights may lie elsewhere
    (folder / "inner.json").symlink_to("config.json")
    loading.load(str(folder))
    (folder / "chat_template.jinja").symlink_to(secret)
    with pytest.raises(ValueError, match=r"chat_template\.jinja is a link that leads out of the folder"):
        loading.load(str(folder))


def test_the_cache_of_the_hub_is_a_folder_of_links(tmp_path):
    plain, cache = tmp_path / "model", tmp_path / "models--a--b"
    loading.save(loading.load("tiny-opt"), plain)
    (cache / "snapshots/1").mkdir(parents=True)
    plain.rename(cache / "blobs")
    for file in (cache / "blobs").iterdir():
        (cache / "snapshots/1" / file.name).symlink_to(f"../../blobs/{file.name}")
    loading.load(str(cache / "snapshots/1"))


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
        loading.load("somebody/nothere")


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
