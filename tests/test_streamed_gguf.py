"""Engine streamed on GGUF files: their codes, or dequantised, a layer at a time, with the bits of in-forward."""

import os

import pytest
import test_streamed
import torch
from test_streamed import contents_of
from test_streamed_quantised import quantised, require_equal

from llm.__main__ import main
from llm.cost.streamed import in_memory
from llm.dry_run import dry_run
from llm.loop.loop import Loop
from llm.loop.train import train
from llm.model import loading, streaming
from llm.model.mapped import blocks_of
from llm.quantised import Choice, Quantised, gguf_file
from llm.quantised.model import planned_bytes
from tests import gguf_files
from tests.interrupted import gone
from zobench.space.streamed import layers_of

pytestmark = pytest.mark.usefixtures("one_thread")
KEPT = Choice("gguf")


@pytest.fixture
def written(tmp_path):
    def write(*types):
        (tmp_path / "file").mkdir()
        gguf_files.write(tmp_path / "file/tiny.gguf", *types)
        return str(tmp_path / "file/tiny.gguf")

    return write


@pytest.mark.parametrize(
    ("types", "trained"),
    [(("Q4_1",), ()), (("Q8_0",), ()), (("Q4_0",), ()), (("Q4_1", "F16"), ("*.scales", "*.zeros"))],
)
def test_losses_and_scales_on_the_codes_of_a_file_are_those_of_in_forward_to_the_bit(written, tmp_path, types, trained):
    place = written(*types)
    mapped = streaming.load(place, beside=tmp_path, evict=True, quantize=KEPT)
    held = loading.load(place, quantize=KEPT)
    assert mapped.weights == held.weights and os.listdir(tmp_path) == ["file"]
    require_equal(held.model, mapped.model, trained)
    blocks = blocks_of(mapped.model)
    assert len(blocks.files) == 2
    own = {t.data_ptr() for file in blocks.all for t in file.tensors.values()}
    parts = [m for m in mapped.model.modules() if isinstance(m, Quantised)]
    assert all(t.data_ptr() in own for layer in parts for t in (layer.codes, layer.scales))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("types", [("Q4_1",), ("Q5_0", "Q5_1")])  # --quantize gguf takes no Q5_0
def test_a_dequantised_file_is_that_of_in_forward_to_the_bit(written, tmp_path, monkeypatch, dtype, types):
    monkeypatch.setattr(gguf_file, "TILE", 640)  # ten rows at a time
    place = written(*types)
    held, mapped = loading.load(place, dtype=dtype).model, streaming.load(place, dtype=dtype, beside=tmp_path).model
    assert all(torch.equal(a, b) for a, b in zip(held.buffers(), mapped.buffers(), strict=True))
    steps = [test_streamed.stepped(m, e, 3) for m, e in ((held, "in-forward"), (mapped, "streamed"))]
    test_streamed.require_equal(*steps)


def test_a_file_is_dequantised_and_rounded_layer_by_layer(written, tmp_path):
    place, choice = written("Q8_0", "F32"), Choice("int4")
    require_equal(
        loading.load(place, quantize=choice).model, streaming.load(place, beside=tmp_path, quantize=choice).model
    )


@pytest.mark.parametrize("choice", [KEPT, None])
def test_tensors_are_unpacked_when_their_layer_is_written(written, tmp_path, monkeypatch, choice):
    seen, fill = [], gguf_file.Filling.__call__

    def blank(part):
        return all(t.is_meta for name, t in part.state_dict().items() if "weight" in name or "codes" in name)

    def filled(self, part):
        layers = layers_of(self.model)
        seen.append([blank(layer) for layer in layers])
        fill(self, part)
        assert not blank(part)

    monkeypatch.setattr(gguf_file.Filling, "__call__", filled)
    streaming.load(written(), beside=tmp_path, quantize=choice)
    assert seen == [[True, True], [False, True], [False, False]]


def test_a_run_on_the_codes_of_a_file_ends_resumes_replays_and_is_exported_as_in_forward(written, tmp_path, capsys):
    place = written()
    folder = tmp_path / "run"
    whole, mapped = (quantised(place, folder / e, engine=e, quantize="gguf") for e in ("in-forward", "streamed"))
    before = contents_of(tmp_path / "file")
    gone(Loop.of(mapped), stop=3)
    finals = [train(whole), train(mapped)]
    names = ("fingerprint", "test_loss", "dev_loss", "selected_step")
    assert [finals[0][name] for name in names] == [finals[1][name] for name in names]
    assert main(["journal", "replay", str(folder / "streamed")]) == 0
    assert "equal to the bit" in capsys.readouterr().out
    for engine in ("in-forward", "streamed"):
        assert main(["export", str(folder / engine), "--to", str(folder / f"{engine}-out"), "--format", "gguf"]) == 0
    files = [(folder / f"{e}-out" / "model.gguf").read_bytes() for e in ("in-forward", "streamed")]
    assert files[0] == files[1] and contents_of(tmp_path / "file") == before


def test_the_dry_run_knows_blocks_and_disk_of_a_file(written, tmp_path, capsys):
    place = written()
    blank = loading.skeleton(place, gguf_codes=True).model
    model = streaming.load(place, beside=tmp_path, quantize=KEPT).model
    assert in_memory(blank) == in_memory(model)
    assert blocks_of(model).size == pytest.approx(planned_bytes(blank, wide=True), rel=0.1)  # headers of tiny files
    for quantize in ("gguf", None):
        dry_run.run(quantised(place, tmp_path / "out", quantize=quantize, clip=None))
        said = capsys.readouterr().out
        assert f"{os.path.getsize(place) / 1024:.3g} KiB of the model" in said and "2 of 2 blocks" in said


def test_what_cannot_be_read_of_a_file_is_refused_before_anything_is_written(written, tmp_path, monkeypatch):
    place = written()
    processors = loading.gguf_reader.TENSOR_PROCESSORS
    monkeypatch.setitem(processors, "llama", processors["gpt2"])
    for choice, way in ((KEPT, "leave --quantize out"), (None, r"give --engine in-forward, .* export FILE")):
        with pytest.raises(ValueError, match=f"architecture llama changes its matrices .*: {way}"):
            streaming.load(place, beside=tmp_path, quantize=choice)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("choice", [KEPT, None])
def test_a_file_that_lacks_a_tensor_or_has_another_shape_is_refused(written, tmp_path, monkeypatch, choice):
    place, names = written(), loading.gguf_reader.get_gguf_hf_weights_map

    def renamed(change):
        monkeypatch.setattr(
            loading.gguf_reader, "get_gguf_hf_weights_map", lambda *a, **k: change(dict(names(*a, **k)))
        )

    renamed(lambda found: {k: v for k, v in found.items() if k != "blk.1.ffn_norm.weight"})
    with pytest.raises(ValueError, match=r"tiny.gguf lacks 1 tensors of the model, .*1.post_attention_layernorm"):
        streaming.load(place, beside=tmp_path, quantize=choice)
    swap = {"blk.0.attn_k.weight": "model.layers.0.mlp.up_proj.weight"}
    renamed(lambda found: found | swap)
    with pytest.raises(ValueError, match=r"up_proj.weight is \(32, 64\) in the file, but \(96, 64\)"):
        streaming.load(place, beside=tmp_path, quantize=choice)
    assert os.listdir(tmp_path) == ["file"]
