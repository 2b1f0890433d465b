"""`python -m analysis figure`: every kind, from committed rows and from those of other programs."""

import re
from pathlib import Path

import pandas as pd
import pytest
from fabricated import bias_rows, converge_rows, folder
from matplotlib.figure import Figure
from matplotlib.text import Text
from test_figures import cut, laid_out, overlaps

from analysis import figures
from analysis.__main__ import main
from analysis.drawings import DRAWINGS, only
from analysis.kinds import KINDS
from analysis.rows import ReadError, Results, read, tidy
from zobench.figures.sheet import WIDTHS, Sheet, printed_on

ROOT = Path(__file__).parents[1]
ROWS = {"convergence": "converge", "phase": "phase", "kernels": "kernels"}


def rows_of(kind: str) -> Path:
    name = ROWS.get(kind, "spam/seeds" if kind in ("finetuning", "accuracy") else "bias")
    return ROOT / "results" / name


def frame(**columns: object) -> pd.DataFrame:
    usual = {"method": ["mezo", "mezo", "mine", "mine"], "problem": "quartic", "dim": 8, "sampling": "plain"}
    values = {"epsilon": [0.1, 0.4] * 2, "bias": [0.01, 0.16, 0.02, 0.32], "bias_error": 1e-3}
    return pd.DataFrame(usual | values | columns)


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("kind", [kind for kind in DRAWINGS if kind not in ("cosine", "phase")])
def test_a_figure_is_legible_on_one_and_on_two_columns(kind: str, columns: str) -> None:
    results = read([rows_of(kind)])
    with printed_on(Sheet(width=WIDTHS[columns])):
        for _, figure in DRAWINGS[kind].draw(results):
            laid_out(figure)
            assert figure.get_figwidth() == WIDTHS[columns]
            assert cut(figure) == [] and overlaps(figure) == []


def test_a_map_asks_for_two_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figure", "phase", str(rows_of("phase")), "--out", str(tmp_path / "a.svg"), "--columns", "one"]) == 2
    assert "give it two columns" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["pdf", "svg", "png"])
def test_the_suffix_is_the_format_and_the_same_rows_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    path = folder(tmp_path / "run", bias_rows("mezo", 2))
    files = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for file in files:
        assert main(["figure", "bias", str(path), "--out", str(file)]) == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes().startswith({"pdf": b"%PDF", "svg": b"<?xml", "png": b"\x89PNG"}[suffix])


def test_csv_and_json_lines_of_other_programs_are_drawn_as_frames_are(tmp_path: Path) -> None:
    rows, out = frame(note="a column that no figure knows"), []
    rows.to_csv(tmp_path / "rows.csv", index=False)
    rows.to_json(tmp_path / "mine.jsonl", orient="records", lines=True)
    for name in ("rows.csv", "mine.jsonl"):
        out.append(tmp_path / f"{name}.svg")
        assert main(["figure", "bias", str(tmp_path / name), "--out", str(out[-1])]) == 0
    assert out[0].read_text() == out[1].read_text()
    assert "mine" in words(figures.bias(rows))


def test_labels_order_colours_and_subset(tmp_path: Path) -> None:
    rows = frame()
    asked = Sheet(names={"mine": "This paper"}, order=["mine"], colours={"mine": "red"})
    with printed_on(asked):
        figure = figures.bias(rows)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[:2] == ["This paper", "mezo"]
    assert figure.legends[0].get_lines()[0].get_color() == "#ff0000"
    results = read([folder(tmp_path / "run", [*bias_rows("mezo", 2), *bias_rows("kerzoo", 4)])])
    kept = only(results, "bias", {"method": ["mezo"], "epsilon": ["0.10", "1"]}).of("bias")
    assert set(kept["method"]) == {"mezo"} and set(kept["epsilon"]) == {0.1, 1.0}


def test_a_style_file_comes_before_ours_and_a_settings_file_after_the_command_line(tmp_path: Path) -> None:
    rows, style, settings = tmp_path / "rows.csv", tmp_path / "paper.mplstyle", tmp_path / "figure.toml"
    frame().to_csv(rows, index=False)
    style.write_text("svg.fonttype: none\n")
    settings.write_text(f'style = "{style}"\n[labels]\nmine = "This paper"\nmezo = "MeZO"\n')
    command = ["figure", "bias", str(rows), "--settings", str(settings), "--label", "mezo=Malladi et al."]
    assert main([*command, "--out", str(tmp_path / "a.svg")]) == 0
    svg = (tmp_path / "a.svg").read_text()
    assert "This paper" in svg and "Malladi et al." in svg and ">MeZO<" not in svg


def test_own_axes_are_drawn_in() -> None:
    mine = Figure()
    axes = mine.subplots(1, 2, squeeze=False)[0]
    assert figures.bias(frame(), axes[:1]) is mine
    assert axes[0].get_yscale() == "log" and axes[0].get_legend() is not None and not axes[1].lines
    with pytest.raises(ValueError, match="2 axes for 1 panels"):
        figures.bias(frame(), axes)


def test_cosines_are_drawn_beside_their_prediction() -> None:
    figure = figures.cosine(frame(cosine=[0.3, 0.31, 0.2, 0.2], cosine_error=0.01, predicted_cosine=0.3))
    assert figure.axes[0].get_ylim()[0] == 0.0
    heights = [line.get_ydata() for line in figure.axes[0].lines if line.get_linestyle() != "None"]
    assert [0.3, 0.3] in [list(map(float, height)) for height in heights]


def test_convergence_of_a_frame_without_a_known_minimum() -> None:
    rows = pd.DataFrame(converge_rows("mine", 0.1)).drop(columns="gap")
    assert figures.convergence(rows).axes[0].get_ylabel() == "loss (no minimum known)"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "a.tiff"], "end it in one of .pdf"),
        (["--out", "a.pdf", "--columns", "three"], "give one, two, or a width"),
        (["--out", "a.pdf", "--columns", "200"], "200 inches"),
        (["--out", "a.pdf", "--colour", "mezo=blau"], "'blau'"),
        (["--out", "a.pdf", "--label", "mezo"], "give NAME=VALUE"),
        (["--out", "a.pdf", "--only", "methode=mezo"], "no such column"),
        (["--out", "a.pdf", "--only", "method=mesu"], "rows have mezo, mine"),
        (["--out", "a.pdf", "--style", "nowhere.mplstyle"], "no Matplotlib style"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    frame().to_csv(tmp_path / "rows.csv", index=False)
    assert main(["figure", "bias", str(tmp_path / "rows.csv"), *arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith("python -m analysis figure: ") and told.count("\n") == 1 and said in told


@pytest.mark.parametrize(
    ("text", "said"),
    [("colums = 1", "colums is no setting"), ("order = 3", "a list of labels"), ("= 3", "no settings of a figure")],
)
def test_a_settings_file_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str) -> None:
    frame().to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "figure.toml").write_text(text)
    command = ["figure", "bias", str(tmp_path / "rows.csv"), "--settings", str(tmp_path / "figure.toml")]
    assert main([*command, "--out", str(tmp_path / "a.pdf")]) == 2
    assert said in capsys.readouterr().err


def test_a_missing_column_and_a_missing_quantity_are_named() -> None:
    with pytest.raises(ReadError, match="'bias_error'"):
        figures.bias(frame().drop(columns="bias_error"))
    with pytest.raises(ReadError, match="'mse'"):
        list(DRAWINGS["mse"].draw(Results((), {"bias": tidy(frame(), "bias")})))


def test_the_page_names_every_needed_column() -> None:
    page = (ROOT / "docs" / "figures.md").read_text()
    table = {line.split("|")[1].strip(" `"): line for line in page.splitlines() if re.match(r"\| `\w+` \| `", line)}
    for kind in ("bias", "converge", "evaluation", "final", "kernel", "phase"):
        known = re.findall(r"`(\w+)`", table[kind].split("|")[2])
        assert set(KINDS[kind].required) <= {*known, "kind"}, kind
        assert set(known) - {"plain", "controlled", "ok", "diverged"} <= set(KINDS[kind].columns)
