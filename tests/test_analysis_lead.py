"""What the report leads with, for the shapes that a user's own runs have."""

from pathlib import Path
from typing import Any

import pytest
from fabricated import bias_rows, converge_rows, folder, training

from analysis.lead import MOST, lead
from analysis.report import SECTIONS
from analysis.rows import read
from analysis.sections import finetuning
from analysis.sections.section import Section


def made(*paths: Path) -> Section:
    results = read(paths)
    sections = [one for one in (section(results) for section in SECTIONS) if not one.missing]
    found = lead(results, sections)
    assert 1 <= len(found.sentences) <= MOST
    assert not any("nan" in sentence or "None" in sentence for one in sections for sentence in one.sentences)
    return found


def test_bias_and_accuracies_lead_with_one_figure(tmp_path: Path) -> None:
    folder(tmp_path / "bias", bias_rows("mezo", 2) + bias_rows("kerzoo", 4))
    folder(tmp_path / "converge", converge_rows("mezo", 2.0) + converge_rows("kerzoo", 1.0))
    training(tmp_path / "llm", "mezo", 0, 0.85)
    training(tmp_path / "llm", "adamw", 0, 0.9, provenance="shipped")
    found = made(tmp_path)
    bias, gaps, accuracy = found.sentences
    assert "20 of 20 measured biases are as theory predicts" in bias
    assert "mezo's as ε^2.00 and kerzoo's as ε^4.00" in bias
    assert "40 loss evaluations each" in gaps
    assert "85.0\u00a0% [79.4, 89.3] with mezo; the untrained model reaches 50.0\u00a0% by chance" in accuracy
    assert "adamw" not in accuracy  # it was not run now
    assert [len(shown.figure.axes) for shown in found.illustrations] == [2]


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ([{}], "tiny on sst2: test accuracy: 70.0\u00a0% [63.3, 75.9] with mezo; the untrained"),
        ([{"lr": 1e-3}, {"lr": 1e-2}], "with mezo lr=0.001 and 70.0\u00a0% [63.3, 75.9] with mezo lr=0.01"),
        ([{"seed": seed} for seed in range(5)], "test accuracy, mean of 5 runs: 70.0\u00a0%"),
        ([{"status": "unfinished"}], "1 run, none with a test accuracy yet; the last dev accuracy is 70.0\u00a0%."),
        ([{}, {"seed": 1, "status": "diverged"}], "1 run of 2 diverged."),
        ([{"lr": 1 / 2**place} for place in range(7)], "(3 more settings below)"),
    ],
)
def test_runs_of_ones_own_lead_with_what_became_of_them(tmp_path: Path, runs: list[dict[str, Any]], words: str) -> None:
    for run in runs:
        training(tmp_path, "mezo", run.pop("seed", 0), 0.7, **run)
    assert words in made(tmp_path).sentences[0]


def test_other_rows_lead_with_the_first_sentences_of_their_sections(tmp_path: Path) -> None:
    rows = [row for row in bias_rows("mezo", 2, "quadratic", 0.0) if row["sampling"] == "controlled"]
    found = made(folder(tmp_path / "null", rows))
    assert found.sentences[0].startswith("quadratic, d = 16 is a null control")
    assert found.illustrations == []


def tuned(root: Path, losses: dict[float, float]) -> None:
    """A study of MeZO and KerZOO, whose MeZO chose the rate of least loss."""
    for seed in range(2):
        training(root / "seeds", "mezo", seed, 0.7 + 0.01 * seed, lr=min(losses, key=losses.__getitem__))
        training(root / "seeds", "kerzoo", seed, 0.6 + 0.03 * seed)
    for lr in losses:
        training(root / "tune", "mezo", -1, 0.1, lr=lr)
    chosen = {"kind": "chosen", "method": "mezo", "lr": 1.0, "rates": list(losses), "dev_losses": list(losses.values())}
    folder(root / "choice", [chosen], command="study")


def test_a_study_shows_its_seeds_and_compares_only_rates_inside_their_grid(tmp_path: Path) -> None:
    tuned(tmp_path / "inside", {1e-4: 0.6, 1e-3: 0.5, 1e-2: 0.9})
    tuned(tmp_path / "edge", {1e-4: 0.6, 1e-3: 0.7, 1e-2: 0.9})
    inside, edge = (finetuning.section(read([tmp_path / name])) for name in ("inside", "edge"))
    assert any("kerzoo minus mezo" in sentence for sentence in inside.sentences)
    assert not any("Not comparable" in sentence for sentence in inside.sentences)
    assert "Not comparable: the best rate of mezo, 0.0001, is the smallest tried." in " ".join(edge.sentences)
    assert not any("minus" in sentence for sentence in edge.sentences)
    assert "The methods are not comparable: the best rate of mezo" in made(tmp_path / "edge").sentences[0]
    assert "KerZOO against MeZO at equal forward passes" not in [table.caption for table in edge.tables]
    assert all("10.0" not in sentence for sentence in inside.sentences)  # the tuning runs, of no seed
