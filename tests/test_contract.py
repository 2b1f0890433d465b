"""One table: every estimator, rule and engine, interrupted at every step and resumed, equals the run that was not, to
the bit: weights, state and memory.
"""

import itertools
import sys
from dataclasses import replace
from unittest.mock import patch

import prototypes
import pytest
import torch
from engines import Copied, Net, bits, loss_of, threads

from llm.run import checkpoint
from llm.steppers import engines
from llm.steppers.zeroth_order import Whole, ZerothOrderStepper
from zobench import (
    SGD,
    Adam,
    AdaMeZO,
    Combination,
    Estimate,
    FactorMomentum,
    Gains,
    Interpolated,
    IterateAverage,
    LowRank,
    ModuleSpace,
    Momentum,
    Muon,
    NormalisedCore,
    PowerMuon,
    RandomMask,
    Refreshed,
    SignSGD,
    SmallWeights,
    TensorClip,
    derive,
    methods,
    query,
    state,
    theory,
)
from zobench.law import PerTensor

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 5
BEFORE_AND_AFTER = (1, 4)  # step 3, at which "auto" probes, SVRG takes its snapshot and windows are full
# The streamed engine needs a model with a list of layers: tests/test_streamed.py has them.
ENGINES = (*(name for name in engines.ENGINES if name not in ("batched", "streamed")), "copied")
OWN = {
    "copied": lambda model, **_: ModuleSpace(model, Copied()),
    "forgetful": lambda model, **_: ModuleSpace(model, Forgetful()),
}
MEZO = methods.make("mezo", epsilon=0.05, n=2)
LOW_RANK = replace(MEZO, law=LowRank(2))
ESTIMATORS = {
    **{name: methods.make(name) for name in ("kerzoo", "kerzoo-code", "one-point", "forward", "telescoping")},
    "mezo": MEZO,
    "central4": methods.make("central4", epsilon=0.05),
    "orthogonal": methods.make("orthogonal", epsilon=0.05, n=2),
    "coordinate": methods.make("coordinate", epsilon=0.05),
    "forward-gradient": methods.make("forward-gradient"),
    "auto": replace(methods.make("mezo", epsilon="auto"), every=3, lines=2),
    "small weights": replace(MEZO, law=SmallWeights()),
    "low rank": LOW_RANK,
    "lozo": methods.make("lozo", epsilon=0.05, n=2, every=2),
    "subzero": methods.make("subzero", epsilon=0.05, rank=2, every=2),
    "zo-muon": methods.make("zo-muon", epsilon=0.05, n=2, rank=3, every=2),
    "held mask": Refreshed(replace(MEZO, law=RandomMask()), 2),
    "sparse-mezo": methods.make("sparse-mezo", epsilon=0.05),
    "adalezo": methods.make("adalezo", epsilon=0.05, n=2),
    "conmezo": methods.make("conmezo", epsilon=0.05, n=2, warm=3),
    "hizoo": methods.make("hizoo", epsilon=0.05, smooth=0.01),
    "dizo": methods.make("dizo", epsilon=0.05, n=2, every=2, lr=0.01),
    "baseline": prototypes.MovingBaseline(),
    **{name: methods.make(name) for name in ("one-point-residual", "mezo-gv", "zo-ranksgd", "random-search", "spall")},
    "zo-sgd-conservative": methods.make("zo-sgd-conservative", lr=0.01),
    "mezo-svrg": methods.make("mezo-svrg", every=3),
    "two terms": prototypes.TwoTerms(),
    "two rounds": prototypes.RankLineSearch(),
    "conservative": prototypes.Conservative(),
    "svrg": prototypes.SVRG(),
}
RULES = {
    "sgd": SGD(0.01, 0.1),
    "schedule": SGD(lambda step: 0.02 / (step + 1)),
    "momentum": Momentum(0.01, 0.1),
    "momentum window": Momentum(0.01, window=3),
    "adam": Adam(1e-3, 0.1),
    "adam window": Adam(1e-3, window=3),
    "nesterov": Momentum(0.01, nesterov=True),
    "sign": SignSGD(0.01),
    "adamezo": AdaMeZO(1e-4, window=3),
    "gains": SGD(Gains(0.05, stability=3.0)),
    "average": IterateAverage(SGD(0.01), 1),
    "tensor clip": TensorClip(0.01, 0.1, most=1.0),
    "interpolated": Interpolated(0.01, 0.1, beta=4.0, most=1.0),
    "interpolated growing": Interpolated(0.01, growing=True),
    "factor momentum": FactorMomentum(0.01, 0.1),
    "muon": Muon(0.01, 0.1),
    "normalised": NormalisedCore(0.01),
    "power muon": PowerMuon(0.01, 0.1, k=2),
    "own": prototypes.Sign(),
}
ON_MATRICES = {"factor momentum": "lozo", "muon": "zo-muon", "normalised": "zo-muon", "power muon": "zo-muon"}
"""Rules that see matrices, each with an estimator whose law holds a part."""


class Run:
    """A stepper on a small module, whose every third minibatch is other data."""

    def __init__(self, estimator, rule, engine: str = "plain", dtype: torch.dtype = torch.float32) -> None:
        self.module = Net(dtype=dtype).eval()
        with patch.dict(engines.ENGINES, OWN):
            whole = Whole(lambda: 2.0 * self.losses(), 1)
            self.stepper = ZerothOrderStepper(self.module, estimator, rule, engine, whole=whole)
        self.records = []

    def losses(self):
        return loss_of(self.module)()

    def go(self, stop: int = STEPS) -> "Run":
        while self.stepper.steps < stop:
            self.records.append(self.stepper.step(derive("contract", self.stepper.steps), self.losses).record)
        return self

    def replay(self, records) -> "Run":
        self.records = list(records)
        for record in records[self.stepper.steps :]:
            again = self.stepper.replay(record).record
            assert repr(again) == repr(record)
        return self

    def require_same(self, other: "Run") -> None:
        self.stepper.settle(), other.stepper.settle()
        for (name, p), (_, q) in zip(self.module.named_parameters(), other.module.named_parameters(), strict=True):
            assert torch.equal(bits(p), bits(q)), name
        assert state.same(self.stepper.state, other.stepper.state)
        assert state.same(self.stepper.memory, other.stepper.memory)
        assert self.stepper.forward_passes == other.stepper.forward_passes
        assert repr(self.records) == repr(other.records)


def cases():
    others = [rule for rule in RULES if rule not in ON_MATRICES]
    yield from ((name, "sgd", engine) for name in ESTIMATORS if name != "zo-muon" for engine in ENGINES)
    yield from (("mezo", rule, engine) for rule in others for engine in ENGINES)
    yield from (("low rank", rule, "batched") for rule in others)  # which needs directions of low rank
    yield from ((name, rule, "plain") for name in ("two terms", "svrg", "two rounds") for rule in others)
    for (rule, name), engine in zip(itertools.cycle(ON_MATRICES.items()), (*ENGINES, "batched"), strict=False):
        yield name, rule, engine
        yield ("mezo", rule, "plain")


def require_resumed(estimator, rule, engine, stops):
    fresh = lambda: Run(ESTIMATORS[estimator], RULES[rule], engine)  # noqa: E731
    with threads(2 if engine == "paired" else 1):
        whole = fresh().go()
        for stop in stops:
            fresh().replay(whole.records[:stop]).go().require_same(whole)


def sampled(estimator, rule, engine):
    """All steps for each estimator and each rule on the plain engine; else before and after the one that is special."""
    usual = rule == "sgd" or (estimator == "mezo" and rule not in ON_MATRICES)
    return range(STEPS) if engine == "plain" and usual else BEFORE_AND_AFTER


@pytest.mark.parametrize(("estimator", "rule", "engine"), dict.fromkeys(cases()))
def test_a_run_that_is_interrupted_equals_the_one_that_is_not(estimator, rule, engine):
    require_resumed(estimator, rule, engine, sampled(estimator, rule, engine))


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("estimator", "rule", "engine"),
    [
        *(case for case in dict.fromkeys(cases()) if sampled(*case) is BEFORE_AND_AFTER),
        *((name, rule, engine) for rule, name in ON_MATRICES.items() for engine in (*ENGINES, "batched")),
    ],
)
def test_a_run_that_is_interrupted_anywhere_equals_the_one_that_is_not(estimator, rule, engine):
    require_resumed(estimator, rule, engine, set(range(STEPS)) - set(BEFORE_AND_AFTER))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_in_other_dtypes(rule, engine, dtype):
    whole = Run(MEZO, RULES[rule], engine, dtype).go()
    Run(MEZO, RULES[rule], engine, dtype).replay(whole.records[:4]).go().require_same(whole)


OF_SPACES = ("lozo", "sparse-mezo", "adalezo", "conmezo", "hizoo", "dizo")  # laws that keep tensors, but for the first
STATEFUL = ("auto", "two terms", "mezo-svrg", "zo-ranksgd", "mezo-gv", "baseline")
USUAL = {*((name, "adam window") for name in STATEFUL)}
USUAL |= {("two terms", rule) for rule in RULES if rule not in ON_MATRICES}


@pytest.mark.parametrize(
    ("estimator", "rule"),
    [
        *(
            pytest.param(*case, marks=[] if case in USUAL else pytest.mark.exhaustive)
            for case in itertools.product(STATEFUL, RULES)
        ),
        *itertools.product(OF_SPACES, ("sgd", "adam")),
        *((name, rule) for rule, name in ON_MATRICES.items()),
    ],
)
def test_a_checkpoint_carries_state_and_memory(estimator, rule, tmp_path):
    """Weights, state and memory come back from a file; the steps after it are replayed, the others are not seen."""
    whole = Run(ESTIMATORS[estimator], RULES[rule]).go()
    part = Run(ESTIMATORS[estimator], RULES[rule]).go(4)
    part.stepper.settle()
    tensors, said = part.stepper.checkpoint_state()
    file = checkpoint.save(tmp_path, 4, checkpoint.weights(part.module) | tensors, said)
    again = Run(ESTIMATORS[estimator], RULES[rule])
    kept = checkpoint.load(file)
    again.stepper.restore(checkpoint.restore(again.module, kept), kept.metadata, kept.step)
    again.replay(whole.records[:5]).go()
    again.require_same(whole)


class Forgetful(Copied):
    """Planted: it stays at its last point."""

    def restore(self, kept):
        self.stored.torn = False


def test_an_engine_that_breaks_its_promise_is_seen():
    whole = Run(MEZO, RULES["sgd"], "forgetful").go()
    with pytest.raises(AssertionError):
        Run(MEZO, RULES["sgd"], "forgetful").replay(whole.records[:2]).go().require_same(whole)


@pytest.mark.parametrize("planted", ["state", "memory", "losses"])
def test_what_a_replay_forgets_is_seen(planted):
    """The planted errors: a state, a memory that stays as it was; zero losses in place of the recorded ones."""
    whole = Run(prototypes.MovingBaseline(), RULES["adam"]).go()
    again = Run(prototypes.MovingBaseline(), RULES["adam"])
    stepper = again.stepper
    if planted == "losses":
        with pytest.raises(ValueError, match="other coefficients for the recorded losses of step 0"):
            stepper.replay(whole.records[0]._replace(losses=(0.0,)))
        return
    stepper.replay(whole.records[0])
    before = stepper.state, stepper.memory
    stepper.replay(whole.records[1])
    if planted == "state":
        stepper.state = before[0]
        with pytest.raises(ValueError, match="other coefficients"):
            stepper.replay(whole.records[2])
    else:
        stepper.memory = before[1]
        again.records = whole.records[:2]
        again.go()
        with pytest.raises(AssertionError):
            again.require_same(whole)


def test_a_changed_estimator_is_noticed_and_not_followed():
    whole = Run(MEZO, RULES["sgd"]).go()
    for other, message in (
        (replace(MEZO, epsilon=0.06), "other coefficients"),
        (replace(MEZO, n=3), "asks for 6 more losses, but the record has 4 left"),
        (replace(MEZO, n=1), "has 2 losses that the estimator does not ask for"),
    ):
        with pytest.raises(ValueError, match=message):
            Run(other, RULES["sgd"]).stepper.replay(whole.records[0])
    with pytest.raises(ValueError, match=r"had the learning rate 0\.01, but the rule gives 0\.02"):
        Run(MEZO, SGD(0.02)).stepper.replay(whole.records[0])


def test_theory_does_not_speak_of_what_is_not_linear():
    from synthetic import problems

    problem = problems.make("sextic", 4)
    x = problems.start(problem)
    bent = prototypes.Bent(MEZO.law, MEZO.stencil, 0.1)
    assert not bent.linear and MEZO.linear and not prototypes.TwoTerms().linear
    for ask in (theory.bias, theory.mse, theory.second_moment):
        with pytest.raises(TypeError, match=r"Bent makes its own: sample them with zobench\.moments"):
            ask(bent, problem, x)

    class Vouched(prototypes.Bent):
        linear = True

    assert torch.equal(theory.bias(Vouched(MEZO.law, MEZO.stencil, 0.1), problem, x),
                       theory.bias(replace(MEZO, epsilon=0.1), problem, x))  # fmt: skip


def test_an_estimator_that_never_ends_is_stopped(monkeypatch):
    monkeypatch.setattr(sys.modules[query.__module__], "ROUNDS", 20)

    class Endless(prototypes.RankLineSearch):
        def tell(self, plan, losses, state):
            return prototypes.More(prototypes.Searching())

    with pytest.raises(RuntimeError, match="asks for more losses after 20 rounds"):
        Run(Endless(), SGD(0.1)).go(1)


def test_a_loss_or_a_snapshot_that_there_is_none_of_is_named():
    run = Run(prototypes.SVRG(), SGD(0.1))
    alone = ZerothOrderStepper(run.module, prototypes.SVRG(), SGD(0.1), "plain")
    with pytest.raises(ValueError, match="asks for the loss 'whole', but f has the losses"):
        alone.step(1, loss_of(run.module))
    plan = replace(MEZO.ask(1, ()), base="anchor")
    with pytest.raises(ValueError, match="based on the snapshot 'anchor', but the snapshots kept are"):
        run.stepper.space.losses(loss_of(run.module), plan)


def test_a_state_that_no_file_can_keep_is_refused():
    class Stranger:
        pass

    with pytest.raises(TypeError, match="Stranger"):
        state.plain((1, Stranger()))
    with pytest.raises(ValueError, match="no frozen dataclass or named tuple of an imported module"):
        state.restored({"type": "os:system"})
    with pytest.raises(ValueError, match="imported module"):
        state.restored({"type": "not_imported_anywhere:Thing"})
    kept = Estimate(Combination(), ())
    assert state.same(state.restored(state.plain(kept)), kept)


def test_two_copies_of_a_law_by_tensor_are_one_state():
    law = PerTensor(methods.make("kerzoo").stencil.kernel)
    assert state.restored(state.plain(law)) == law
