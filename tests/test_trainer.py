"""ZerothOrderTrainer: Trainer's batches, logs, evaluations and checkpoints around the step of ModuleSpace and SGD."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from sampled import diagonal, sampled
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers import OPTConfig, OPTForCausalLM, TrainerCallback, TrainingArguments

from zobench import SGD, AutoEpsilon, ModuleSpace, keyed, methods, query
from zobench.integrations.transformers import ZerothOrderTrainer
from zobench.optim import ZerothOrder

pytestmark = [
    pytest.mark.environment,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),  # of transformers and accelerate
]

KERZOO = methods.make("kerzoo", epsilon=0.01)


def tiny(dropout: float = 0.1) -> OPTForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "ffn_dim": 32, "num_attention_heads": 2, "vocab_size": 40}
    return OPTForCausalLM(OPTConfig(**sizes, word_embed_proj_dim=16, max_position_embeddings=16, dropout=dropout))


def rows(count: int) -> list[dict[str, Any]]:
    """Sequences of 8 tokens; most labels of the first rows are masked, and that of every first token, which releases
    before 5 count as an item.
    """
    tokens = torch.randint(2, 40, (count, 8), generator=torch.Generator().manual_seed(1))
    labels = tokens.clone()
    labels[:, 0] = labels[: count // 2, 3:] = -100
    mask = torch.ones(8, dtype=torch.int64)
    return [{"input_ids": t, "attention_mask": mask, "labels": y} for t, y in zip(tokens, labels, strict=True)]


def stacked(part: list[dict[str, Any]]) -> dict[str, Tensor]:
    return {name: torch.stack([row[name] for row in part]) for name in part[0]}


class InOrder(ZerothOrderTrainer):
    """The rows as they come, and a note of them."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.seen = [*getattr(self, "seen", []), (dict(inputs), num_items_in_batch)]
        return super().training_step(model, inputs, num_items_in_batch)

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


class Logs(TrainerCallback):
    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        self.rows.append(dict(logs))


def trainer(folder: Path, model: nn.Module | None = None, cls: type = ZerothOrderTrainer, **options: Any) -> Any:
    own = {name: options.pop(name) for name in ("estimator", "callbacks", "compute_loss_func") if name in options}
    defaults = {"per_device_train_batch_size": 4, "max_steps": 4, "learning_rate": 1e-3, "logging_steps": 1}
    quiet = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "save_strategy": "no", "seed": 5}
    args = TrainingArguments(output_dir=str(folder), **{**defaults, **quiet, **options})
    model, data = tiny() if model is None else model, rows(32)
    return cls(model=model, args=args, train_dataset=data, eval_dataset=data[:4], **own)


def vector(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().double() for p in model.parameters()])


@pytest.mark.parametrize("estimator", [methods.make("mezo", n=2), KERZOO, AutoEpsilon(lines=2)], ids=repr)
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_step_is_that_of_a_module_space(tmp_path, estimator, decay):
    constant = {"lr_scheduler_type": "constant", "weight_decay": decay, "learning_rate": 0.25}
    ours = trainer(tmp_path, cls=InOrder, estimator=estimator, **constant)
    ours.train()
    model = tiny().eval()
    space, rule = ModuleSpace(model), SGD(0.25, decay)
    state, memory = estimator.init(), 0
    for step, (key, microbatch) in enumerate(keyed(ours.seen, 5)):
        assert torch.equal(microbatch[0]["labels"], stacked(rows(32)[4 * step : 4 * step + 4])["labels"])
        told = query(space, estimator, lambda batch=microbatch: ours._loss(model, [batch]), key, state)
        memory, state = rule.apply_(space, told.gradient, memory), told.state
    assert memory == 4 and torch.equal(vector(ours.model), vector(model))
    assert not torch.allclose(vector(tiny()), vector(model), rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("counts_items", [True, False])
def test_accumulated_microbatches_are_one_batch(tmp_path, counts_items):
    """Rows 12 to 19 have 2 labels each, then 7: a mean of the two means weighs them wrongly."""
    part = rows(32)[12:20]
    model = tiny().eval()
    halves = [model(**stacked(half)).loss.item() for half in (part[:4], part[4:])]
    together, of_means = model(**stacked(part)).loss.item(), sum(halves) / 2
    assert abs(together - of_means) > 1e-3  # planted: the means' mean is something else
    logs = Logs()
    ours = trainer(
        tmp_path, cls=InOrder, max_steps=1, gradient_accumulation_steps=2, learning_rate=0.0, callbacks=[logs],
        estimator=methods.make("mezo", epsilon=1e-6),
    )  # fmt: skip
    ours.train_dataset = part
    ours.model_accepts_loss_kwargs = counts_items
    ours.train()
    assert logs.rows[0]["loss"] == pytest.approx(together if counts_items else of_means, abs=1e-4)
    assert torch.allclose(vector(ours.model), vector(tiny()), atol=1e-6)


def test_the_last_step_of_an_epoch_has_fewer_microbatches(tmp_path):
    ours = trainer(tmp_path, max_steps=-1, num_train_epochs=2, gradient_accumulation_steps=2)
    ours.train_dataset = rows(20)  # 5 micro-batches an epoch
    ours.train()
    assert ours.state.global_step in (4, 6)  # older releases give up the last half, or carry it over
    assert ours._zeroth_order.state_dict()["state"]["zeroth_order"]["step"] == ours.state.global_step
    assert all(math.isfinite(row["loss"]) for row in ours.state.log_history if "loss" in row)


RESUMED = [methods.make("mezo"), KERZOO, AutoEpsilon(every=3, lines=2)]


@pytest.mark.skipif(torch.__version__ < (2, 6), reason="transformers resumes with torch 2.6 or later")
@pytest.mark.parametrize(("estimator", "accumulation"), diagonal(RESUMED, [1, 2]))
def test_a_resumed_run_ends_with_the_same_weights_to_the_bit(tmp_path, estimator, accumulation):
    options = {"estimator": estimator, "max_steps": 6, "gradient_accumulation_steps": accumulation, "weight_decay": 0.1}
    whole = trainer(tmp_path / "whole", **options)
    whole.train()
    first = trainer(tmp_path / "cut", save_strategy="steps", save_steps=4, **options)
    first.train()
    second = trainer(tmp_path / "cut", **options)
    second.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-4"))
    assert torch.equal(vector(second.model), vector(whole.model))
    assert not torch.equal(vector(second.model), vector(tiny()))
    assert second._zeroth_order.evaluations == whole._zeroth_order.evaluations
    state = json.loads((tmp_path / "cut" / "checkpoint-4" / "trainer_state.json").read_text())
    assert state["global_step"] == 4
    rates = [[row["learning_rate"] for row in t.state.log_history if "loss" in row] for t in (whole, second)]
    assert rates[0] == pytest.approx(rates[1])


def test_logs_evaluations_and_callbacks_are_those_of_trainer(tmp_path):
    logs = Logs()
    options = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    ours = trainer(
        tmp_path, tiny(), estimator=methods.make("mezo", n=3), callbacks=[logs], load_best_model_at_end=True, **options
    )
    found = ours.train()
    losses = [row for row in logs.rows if "loss" in row]
    assert [row["loss_evaluations"] for row in losses] == [6, 12, 18, 24]
    assert not any("grad_norm" in row for row in logs.rows)
    rates = [row["learning_rate"] for row in losses]  # older releases log that of the next step
    assert rates in (pytest.approx([1e-3, 0.75e-3, 0.5e-3, 0.25e-3]), pytest.approx([0.75e-3, 0.5e-3, 0.25e-3, 0.0]))
    assert len([row for row in logs.rows if "eval_loss" in row]) == 2
    assert found.training_loss == pytest.approx(sum(row["loss"] for row in losses) / 4, abs=1e-3)
    assert (tmp_path / "checkpoint-4" / "model.safetensors").exists()
    assert ours.state.best_model_checkpoint is not None


def events(folder: Path) -> list[tuple[int, str, float]]:
    """Step, name and value of every number in TensorBoard's files: records of length u64, crc, data, crc."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for file in sorted(folder.rglob("events.out.tfevents.*")):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            data = data[16 + length :]
    return found


def test_tensorboard_is_told_what_the_log_says(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    options = {"report_to": "tensorboard", "eval_strategy": "steps", "eval_steps": 2}
    ours = trainer(tmp_path / "out", tiny(), estimator=methods.make("mezo", n=3), **options)
    ours.train()
    told = events(tmp_path)
    assert [(step, value) for step, tag, value in told if tag == "train/loss_evaluations"] == [
        (1, 6.0), (2, 12.0), (3, 18.0), (4, 24.0),
    ]  # fmt: skip
    logged = [row["loss"] for row in ours.state.log_history if "loss" in row]
    assert [value for _, tag, value in told if tag == "train/loss"] == pytest.approx(logged, rel=1e-6)
    assert [step for step, tag, _ in told if tag == "eval/loss"] == [2, 4]
    assert not [tag for _, tag, _ in told if "grad_norm" in tag]


def test_training_descends(tmp_path):
    """On one batch, as the last one of the log tells."""
    ours = trainer(tmp_path, max_steps=60, learning_rate=0.02, estimator=methods.make("mezo", n=4), num_train_epochs=60)
    ours.train_dataset = rows(32)[28:]
    ours.train()
    losses = [row["loss"] for row in ours.state.log_history if "loss" in row]
    assert losses[-1] < losses[0] - 0.1


def test_parameters_are_named_and_decay_as_trainer_says(tmp_path):
    ours = trainer(tmp_path, weight_decay=0.1)
    optimizer = ours.create_optimizer()
    assert isinstance(optimizer, ZerothOrder) and optimizer is ours.create_optimizer()
    decayed, spared = (group["param_names"] for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert set(decayed) | set(spared) == {name for name, _ in ours.model.named_parameters()}
    assert all("bias" in name or "norm" in name for name in spared)
    frozen = tiny()
    for parameter in frozen.model.decoder.embed_tokens.parameters():
        parameter.requires_grad_(False)
    names = [
        name for group in trainer(tmp_path, frozen).create_optimizer().param_groups for name in group["param_names"]
    ]
    assert "model.decoder.embed_tokens.weight" not in names and names


def test_a_loss_that_is_not_finite_skips_the_step(tmp_path):
    def bad(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        return outputs["logits"].sum() * math.nan

    ours = trainer(tmp_path, compute_loss_func=bad, max_steps=2)
    with pytest.warns(RuntimeWarning, match="the step is skipped"):
        ours.train()
    assert torch.equal(vector(ours.model), vector(tiny()))
    assert ours._zeroth_order.skipped == 2


def test_what_cannot_work_is_refused(tmp_path):
    with pytest.raises(TypeError, match="estimator is 'mezo'"):
        trainer(tmp_path, estimator="mezo")
    model = tiny()
    optimizers = (torch.optim.SGD(model.parameters(), 0.1), None)
    args = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    with pytest.raises(ValueError, match="makes its own optimizer"):
        ZerothOrderTrainer(model=model, args=args, optimizers=optimizers)
    args.fp16 = True
    with pytest.raises(ValueError, match=r"leave it out, or give bf16=True, .* keeps weights in float32"):
        ZerothOrderTrainer(model=model, args=args)


class Stop(TrainerCallback):
    """Ends training at the second micro-batch of the second step."""

    done = False

    def on_substep_end(self, args, state, control, **kwargs):
        if state.global_step == 1 and not self.done:
            self.done = control.should_training_stop = True
        return control


def test_micro_batches_of_an_unfinished_window_are_dropped(tmp_path, monkeypatch):
    ours = trainer(tmp_path, callbacks=[Stop()], gradient_accumulation_steps=4, max_steps=3)
    ours.train()
    counts, loss = [], ours._loss
    monkeypatch.setattr(ours, "_loss", lambda model, parts: (counts.append(len(parts)), loss(model, parts))[1])
    ours.train()
    assert counts and set(counts) == {4}


@pytest.mark.parametrize(
    "option",
    [
        {"neftune_noise_alpha": 5.0},
        {"optim": "adafactor"},
        {"adam_beta2": 0.95},
        {"max_grad_norm": 0.3},
        {"gradient_checkpointing": True},
    ],
)
def test_arguments_that_mean_nothing_here_are_told(tmp_path, option):
    with pytest.warns(UserWarning, match=f"ignores {next(iter(option))}: there are no gradients"):
        trainer(tmp_path, **option)
    trainer(tmp_path, max_grad_norm=0.0)  # off is off


@pytest.mark.parametrize("dtype", sampled([torch.bfloat16, torch.float16], lambda dtype: dtype is torch.bfloat16))
def test_weights_of_16_bits_follow_the_step_or_tell_that_they_do_not(tmp_path, dtype):
    ends = {}
    for kind in (torch.float32, dtype):
        ours = trainer(tmp_path, tiny().to(kind), lr_scheduler_type="constant", learning_rate=1e-7)
        if kind == dtype:
            with pytest.warns(RuntimeWarning, match=r"16 bits round this step away: .* rates of 1e-07") as told:
                ours.train()
            assert len([w for w in told if "16 bits" in str(w.message)]) == 1
        else:
            ours.train()
        ends[kind] = float((vector(ours.model) - vector(tiny().to(kind))).norm())
    assert ends[dtype] <= 2 * ends[torch.float32]  # not the length of the way back


def test_bf16_autocast_trains(tmp_path):
    ours = trainer(tmp_path, bf16=True, max_steps=2, estimator=methods.make("mezo", epsilon=0.01))
    ours.train()
    assert next(ours.model.parameters()).dtype == torch.float32
    assert not torch.equal(vector(ours.model), vector(tiny()))
