"""Models whose files of weights lack something, have too much, or belong to another model."""

import json
import os
from pathlib import Path

import pytest
import tiny_models
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForPreTraining,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

from llm.__main__ import main
from llm.export.command import _aside
from llm.model import loading

pytestmark = pytest.mark.usefixtures("one_thread")

FILE = "model.safetensors"


def kept(folder, kind, maker=AutoModelForCausalLM, **changes):
    """A folder with a random model, as its class saves it."""
    options = {**tiny_models.SHAPE, **tiny_models.WIDE, **tiny_models.CAUSAL.get(kind, {"intermediate_size": 32})}
    maker.from_config(AutoConfig.for_model(kind, **{**options, **changes})).save_pretrained(folder)
    tokenizer = tiny_models.masked_tokenizer() if kind in tiny_models.MASKED else tiny_models.byte_level()
    tokenizer.save_pretrained(folder)
    return str(folder)


def changed(folder, change):
    """The folder with other tensors in its file."""
    tensors = load_file(f"{folder}/{FILE}")
    save_file(change(tensors), f"{folder}/{FILE}", {"format": "pt"})
    return folder


def told(folder, **changes):
    """The folder with another configuration."""
    file = folder + "/config.json"
    with open(file) as text:
        config = {**json.load(text), **changes}
    with open(file, "w") as text:
        json.dump({name: value for name, value in config.items() if value is not None}, text)
    return folder


def prefixed(prefix):
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


def holes(tensors):
    return {name: tensor for name, tensor in tensors.items() if "layers.1.mlp" not in name}


def narrower(tensors):
    return tensors | {"model.norm.weight": torch.ones(5)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            holes,
            "missing from the file of weights: 3 of the 21 .*layers.1.mlp.down_proj.weight.* download the folder again",
        ),
        (lambda tensors: {"other": torch.ones(1)}, "weights: 21 of the 21 tensors of LlamaForCausalLM"),
        (prefixed("_orig_mod."), "'_orig_mod.' in them: save the model within"),
        (prefixed("module."), "'module.' in them: save the model within"),
        (prefixed("backbone."), "'backbone.' in them: take it out"),
        (lambda t: {name.replace("model.", "model._orig_mod."): v for name, v in t.items()}, "'_orig_mod.' in them"),
        (lambda t: {name.replace("q_proj", "q_proj.base_layer"): v for name, v in t.items()}, "merge_and_unload"),
        (narrower, r"model.norm.weight is \(5,\) in the file of weights, but \(16,\)"),
        (lambda t: t | {"model.layers.0.self_attn.q_proj.bias": torch.ones(16)}, "q_proj.bias"),
    ],
)
def test_a_model_that_the_file_does_not_fill_is_refused(tmp_path, change, words):
    folder = kept(tmp_path / "m", "llama")
    loading.load(folder)
    with pytest.raises(ValueError, match=words):
        loading.load(changed(folder, change))


def test_a_file_of_weights_that_is_none_is_told(tmp_path):
    folder = kept(tmp_path / "m", "llama")
    (tmp_path / "m" / FILE).write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"its file of weights is damaged .*git lfs.*: fetch it again"):
        loading.load(folder)


def test_a_file_with_more_layers_than_the_configuration_is_refused(tmp_path):
    folder = told(kept(tmp_path / "m", "llama"), num_hidden_layers=1)
    with pytest.raises(ValueError, match=r"9 tensors of layers that config\.json does not describe"):
        loading.load(folder)


@pytest.mark.parametrize(
    ("kind", "maker", "words"),
    [
        ("roberta", AutoModelForSequenceClassification, "saved as RobertaForSequenceClassification"),
        ("bert", AutoModel, "weights: 6 of the .* tensors of BertForMaskedLM .*saved as BertModel"),
        ("llama", AutoModel, r"lm_head.weight.*saved as LlamaModel"),
        ("bart", AutoModelForSeq2SeqLM, r"encoder-decoder \(BartForConditionalGeneration\): give a model that"),
        ("t5", AutoModelForSeq2SeqLM, r"encoder-decoder \(T5ForConditionalGeneration\): give a model that"),
        ("vit", AutoModel, "ViTModel neither continues texts nor fills masks"),
    ],
)
def test_a_model_of_another_task_is_refused_in_one_line(tmp_path, kind, maker, words, capsys):
    small = {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 1, "encoder_layers": 1, "decoder_layers": 1}
    folder = kept(tmp_path / "m", kind, maker, **(small if kind in ("bart", "t5") else {}))
    with pytest.raises(ValueError, match=words) as caught:
        loading.load(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert capsys.readouterr().err == ""


def test_the_exit_status_is_that_of_a_users_fault(tmp_path, capsys):
    folder = changed(kept(tmp_path / "m", "llama"), holes)
    for command in ("evaluate", "train", "noise"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--model", folder, "--out", str(tmp_path / "run")])
        assert ended.value.code == 2 and "missing from the file of weights" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_head_of_a_classifier_is_left_out_with_a_word(tmp_path, capsys):
    folder = kept(tmp_path / "m", "llama", AutoModelForSequenceClassification, tie_word_embeddings=True)
    loaded = loading.load(folder)
    assert "saved as LlamaForSequenceClassification" in loaded.weights and "score.weight" in loaded.weights
    assert "score.weight" in capsys.readouterr().err
    states = load_file(f"{folder}/{FILE}")
    assert torch.equal(loaded.model.get_output_embeddings().weight, states["model.embed_tokens.weight"])


@pytest.mark.parametrize("changes", [{"architectures": None}, {"tie_word_embeddings": True}])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_whole_models_load_without_a_word(tmp_path, kind, changes, capsys):
    folder = told(kept(tmp_path / "m", kind, **{"tie_word_embeddings": False} | changes), **changes)
    assert loading.load(folder).weights == "folder m" and capsys.readouterr().err == ""


def test_constants_of_older_versions_are_no_layers(tmp_path):
    old = {"transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}
    folder = changed(kept(tmp_path / "m", "gpt2"), lambda tensors: tensors | old)
    assert "masked_bias" in loading.load(folder).weights


def test_a_model_whose_attention_looks_ahead_fills_masks(tmp_path):
    assert loading.load(told(kept(tmp_path / "a", "bert", AutoModelForPreTraining), architectures=None)).masked
    assert loading.load(kept(tmp_path / "b", "bert", AutoModelForPreTraining)).masked
    folder = kept(tmp_path / "c", "bert")  # BertLMHeadModel
    with pytest.raises(ValueError, match="its attention looks ahead"):
        loading.load(folder)
    assert not loading.load(told(folder, is_decoder=True)).masked


def test_a_folder_with_a_model_and_an_adapter_is_refused(tmp_path):
    folder = kept(tmp_path / "m", "llama")
    (tmp_path / "m/adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="give each a folder of its own"):
        loading.load(folder)


def test_what_is_saved_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, named, fsync = set(), {}, os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.add(os.fstat(descriptor).st_ino), fsync(descriptor)))

    def watched(move):
        def moved(place, goal):
            inside = [*place.rglob("*"), place] if place.is_dir() else [place]
            named.update({each.name: each.stat().st_ino in synced for each in inside})
            return move(place, goal)

        return moved

    for name in ("replace", "rename"):
        monkeypatch.setattr(Path, name, watched(getattr(Path, name)))
    loading.save(loading.load("tiny-opt"), tmp_path / "m")
    with _aside(tmp_path / "e") as aside:
        (aside / "zobench").mkdir()
        (aside / "zobench" / "config.toml").touch()
    assert {FILE, "config.json", "tokenizer.json", "config.toml", "e.part"} <= named.keys() and all(named.values())
    assert {(tmp_path / "m").stat().st_ino, tmp_path.stat().st_ino} <= synced
