from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from docs.site.notebook import executed, page

TOUR = Path(__file__).parents[1] / "docs" / "tour.ipynb"


def written(folder: Path, *sources: str) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    file = folder / "small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), file)
    return file


@pytest.mark.exhaustive
def test_the_tour_runs_without_a_warning_and_its_assertions_hold() -> None:
    cells = executed(TOUR, TOUR.parent).cells
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert any("equal to the bit" in output.get("text", "") for output in outputs)


def test_the_tour_is_kept_without_outputs() -> None:
    cells = [cell for cell in nbformat.read(TOUR, as_version=4).cells if cell.cell_type == "code"]
    assert cells and all(not cell.outputs and cell.execution_count is None for cell in cells)


@pytest.mark.parametrize(
    ("source", "told"),
    [("assert 1 + 1 == 3, 'it is two'", "it is two"), ("import warnings; warnings.warn('careful')", "careful")],
)
def test_a_false_assertion_and_a_warning_are_errors(tmp_path: Path, source: str, told: str) -> None:
    with pytest.raises(CellExecutionError, match=told):
        executed(written(tmp_path, source), tmp_path)


def test_a_page_shows_sources_and_outputs(tmp_path: Path) -> None:
    page(written(tmp_path, "print('seen')\n6 * 7"), tmp_path)
    text = (tmp_path / "small.md").read_text()
    assert text == "```python\nprint('seen')\n6 * 7\n```\n\n```text\nseen\n```\n\n```text\n42\n```\n"
