"""What a build that trains answers: its times, its figures, and what it says was trained."""

from __future__ import annotations

from perf_tests.protocol.training import Float8Kernels, TrainingReport
from perf_tests.tables.platforms import Device
from perf_tests.tables.recipes import CompileMode
from perf_tests.unit.fake_worker.subject import MODULES, Subject

STEP_MS = 60.0
"""Of bf16 eager."""
PASSES = ("forward", "backward")


def times(subject: Subject) -> dict[str, tuple[float, ...]]:
    """Metric name -> what is measured of all steps of one seed."""
    recipe, steps = subject.case.build.recipe, subject.case.steps
    faster = (1.0 if recipe.compile is CompileMode.EAGER else 0.5) * (
        0.75 if recipe.trains_in_float8 else 1.0
    )
    step_ms = STEP_MS * faster
    return {
        "train_step_ms": (step_ms,) * (steps - 1),
        "trained_samples_per_s": (1000 / step_ms,),
        "latency_s": (step_ms * steps / 1000,),
        "device_latency_s": (step_ms * steps / 1000,),
    }


def values(subject: Subject) -> dict[str, float]:
    """Metric name -> what is known once everything was trained."""
    float8 = subject.case.build.recipe.trains_in_float8
    return {
        "adapter_elements": 163840.0,
        "train_loss": 2.5,
        "loss_difference_pct": 0.25 if float8 else 0.0,
        "largest_loss_difference_pct": 1.5 if float8 else 0.0,
        "gradient_cosine": 0.988 if float8 else 1.0,
        "gradient_error_vs_redrawn": 13.4 if float8 else 0.0,
        **({"gradient_error_vs_rounded": 1.03} if float8 else {}),
        "float8_modules": float(_float8(subject)),
        "float8_gemms_forward": float(_wanted(subject)),
        "float8_gemms_backward": float(_wanted(subject)),
        **(
            {"kernels_per_train_step": 4000.0, "train_busy_ms": 20.0} if subject.device is Device.CUDA else {}
        ),
    }


def report(subject: Subject) -> TrainingReport | None:
    """What was converted and trained; None where that is not said."""
    if subject.has("unreported-training"):
        return None
    ran = {"aten::_scaled_mm": MODULES} if _wanted(subject) else {}
    thaws, missing = subject.has("thaws"), subject.argument("no-float8")
    return TrainingReport(
        expected_float8=_wanted(subject),
        float8=_float8(subject),
        wrong_linears=tuple(f"transformer_blocks.{number}.attn.to_q" for number in range(subject.dropped)),
        adapters=40,
        adapter_dtypes=("float32",),
        idle_adapters=("transformer_blocks.0.attn.to_q.down",) if subject.has("idle-adapter") else (),
        frozen=140,
        frozen_sha256=("a" * 64, "b" * 64 if thaws else "a" * 64),
        changed=("transformer.norm_out.linear.weight",) if thaws else (),
        kernels=Float8Kernels(**{each: {} if each == missing else ran for each in PASSES}),
    )


def _wanted(subject: Subject) -> int:
    return MODULES if subject.case.build.recipe.trains_in_float8 else 0


def _float8(subject: Subject) -> int:
    return max(0, _wanted(subject) - subject.dropped)
