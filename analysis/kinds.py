"""The kinds of result rows: their columns, and which command writes them."""

from zobench.figures.frame import BIAS, Kind

_TRAINING = ("model", "task", "method", "estimator", "seed")
IDENTITY = _TRAINING
UNREPORTED = frozenset(
    {
        *("environment", "measurement", "bench", "skipped", "divergence", "rounding", "note", "bench-slope"),
        *(
            "trial",
            "audit",
            "audit-check",
            "smoke",
            "smoke-llm",
            "bench-first-order",
            "bench-method",
            "bench-compiled",
            "bench-quantised-time",
            "bench-quantised-product",
            "bench-quantised-bytes",
            "bench-quantised-peak",
            "gpu-check",
            "gpu-claim",
            "gpu-job",
            "gpu-smollm2",
            "gpu-streamed",
            "gpu-waits",
            "claim-part",
        ),
    }
)
_CONVERGE = "python -m synthetic converge"
_TRAIN = "python -m llm train"

_FINAL_OPTIONAL = (
    *("step", "forward_passes", "backward_passes", "seconds", "peak_mb", "test_loss", "test_accuracy"),
    *("test_examples", "best_step", "selected_step", "weights", "dev_loss", "metric"),
)

_PHASE_PLACE = ("map", "dim", "bend", "noise", "evaluations", "common_epsilon")
_PHASE_OPTIONAL = (
    *("estimator", "n", "bias", "best_lr", "least_mse", "fastest", "samples", "measured_mse", "measured_mse_error"),
    *("measured_decrease", "measured_decrease_error", "realised_decrease"),
)
_DESCENT_OPTIONAL = (
    *("estimator", "epsilon", "noise", "steps", "first_lr", "predicted", "realised", "start_gap", "final_gap"),
    *("first_predicted", "predicted_share", "realised_share"),
)
_MOMENTS = ("slope_second_moment", "noise_second_moment", "m1", "m3", "m5", "m7")
_PLAYED = ("nodes", "probabilities", "values")
_DESIGN = "python -m synthetic design"
_NOISE = "python -m llm noise"
_MODEL = ("model", "task", "dtype")
_BENCH, _PROFILE = "python -m llm bench", "python -m llm profile"
_ENGINE = ("engine", "law", "rows")
_CLAIMS = "python -m synthetic claims"
_PARTS = ("truncation", "along_gradient", "rounding", "second_moment", "error")
_KERNEL_PARTS = ("kernel_truncation", "kernel_along_gradient", "kernel_second_moment")
_ERRORS = tuple(f"{name}_error" for name in (*_PARTS, *_KERNEL_PARTS))

KINDS: dict[str, Kind] = {
    "bias": BIAS,
    "kernel": Kind(
        "python -m synthetic kernels",
        ("name", "r", "values"),
        ("order", "constant", "first_moment", "moments", "second_moment_r2k2", "second_moment_k2", "note"),
        ("name", "r", "values", "moments", "note"),
    ),
    "tune": Kind(
        _CONVERGE,
        ("method", "problem", "dim", "lr"),
        ("seeds", "loss", "status"),
        ("method", "problem", "status", "seeds"),
    ),
    "converge": Kind(
        _CONVERGE,
        ("method", "problem", "dim", "seed", "evaluations", "loss"),
        ("estimator", "lr", "epsilon", "step", "gap", "status"),
        ("method", "problem", "estimator", "status"),
    ),
    "end": Kind(_CONVERGE, ("method",), (), ("method",)),
    "phase": Kind(
        "python -m synthetic phase",
        (*_PHASE_PLACE, "method", "epsilon", "predicted_mse", "predicted_decrease"),
        _PHASE_OPTIONAL,
        ("map", "method", "estimator"),
    ),
    "descent": Kind(
        "python -m synthetic descent",
        ("problem", "dim", "method", "rate", "seed", "evaluations", "cost", "z"),
        _DESCENT_OPTIONAL,
        ("problem", "method", "rate", "estimator"),
    ),
    "design": Kind(
        _DESIGN,
        ("family", "name", "order", "noise_share", "second_moment"),
        ("noise_to_gradient", "evaluations", "scale", *_PLAYED, *_MOMENTS, "bound", "legendre_second_moment"),
        ("family", "name", *_PLAYED),
    ),
    "road": Kind(
        _DESIGN,
        ("name", "order", "noise_share", "evaluations", "cost"),
        ("family", "stencil", "noise_to_gradient", "second_moment", *_PLAYED, *_MOMENTS),
        ("family", "name", "stencil", *_PLAYED),
    ),
    "epsilon": Kind(
        "python -m synthetic epsilon",
        ("problem", "dtype", "noise", "best_epsilon", "best_excess", "auto_epsilon", "auto_excess", "ratio"),
        (
            *("dim", "slope_square", "worst_ratio", "within", "fixed_epsilon", "fixed_excess", "fixed_ratio"),
            *("evaluations", "choices"),
        ),
        ("problem", "dtype"),
    ),
    "noise-level": Kind(
        _NOISE,
        (*_MODEL, "epsilon", "noise", "slope", "third"),
        ("weights", "stencil", "rounding", "evaluations", "parameters"),
        (*_MODEL, "weights"),
    ),
    "noise-report": Kind(
        _NOISE,
        (*_MODEL, "epsilon", "relative_error", "relative_error_error", "along_gradient", "along_gradient_error"),
        ("weights", "lines", "gradient_norm"),
        (*_MODEL, "weights"),
    ),
    "error-parts": Kind(
        "python -m llm errors",
        (*_MODEL, "trained", "epsilon", "lines", "parameters", *_PARTS, "removable"),
        ("weights", "gradient_norm", *_KERNEL_PARTS, *_ERRORS),
        (*_MODEL, "trained", "weights"),
    ),
    "claim-check": Kind(
        _CLAIMS,
        ("part", "quantity", "method", "predicted", "measured", "measured_error"),
        ("problem", "dim", "epsilon", "scale", "samples"),
        ("part", "quantity", "method", "problem"),
    ),
    "claim-large": Kind(
        _CLAIMS,
        ("problem", "dim", "noise", "method", "epsilon", "evaluations", "mse", "mse_error"),
        ("steps",),
        ("problem", "noise", "method"),
    ),
    "arm-run": Kind(
        "python -m llm compare",
        ("group", "task", "arm", "seed", "status"),
        ("lr", "model", "method", "test_accuracy", "test_examples", "metric", "forward_passes", "seconds", "curve"),
        ("group", "task", "arm", "status", "model", "method", "metric", "curve"),
    ),
    "bench-step": Kind(
        _BENCH,
        ("size", "dtype", "batch", "tokens", "job", "seconds"),
        ("threads", "device", *_ENGINE, "of_limit", "speedup", "bar", "bar_speedup"),
        ("size", "dtype", "job", "seconds", "device", *_ENGINE),
    ),
    "bench-memory": Kind(
        _BENCH,
        ("size", "dtype", "job", "peak_mb"),
        ("model_mb", "largest_mb", "reserved_mb", "of_inference", "limit_mb", "held", "device"),
        ("size", "dtype", "job", "device"),
    ),
    "bench-sweep": Kind(
        _BENCH,
        ("law", "path", "numbers_per_second"),
        ("copied_per_second", "of_copy", "device", "dtype"),
        ("law", "path", "device", "dtype"),
    ),
    "bench-adapter": Kind(
        _BENCH,
        ("size", "adapter", "seconds", "limit_seconds"),
        ("trainable", "of_limit", "bar"),
        ("size", "adapter", "seconds", "limit_seconds"),
    ),
    "bench-scaling": Kind(
        _BENCH, ("size", "parameters", "batch", "tokens", "job", "seconds"), (), ("size", "job", "seconds")
    ),
    "bench-scaling-fit": Kind(
        _BENCH, ("job", "parameters_exponent", "tokens_exponent", "batch_exponent"), ("residual",), ("job",)
    ),
    "profile": Kind(
        _PROFILE,
        ("size", "dtype", "batch", "tokens", "part", "seconds"),
        (*_ENGINE, "share"),
        ("size", "dtype", "part", *_ENGINE),
    ),
    "motion": Kind(
        "python -m llm rounding",
        ("model", "dtype", "rounding", "step", "moved", "cosine"),
        ("engine", "lr", "length"),
        ("model", "dtype", "rounding", "engine"),
    ),
    "step": Kind(
        _TRAIN,
        ("step",),  # the journal leaves the identity to the run's other rows
        (*_TRAINING, "forward_passes", "seconds", "peak_mb", "train_loss", "lr"),
        _TRAINING[:4],
    ),
    "evaluation": Kind(
        _TRAIN,
        (*_TRAINING, "step", "forward_passes"),
        ("backward_passes", "seconds", "peak_mb", "train_loss", "dev_loss", "dev_accuracy", "metric"),
        (*_TRAINING[:4], "metric"),
    ),
    "baseline": Kind(
        _TRAIN,
        ("model", "task", "name"),
        ("seed", "dev_accuracy", "test_accuracy", "test_examples", "forward_passes", "seconds", "peak_mb"),
        ("model", "task", "name"),
    ),
    "also": Kind(
        _TRAIN,
        (*_TRAINING, "set", "when", "step", "accuracy"),
        ("loss", "metric", "examples"),
        (*_TRAINING[:4], "set", "when", "metric"),
    ),
    "final": Kind(_TRAIN, (*_TRAINING, "status"), _FINAL_OPTIONAL, (*_TRAINING[:4], "status", "weights", "metric")),
    "chosen": Kind(
        "python -m llm study", ("method", "lr", "rates"), ("dev_losses",), ("method", "rates", "dev_losses")
    ),
    "failure": Kind(_TRAIN, _TRAINING, ("reason", "step"), (*_TRAINING[:4], "reason")),
}
