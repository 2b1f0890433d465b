"""Optimizers of other packages in the convergence suite; SciPy's are always there, others where installed."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from synthetic import peers, problems
from synthetic.__main__ import main
from zobench.naming import UnknownNameError

pytestmark = pytest.mark.usefixtures("one_thread")
PROBLEM = problems.make("quadratic", 4, 3.0)


def installed(name):
    package = peers.PEERS[name].package
    if find_spec(package) is None:
        pytest.skip(f"the package {package} is not installed: pip install -e '.[peers]'")
    return peers.PEERS[name]


RATES = {"torchzero-spsa1": 1e-3, "nevergrad-spsa": 0.5, "cma": 0.3, "cbx": 0.3}


@pytest.mark.parametrize("name", peers.PEERS)
def test_a_peer_lowers_the_loss_within_its_budget_and_leaves_global_generators_alone(name):
    peer, calls = installed(name), []

    class Counted:
        dim = PROBLEM.dim

        def __call__(self, x):
            calls.append(1)
            return PROBLEM(x)

        def __getattr__(self, attribute):
            return getattr(PROBLEM, attribute)

    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    curve = peer.reached(Counted(), RATES.get(name, 0.1), 0.01, [0, 1], 300, 10)
    assert [(step, spent) for step, spent, _ in curve] == [(k, 30 * k) for k in range(11)]
    first, last = curve[0][2], curve[-1][2]
    assert torch.equal(first, torch.stack([PROBLEM(problems.start(PROBLEM, seed)) for seed in (0, 1)]).double())
    assert (last < (1.1 if "wrong: E" in peer.theory else 0.7) * first).all() and not torch.equal(last[0], last[1])
    again = peer.reached(PROBLEM, RATES.get(name, 0.1), 0.01, [0, 1], 300, 10)
    assert torch.equal(last, again[-1][2])
    assert torch.equal(before[0], torch.random.get_rng_state()) and np.array_equal(before[1], np.random.get_state()[1])
    assert 600 <= len(calls) <= 2 * (300 + 302)  # at most as many iterates as evaluations are looked at


def test_a_factor_that_is_missing_shows_beside_the_estimator_that_has_it():
    """torchzero's SPSA1 is its own SPSA of one measurement times h: at h = 0.01 it moves a hundredth as far."""
    wrong, right = installed("torchzero-spsa1"), installed("torchzero-spsa")
    assert wrong.theory.startswith("wrong") and not right.theory.startswith("wrong")
    start = PROBLEM(problems.start(PROBLEM, 0))
    moved = [float(start - peer.reached(PROBLEM, 1e-3, 0.01, [0], 40, 4)[-1][2]) for peer in (wrong, right)]
    assert abs(moved[0]) < 0.1 * moved[1]


def test_peers_stand_beside_our_methods_at_equal_evaluations(tmp_path, capsys):
    words = ["converge", "--methods", "mezo,peer:scipy-nelder-mead", "--problem", "quadratic", "--dim", "3"]
    words += ["--evaluations", "200", "--seeds", "2", "--tuning-seeds", "1", "--rates", "0.1,0.03", "--points", "4"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    said, rows = (
        capsys.readouterr().out,
        [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()],
    )
    ends = [row for row in rows if row["kind"] == "converge" and row["evaluations"] == 200]
    assert {(row["method"], row["seed"]) for row in ends} == {(m, s) for m in words[2].split(",") for s in (0, 1)}
    starts = [row for row in rows if row["kind"] == "converge" and row["step"] == 0]
    assert len({row["loss"] for row in starts if row["seed"] == 0}) == 1
    assert "a simplex, no estimate" in said and "scipy" in ends[-1]["estimator"]
    assert [row["method"] for row in rows if row["kind"] == "tune"] == ["mezo", "mezo"]


def test_unknown_peers_and_those_that_are_not_installed_are_refused(monkeypatch):
    with pytest.raises(UnknownNameError, match="peer:cma"):
        peers.find("peer:cm")
    monkeypatch.setitem(peers.PEERS, "cma", peers.Peer("cma", "no-such-package", "", lambda search: None))
    with pytest.raises(ValueError, match=r"needs the package no-such-package: pip install -e '\.\[peers\]'"):
        peers.find("peer:cma")
