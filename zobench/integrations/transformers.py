"""ZerothOrderTrainer: the Trainer of transformers, training with forward passes only."""

import warnings
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from zobench import methods
from zobench.estimator import Estimator
from zobench.forward_only import Closure
from zobench.layout import CPU
from zobench.optim import ZerothOrder

MEZO = methods.make("mezo")

IGNORED = (
    "optim", "optim_args", "optim_target_modules", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm",
    "neftune_noise_alpha", "gradient_checkpointing", "torch_empty_cache_steps",
)  # fmt: skip

Microbatch = tuple[dict[str, Any], Any]


class ZerothOrderTrainer(Trainer):  # type: ignore[misc]
    """A transformers.Trainer whose step is that of ZerothOrder with this estimator: x <- (1 - lr wd) x - lr g.

    The loss of a step is that of Trainer: over the micro-batches of `gradient_accumulation_steps` the mean over all
    their items where the model takes `num_items_in_batch`, else the mean of their means; all of them are held until the
    step. The model is in evaluation mode throughout, so there is no dropout. Directions are keyed by the parameters'
    names and `args.seed`; `learning_rate`, the scheduler and `weight_decay` are Trainer's; arguments that mean nothing
    here (IGNORED: `optim`, Adam's, `max_grad_norm`, `neftune_noise_alpha`, `gradient_checkpointing`) are told by a
    warning where they were given. Logs have `loss_evaluations`, the evaluations of that loss so far, in place of
    `grad_norm`. Weights that are loaded in 16 bits are stepped, rounded and warned of as in ZerothOrder.

    Started by torchrun or `accelerate launch`, all processes take one step together: the loss is the mean of those of
    their micro-batches, of which they exchange the values alone. There is no DistributedDataParallel, whose buffers are
    as large as the model.

    The step is taken in `training_step` of the last micro-batch; the callback on_pre_optimizer_step comes after it.

    Raises:
        ValueError: an optimizer is given, or args ask for fp16 (its loss scaler needs gradients; bf16=True keeps
            float32 weights), several devices in one process, DeepSpeed or FSDP.
        TypeError: the estimator is no Estimator.
    """

    optimizer: Any

    def __init__(self, *args: Any, estimator: Estimator = MEZO, rounding: str = "nearest", **kwargs: Any) -> None:
        if not isinstance(estimator, Estimator):
            raise TypeError(f"estimator is {estimator!r}: give an estimator, such as zobench.methods.make('mezo')")
        super().__init__(*args, **kwargs)
        self.estimator, self.rounding = estimator, rounding
        self._microbatches: list[Microbatch] = []
        self.add_callback(_Fresh(self._microbatches))
        _require_supported(self)
        # As for an evaluation: without DistributedDataParallel, whose buffers are for gradients.
        self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)
        _tell_ignored(self.args)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return a ZerothOrder over the trainable parameters; those that Trainer spares from decay are a group."""
        if self.optimizer is None:
            model = self.model if model is None else model
            decaying = set(self.get_decay_parameter_names(model))
            named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
            parts = [[pair for pair in named if (pair[0] in decaying) is decays] for decays in (True, False)]
            groups = [
                {"params": part, "weight_decay": decay}
                for part, decay in zip(parts, (self.args.weight_decay, 0.0), strict=True)
                if part
            ]
            options = {"seed": self.args.seed, "rounding": self.rounding}
            self.optimizer = _Stepped(groups, self.estimator, self.args.learning_rate, **options)
        optimizer: torch.optim.Optimizer = self.optimizer
        return optimizer

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Hold the micro-batch; at the last one take the step and return its loss, before that 0."""
        self._microbatches.append((self._prepare_inputs(inputs), num_items_in_batch))
        if not self.accelerator.sync_gradients:
            return torch.zeros((), dtype=torch.float32, device=self.args.device)
        microbatches = self._microbatches.copy()
        self._microbatches.clear()
        model.eval()
        loss = self._zeroth_order.take(partial(self._loss, model, microbatches))
        return loss.to(self.args.device, torch.float32)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log as Trainer, with the loss evaluations so far."""
        if "loss" in logs:
            logs = {name: value for name, value in logs.items() if name != "grad_norm"}
            logs["loss_evaluations"] = self._zeroth_order.evaluations
        super().log(logs, *args, **kwargs)

    @property
    def _zeroth_order(self) -> "_Stepped":
        """The optimizer, taken out of what accelerate wraps it in."""
        optimizer: _Stepped = getattr(self.optimizer, "optimizer", self.optimizer)
        return optimizer

    def _loss(self, model: nn.Module, microbatches: list[Microbatch]) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=CPU)
        for inputs, items in microbatches:
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, dict(inputs), num_items_in_batch=items)
            total += loss.double().cpu() / (1 if self._is_shared_out(items) else len(microbatches))
        return total

    def _is_shared_out(self, items: Any) -> bool:
        """Whether a micro-batch's loss is already its share of that of the step, by Trainer's rule."""
        declared: bool | None = getattr(self, "loss_is_scaled_for_ga", None)
        if declared is not None:
            return declared
        return bool((self.model_accepts_loss_kwargs and items is not None) or self.compute_loss_func)


class _Stepped(ZerothOrder):
    """A ZerothOrder that takes its step before the loop asks for it."""

    def take(self, closure: Closure) -> Tensor:
        return self._step(closure)

    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """Return the loss of the step that was taken."""
        return self.loss


class _Fresh(TrainerCallback):  # type: ignore[misc]
    """Drops the micro-batches of a window that an earlier train() left unfinished."""

    def __init__(self, microbatches: list[Microbatch]) -> None:
        self.microbatches = microbatches

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin with an empty window."""
        self.microbatches.clear()


def _tell_ignored(args: TrainingArguments) -> None:
    """Warn of arguments that were given and mean nothing in a step without gradients."""
    defaults = {field.name: field.default for field in fields(args)}
    given = [
        name
        for name in IGNORED
        if getattr(args, name, None) and _text(getattr(args, name)) != _text(defaults.get(name))
    ]
    if given:
        warnings.warn(
            f"ZerothOrderTrainer ignores {', '.join(given)}: there are no gradients, its optimizer is ZerothOrder, and "
            "the model is in evaluation mode, without dropout and noise",
            UserWarning,
            stacklevel=3,
        )


def _text(value: Any) -> str:
    return str(getattr(value, "value", value))


def _require_supported(trainer: ZerothOrderTrainer) -> None:
    args = trainer.args
    if trainer.optimizer is not None or getattr(trainer, "optimizer_cls_and_kwargs", None) is not None:
        raise ValueError("ZerothOrderTrainer makes its own optimizer: give estimator= instead of optimizers=")
    if args.fp16:
        raise ValueError(
            "fp16=True scales losses for their gradients: leave it out, or give bf16=True, which computes in 16 bits "
            "and keeps weights in float32 (weights of 16 bits lose small steps by rounding)"
        )
    if args.n_gpu > 1:
        raise ValueError(
            f"{args.n_gpu} devices are visible to one process: start one process for each by torchrun "
            f"--nproc-per-node {args.n_gpu}, or make one visible, as by CUDA_VISIBLE_DEVICES=0"
        )
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        raise ValueError("DeepSpeed and FSDP shard parameters that one process must hold: leave them out")
