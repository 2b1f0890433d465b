"""Forward-gradient on modules and language models: what is differentiated, what it holds, how it trains."""

import copy
import gc
import itertools
import json
import weakref

import pytest
import tiny_models
import torch
from engines import Net, loss_of, slopes_by_backpropagation, space_of
from interrupted import gone
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import zobench
from llm.__main__ import main
from llm.loop.loop import Loop
from llm.loop.train import train
from llm.options.train import TrainOptions
from zobench import (
    Combination,
    InForwardSpace,
    ModuleSpace,
    Term,
    methods,
    query,
)
from zobench.optim import ZerothOrder
from zobench.space.support import Support

pytestmark = pytest.mark.usefixtures("one_thread")


class TestWhatIsDifferentiated:
    @pytest.mark.parametrize(
        ("kind", "attention"),
        [*itertools.product(["opt", "gpt2", "llama", "roberta"], ["sdpa", "eager"]), ("gemma2", "eager")],
    )
    @pytest.mark.parametrize("engine", ["plain", "in-forward"])
    def test_language_models(self, engine, kind, attention):
        made = tiny_models.model(kind, attn_implementation=attention).double()
        space, ids = space_of(engine, made), torch.tensor([[2, 40, 41, 260, 5, 6, 7, 9]])

        def loss():
            logits = made(input_ids=ids).logits
            return functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="none")

        plan = methods.make("forward-gradient", n=2).ask(3, ())
        answers = space.losses(loss, plan)
        assert torch.allclose(answers[:, 1], slopes_by_backpropagation(space, loss, plan), rtol=1e-5)
        assert float(answers[:, 1].abs().max()) > 1

    @pytest.mark.parametrize("engine", ["plain", "in-forward"])
    @pytest.mark.parametrize("kind", ["convolution", "attention", "layer", "gru"])
    def test_other_modules(self, kind, engine):
        torch.manual_seed(0)
        x, image = torch.randn(4, 5, 6, dtype=torch.float64), torch.randn(4, 1, 6, 6, dtype=torch.float64)
        module, f = {
            "convolution": (
                nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 2)),
                lambda made: made(image),
            ),
            "attention": (nn.MultiheadAttention(6, 2, batch_first=True), lambda made: made(x, x, x)[0]),
            "layer": (nn.TransformerEncoderLayer(6, 2, 12, batch_first=True), lambda made: made(x)),
            "gru": (nn.GRU(6, 7, batch_first=True), lambda made: made(x)[0]),
        }[kind]
        module = module.double().eval()
        space, plan = space_of(engine, module), methods.make("forward-gradient", n=2).ask(3, ())
        loss = lambda: f(module).square().mean()  # noqa: E731
        answers = space.losses(loss, plan)
        assert torch.allclose(answers[:, 1], slopes_by_backpropagation(space, loss, plan), rtol=1e-9)
        assert torch.backends.mha.get_fastpath_enabled()

    def test_a_layer_without_a_forward_derivative_is_told(self):
        class Doubled(torch.autograd.Function):
            @staticmethod
            def forward(ctx, a):
                return 2 * a

            @staticmethod
            def backward(ctx, g):
                return 2 * g

        module = nn.Linear(3, 2).eval()
        space, x = ModuleSpace(module), torch.ones(5, 3)
        with pytest.raises(ValueError, match=r"cannot be differentiated forward .*jvp.* mezo"):
            space.losses(lambda: Doubled.apply(module(x)).sum(), methods.make("forward-gradient").ask(1, ()))
        with pytest.raises(ValueError, match=r"the loss is 3\.0"):
            space.losses(lambda: 3.0, methods.make("forward-gradient").ask(1, ()))
        with torch.inference_mode(), pytest.raises(ValueError, match="inference_mode"):
            space.losses(lambda: module(x).sum(), methods.make("forward-gradient").ask(1, ()))

    def test_parameters_that_share_memory_have_one_tangent(self):
        module = nn.Module()
        module.one = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
        module.two = nn.Parameter(module.one.detach())
        for engine in ("plain", "in-forward"):
            space = space_of(engine, module.eval())
            plan = methods.make("forward-gradient").ask(1, ())
            u = space.dense(Combination((Term(plan.law, 1, torch.ones(1, dtype=torch.float64)),)))
            answers = space.losses(lambda: (module.one * module.two).sum(), plan)
            assert float(answers[0, 1]) == pytest.approx(float(2 * module.one.detach() @ u), rel=1e-12)

    def test_a_master_copy_is_read_in_16_bits(self):
        module = Net(dtype=torch.float32)
        space = InForwardSpace(module, reads=torch.bfloat16)
        seen = []

        def loss():
            seen.append(module.wide.weight.dtype)
            return loss_of(module)()

        plan = methods.make("forward-gradient").ask(1, ())
        with torch.no_grad():
            module.shift = module.shift.bfloat16()
        (answer,) = space.losses(loss, plan)[:, 1].tolist()
        exact = copy.deepcopy(module)
        exact.shift = exact.shift.float()
        (wanted,) = ModuleSpace(exact).losses(loss_of(exact), plan)[:, 1].tolist()
        assert seen == [torch.bfloat16] and answer == pytest.approx(wanted, rel=0.1) and answer != wanted

    def test_in_forward_holds_the_tangents_of_what_is_read_and_no_more(self, monkeypatch):
        module = nn.Sequential(*(nn.Linear(9, 9) for _ in range(12))).eval()
        made, alive, most = Support.tangent, weakref.WeakSet(), []
        holders = [lambda found: None, [].append]  # planted: the second keeps them

        def tangent(self, name, line):
            found = made(self, name, line)
            gc.collect()
            alive.add(found)
            most.append(len(alive))
            holders[0](found)
            return found

        monkeypatch.setattr(Support, "tangent", tangent)
        gc.freeze()  # what was there before is not searched again for each tangent
        try:
            for least, largest in ((1, 3), (24, 24)):
                plan = methods.make("forward-gradient").ask(1, ())
                InForwardSpace(module).losses(lambda: module(torch.ones(2, 9)).sum(), plan)
                assert least <= max(most) <= largest
                holders.pop(0)
        finally:
            gc.unfreeze()

    def test_a_pass_counts_as_three_evaluations_because_it_multiplies_three_times(self):
        module, x = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)).eval(), torch.randn(10, 64)
        frozen = copy.deepcopy(module)
        frozen[0].requires_grad_(False)
        counted = {}
        for name, made in (("all", module), ("half", frozen)):
            loss = lambda made=made: made(x).sum()  # noqa: E731
            with FlopCounterMode(display=False) as forward:
                loss()
            with FlopCounterMode(display=False) as both:
                ModuleSpace(made).losses(loss, methods.make("forward-gradient").ask(1, ()))
            counted[name] = both.get_total_flops() / forward.get_total_flops()
        assert counted == {"all": 3.0, "half": 2.0}


def test_the_optimizer_of_torch_takes_its_steps():
    module = Net(dtype=torch.float64)
    twin = copy.deepcopy(module)
    made = methods.make("forward-gradient", n=2)
    optimizer = ZerothOrder(module.named_parameters(), made, lr=0.01, seed=4)
    space, f = ModuleSpace(twin), loss_of(twin)
    for step in range(3):
        optimizer.step(loss_of(module))
        told = query(space, made, f, zobench.derive(4, step), ())
        space.step_(told.gradient, -0.01)
    assert torch.equal(ModuleSpace(module).vector(), space.vector()) and optimizer.evaluations == 18
    assert float(optimizer.loss) == pytest.approx(float(told.losses.mean()))


def rows_of(folder, kind):
    lines = (folder / "rows.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


class TestTraining:
    @staticmethod
    def options(folder, **changed):
        given = {"steps": 6, "train": 8, "dev": 4, "test": 4, "batch": 2, "eval_every": 3, "max_tokens": 16, "lr": 3e-4}
        method = "forward-gradient:n=3:law=rademacher"
        return TrainOptions(**{**given, "method": method, "out": str(folder), **changed})

    @pytest.mark.parametrize(
        "way",
        [
            {"engine": "plain"},
            {"engine": "paired"},
            {"engine": "paired", "rows": "touched"},
            {"dtype": "bfloat16", "rounding": "stochastic"},
            {"dtype": "bfloat16", "rounding": "master"},
        ],
    )
    def test_an_interrupted_run_ends_as_an_uninterrupted_one(self, way, tmp_path, capsys):
        whole = train(self.options(tmp_path / "whole", **way))
        gone(Loop.of(self.options(tmp_path / "cut", **way)), stop=4)
        again = train(self.options(tmp_path / "cut", **way))
        assert again["test_loss"] == whole["test_loss"] and again["forward_passes"] == 6 * 3 * 3
        one, two = (load_file(tmp_path / name / "model/model.safetensors") for name in ("whole", "cut"))
        assert all(torch.equal(one[name], two[name]) for name in one)
        if "rows" not in way:
            assert main(["journal", "replay", str(tmp_path / "cut")]) == 0
        losses = [row["train_loss"] for row in rows_of(tmp_path / "cut", "step")]
        assert len(losses) == 6 and 0 < min(losses) < 4 < max(losses) < 13  # losses, no slopes

    def test_the_loss_falls(self, tmp_path):
        changed = {
            "method": "forward-gradient:n=2",
            "steps": 30,
            "train": 16,
            "batch": 16,
            "eval_every": 30,
            "lr": 1e-3,
        }
        train(self.options(tmp_path, **changed, save=False))
        losses = [row["train_loss"] for row in rows_of(tmp_path, "step")]
        assert sum(losses[-5:]) < 0.5 * sum(losses[:5])

    def test_what_cannot_be_is_refused_before_the_first_step(self, tmp_path):
        with pytest.raises(ValueError, match=r"objective accuracy has no gradient for forward-gradient"):
            Loop.of(self.options(tmp_path, objective="accuracy"))
        with pytest.raises(ValueError, match="has no epsilon to choose"):
            Loop.of(self.options(tmp_path, epsilon="auto"))
        assert not list(tmp_path.iterdir())
        Loop.of(self.options(tmp_path, method="mezo", objective="accuracy"))
