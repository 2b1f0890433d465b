"""The tour: a notebook executed, and shown as a page."""

import base64
import os
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client import KernelManager
from nbclient import NotebookClient

SECONDS = 300
INLINE = "module://matplotlib_inline.backend_inline"
STRICT = "import warnings; warnings.simplefilter('error'); warnings.filterwarnings('ignore', module='ipykernel')"


def executed(file: Path, folder: Path) -> Any:
    """Return the notebook with the outputs of a fresh kernel that runs in `folder`; a warning of a cell is an error.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raises; the message has its traceback.
    """
    notebook = nbformat.read(file, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(STRICT))
    with tempfile.TemporaryDirectory() as sockets:
        kernel = KernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel")
        place = {"metadata": {"path": str(folder)}}
        env = {**os.environ, "IPYTHONDIR": sockets, "MPLBACKEND": INLINE}  # whatever the user has set
        NotebookClient(notebook, kernel, timeout=SECONDS, resources=place).execute(cleanup_kc=True, env=env)
    del notebook.cells[0]
    return notebook


def page(file: Path, folder: Path) -> None:
    """Write the executed notebook to `folder` as a page and its pictures."""
    parts = []
    for number, cell in enumerate(executed(file, file.parent).cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        parts += [_output(output, folder, f"{file.stem}-{number}") for output in cell.outputs]
    (folder / f"{file.stem}.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _output(output: Any, folder: Path, name: str) -> str:
    if output.output_type == "stream":
        return f"```text\n{output.text.rstrip()}\n```"
    if "image/png" in output.data:
        (folder / f"{name}.png").write_bytes(base64.b64decode(output.data["image/png"]))
        return f"![]({name}.png)"
    return f"```text\n{output.data['text/plain']}\n```"
