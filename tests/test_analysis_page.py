"""analysis: the page of the report, its files, and how its command ends."""

import re
from pathlib import Path

import pytest
from fabricated import bias_rows, every_kind, folder

from analysis.__main__ import main

pytestmark = pytest.mark.environment

ABSENT = [f"synthetic {name}" for name in ("design", "phase", "descent", "epsilon")]  # see test_analysis_theory
ABSENT += [f"llm {name}" for name in ("noise", "bench", "profile", "rounding")]  # and test_analysis_speed


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return every_kind(tmp_path / "runs")


def report(folders: list[Path], out: Path) -> str:
    assert main(["report", *map(str, folders), "--out", str(out)]) == 0
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same folder for tests that only read, and its report."""
    root = tmp_path_factory.mktemp("every")
    page = root / "one" / "report.html"
    report([every_kind(root / "runs")], page)
    return root / "runs", page


def test_the_page_has_all_sections_stands_alone_and_is_the_same_twice(
    reported: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, file = reported
    one, two, page = file.parent, tmp_path, file.read_text(encoding="utf-8")
    for key in ("bias", "mse", "kernels", "convergence", "finetuning", "runs"):
        assert f'<section id="{key}">' in page
    assert re.findall(r"<code>python -m (.*?)</code>", page.split('id="absent"')[1]) == ABSENT
    assert "https://" not in page
    assert "http://" not in page
    assert "<script" not in page
    assert re.findall(r'(?:src|href)="(?!data:|#)', page) == []
    assert "kerzoo 4.000" in page
    assert "null control" in page
    report([runs], two / "report.html")
    assert str(two / "report.html") in capsys.readouterr().out
    names = sorted(file.relative_to(one) for file in one.rglob("*.*"))
    stems = ("bias", "mse", "kernels", "convergence", "finetuning-tiny", "finetuning-accuracy", "lead", "lead-narrow")
    assert {name.name for name in names} == {
        "report.html",
        *(f"{stem}.{end}" for stem in stems for end in ("png", "svg", "pdf")),
    }
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_sections_without_rows_are_one_last_line_with_the_commands_that_make_them(runs: Path, tmp_path: Path) -> None:
    page = report([runs / "kernels"], tmp_path / "report.html")
    assert re.findall(r'<section id="([a-z]+)">', page) == ["lead", "kernels", "runs"]
    last = page.split('id="absent"')[1]
    for command in ("python -m synthetic bias", "python -m synthetic converge", "python -m llm train"):
        assert last.count(f"<code>{command}</code>") == 1


def test_figures_open_large_have_words_and_are_offered_as_pdf(reported: tuple[Path, Path]) -> None:
    page = reported[1].read_text(encoding="utf-8")
    figures = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
    assert len(figures) == page.count("<img") == 7
    for figure in figures:
        name = re.search(r'<figure id="(.*?)"', figure)[1]
        assert f'href="#{name}"' in figure
        assert re.search(r'alt="[^"]{10,}"', figure)
        assert "data:application/pdf;base64,JVBERi0" in figure


def test_what_rounding_leaves_of_no_bias_is_no_disagreement(tmp_path: Path) -> None:
    rows = bias_rows("mezo", 2, "quadratic", 0.0)
    for row in rows:
        if row["sampling"] == "controlled":
            row |= {"bias": 3e-15, "floor": 1e-16, "bias_deviation": 30.0}
    page = report([folder(tmp_path / "bias", rows)], tmp_path / "report.html")
    assert "all 5 controlled measurements are 0 up to rounding" in page
    assert "10 of 10 measured bias vectors" in page
    assert "30.00" not in page


def test_text_from_rows_is_escaped(tmp_path: Path) -> None:
    rows = [row | {"prediction_terms": "<script>alert(1)</script>"} for row in bias_rows("mezo", 2)]
    assert "<script" not in report([folder(tmp_path / "bias", rows)], tmp_path / "report.html")


def test_errors_end_with_status_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m analysis report: no folder")
    assert error.count("\n") == 1
