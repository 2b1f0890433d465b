"""The working copy of a model: its parameters and codes in memory-mapped files, a file for each layer."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from llm.model.free_memory import give_back
from llm.model.mapped import MappedBlocks, MappedFile, remember
from llm.quantised import codes_of, widen_
from llm.quantised.blank import replace_tensors_
from zobench.space.streamed import layers_of

HELD = "give --engine in-forward, which holds the model in memory"


def require_room(folder: Path, size: int) -> None:
    """Raise ValueError if a working copy of so many bytes does not fit on the disk of a folder."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ValueError(
            f"the working copy of the weights takes {size / 2**30:.3g} GiB, but {free / 2**30:.3g} GiB are free below "
            f"{folder}: give another --out, or {HELD}"
        )


def move_(model: Any, beside: Path, evict: bool, fill: Callable[[nn.Module], None] = lambda part: None) -> None:
    """Move the parameters and codes of a model into mapped files, layer by layer, and then those of no layer. `fill` is
    called before with each layer, and at last with the model, to bring numbers into them, or to change them: so no more
    than a layer, or what is in none, is in memory at once. Scales and zero points become float32, which steps write.

    Raises:
        OSError: no space, or the like.
    """
    files: dict[int, MappedFile] = {}
    moved: dict[int, Tensor] = {}
    folder = Path(tempfile.mkdtemp(prefix=".streamed-", dir=beside))
    try:
        for k, part in (*enumerate(layers_of(model)), (-1, model)):
            fill(part)
            widen_(part)
            own = {id(t): t for t in (*part.parameters(), *codes_of(part).values()) if id(t) not in moved}
            if own:
                files[k] = _mapped(folder / f"{k}.safetensors", own)
                moved |= _replaced(model, own, files[k])
            del own  # the next layer comes where this one was
            give_back()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rest = files.pop(-1, None)
    remember(model, MappedBlocks(files, rest, evict))


def _mapped(name: Path, tensors: Mapping[int, Tensor]) -> MappedFile:
    file = MappedFile(name, {str(key): t.detach().contiguous() for key, t in tensors.items()})
    file.drop()
    return file


def _replaced(model: nn.Module, old: Mapping[int, Tensor], file: MappedFile) -> dict[int, Tensor]:
    """The tensors of the file by identity, now those of the model wherever it had the old ones."""
    new: dict[int, Any] = {key: file.tensors[str(key)] for key in old}
    new |= {key: nn.Parameter(new[key], p.requires_grad) for key, p in old.items() if isinstance(p, nn.Parameter)}
    replace_tensors_(model, new)
    return {id(tensor): tensor for tensor in new.values()}
