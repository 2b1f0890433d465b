"""The tour: a notebook executed, and shown as a page."""

import base64
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client import KernelManager
from nbclient import NotebookClient

SECONDS = 300
STRICT, LENIENT = "simplefilter('error')", "resetwarnings()"


def executed(file: Path, folder: Path) -> Any:
    """Return the notebook with the outputs of a fresh kernel that runs in `folder`; a warning of a cell is an error.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raises; the message has its traceback.
    """
    notebook = nbformat.read(file, as_version=4)
    around = [nbformat.v4.new_code_cell(f"import warnings; warnings.{word}") for word in (STRICT, LENIENT)]
    notebook.cells = [around[0], *notebook.cells, around[1]]
    kernel = KernelManager(kernel_name="python3", transport="ipc")
    NotebookClient(notebook, kernel, timeout=SECONDS, resources={"metadata": {"path": str(folder)}}).execute(
        cleanup_kc=True
    )
    notebook.cells = notebook.cells[1:-1]
    return notebook


def page(file: Path, folder: Path) -> None:
    """Write the executed notebook to `folder` as a page and its pictures."""
    parts = []
    for number, cell in enumerate(executed(file, file.parents[1]).cells):
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
