"""The audit: what is found of right targets and of planted mistakes, for each kind of target."""

import json
import shlex
import sys
from contextlib import closing

import pytest
from audited import PROGRAM

import zobench.audit.figures
import zobench.figures
from zobench.__main__ import main
from zobench.audit import matching, measuring, probing, target
from zobench.audit.command import Program
from zobench.testing import examples

SAMPLES = 400


def subject(text, **options):
    return target.subject(f"audited:{text}", **options)


def program(tmp_path, text):
    file = tmp_path / "program.py"
    file.write_text(text)
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(file))}"


@pytest.mark.parametrize(
    "text, evaluations",
    [("ESTIMATOR", 4), ("make", 2), ("make:n=3", 6), ("Own:n=2", 4), ("right", 2), ("Optimizer", 2), ("Population", 2)],
)
def test_each_kind_of_target_is_counted_from_outside_and_has_the_scale_of_the_gradient(text, evaluations):
    one = subject(text, epsilon=0.1)
    assert one.name == f"audited:{text}"
    found = probing.probe(one, 6, keys=40)
    assert found.evaluations == (evaluations, evaluations)
    assert found.nodes == (-1.0, 1.0) and found.at_x == 0 and not found.still and found.asymmetry == 0
    scale = measuring.scale(one, SAMPLES)
    assert scale.named == "" and abs(scale.ratio - 1) < 5 * scale.error


@pytest.mark.parametrize(
    "text, named",
    [
        ("short", "is 1/d: a factor d is missing"),
        ("Optimizer:gain=-1", "is -1: the sign is wrong"),
        ("Optimizer:gain=0.5", "is 1/2: a factor 2 is missing"),
        ("Population:gain=3", "is 3: a factor 1/3 is missing"),
    ],
)
def test_a_hidden_factor_is_named(text, named):
    assert measuring.scale(subject(text, epsilon=0.1), 3 * SAMPLES).named == named


@pytest.mark.parametrize("gain, named", [(1.0, ""), (0.5, "is 1/2: a factor 2 is missing")])
def test_a_program_is_a_target(tmp_path, gain, named):
    with closing(Program(program(tmp_path, PROGRAM.replace("GAIN", str(gain))))) as running:
        one = target.program(running, 0.1)
        found = probing.probe(one, 4, keys=20)
        assert found.evaluations == (2, 2) and repr(found.law) == "Rademacher()"
        assert measuring.scale(one, SAMPLES).named == named


def test_tied_noise_and_coordinates_that_never_move_are_seen():
    tied, lame, right = (probing.probe(subject(name), 6) for name in ("tied", "lame", "right"))
    assert abs(tied.effective_dimension - 3) < 0.5 and abs(right.effective_dimension - 6) < 0.6
    assert lame.still == [5] and right.still == []


def test_the_bias_beyond_the_first_order_grows_as_the_square_of_epsilon():
    rows = list(measuring.bias_rows(subject("Optimizer"), examples.smooth(4), (0.2, 0.4), SAMPLES, None))
    order = measuring.order([{"problem": "smooth", **row} for row in rows])
    assert order is not None and abs(order - 2) < 0.5


COMPOSITIONS = {
    "right": "Gaussian() × CentralStencil() × n = 1",
    "undivided": "Rademacher() × OnePointStencil() × n = 1",
    "three_points": "Rademacher() × WeightedStencil(nodes=(0.0, 1.0, 2.0), weights=(-1.5, 2.0, -0.5)) × n = 1",
    "staircase": "Gaussian() × CentralStencil() × n = 3, at several displacements",
    "two_kinds": "Gaussian() × CentralStencil() × n = 1 + Gaussian() × ForwardStencil() × n = 1",
}


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_an_estimate_is_matched_by_the_weights_of_its_lines(name):
    """At the other epsilon too, where `undivided` has another share."""
    one, line = subject(name, epsilon=0.1), examples.linear(6)
    match = matching.candidate(one, probing.probe(one, 6))
    found = measuring.moments(one, line, SAMPLES)
    assert match.composition == COMPOSITIONS[name]
    assert matching.confirmed(match, line, found.second, found.error)
    assert not matching.confirmed(match, line, 1.5 * found.second, found.error)  # planted
    example = examples.smooth(6)
    plain, controlled = measuring.bias_rows(one, example, (0.4,), SAMPLES, match)
    assert abs(plain["mse"] - plain["predicted_mse"]) < 5 * plain["mse_error"]
    assert abs(controlled["bias"] - controlled["predicted_bias"]) < 5 * controlled["floor"]


@pytest.mark.parametrize("name", ["signs", "less_the_mean", "short"])
def test_what_is_no_composition_is_not_matched(name):
    """`short` is one, with a share of 1/d."""
    one = subject(name, epsilon=0.1)
    match = matching.candidate(one, probing.probe(one, 6))
    assert match is None or match.parts[0].share == pytest.approx(1 / 6)
    assert (match is None) == (name != "short")


def test_an_audit_is_a_run_folder_with_a_verdict(tmp_path, capsys):
    words = ["audit", "audited:right", "--samples", "200", "--epsilons", "0.2,0.4", "--problem", "smooth", "--dim", "4"]
    status = main([*words, "--out", str(tmp_path / "right")])
    rows = [json.loads(line) for line in (tmp_path / "right/rows.jsonl").read_text().splitlines()]
    facts = next(row for row in rows if row["kind"] == "audit")
    assert facts["match"].startswith("LineEstimator(law=Gaussian(), stencil=CentralStencil()")
    plain = [row for row in rows if row["kind"] == "bias" and row["sampling"] == "plain"]
    assert len(plain) == 2 and all(abs(r["cosine"] - r["predicted_cosine"]) < 6 * r["cosine_error"] for r in plain)
    failed = [row["check"] for row in rows if row["kind"] == "audit-check" and row["status"] == "failed"]
    assert failed == [] and status == 0
    assert "E[g] =" in capsys.readouterr().out
    for suffix in ("a.svg", "b.svg"):  # from the rows that are there, with the same bytes
        assert main([*words, "--out", str(tmp_path / "right"), "--figure", str(tmp_path / suffix)]) == 0
    drawn = [[(tmp_path / f"{name}-{kind}.svg").read_bytes() for kind in ("bias", "mse", "cosine")] for name in "ab"]
    assert drawn[0] == drawn[1] and len({*drawn[0]}) == 3
    figure = zobench.figures.bias(zobench.audit.figures.labelled_rows(rows))
    (named, *_) = (text.get_text() for text in figure.legends[0].get_texts())
    assert " ".join(named.split()) == "audited:right; lines: Gaussian() × CentralStencil() × n = 1"
    wanted = [r["predicted_bias"] / r["gradient_norm"] for r in rows if r.get("sampling") == "controlled"]
    assert any(list(line.get_ydata()) == pytest.approx(wanted) for line in figure.axes[0].lines)


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "give a TARGET"),
        (["audited:right", "--command", "true"], "not both"),
        (["audited:nothing"], "has no function 'nothing'"),
        (["nowhere:right"], "cannot be imported"),
        (["audited:SOMETHING"], "has no function 'SOMETHING'"),
        (["audited:Population:gradient=missing"], "there is no .missing"),
        (["audited:right", "--vary", "sigma"], "--vary sigma"),
        (["audited:right", "--epsilons", "-1"], "displacements above 0"),
        (["audited:right", "--problem", "smoth"], "Did you mean 'smooth'?"),
        (["audited:right", "--array", "jax"], "unknown kind of array"),
        (["audited:right", "--samples", "3"], "--samples"),
        (["audited:deaf"], "returned the shape (1,)"),
        (["--command", "no-such-program"], "cannot be started"),
        (["--command", "true"], "ended with status 0"),
        (["--command", "echo hello"], "ended with status|wrote b'hello'"),
    ],
)
def test_errors_are_one_line(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        main(["audit", *words, "--out", str(tmp_path / "out")])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and told.count("\n") == 1
    assert any(part in told for part in message.split("|")), told


def test_the_version_and_the_methods(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out.startswith("zobench ") and main(["methods"]) == 0
    assert "richardson" in capsys.readouterr().out
