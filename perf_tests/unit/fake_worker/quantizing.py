"""What a model reports that is only quantized and moved: times, figures, and where its weights are."""

from __future__ import annotations

from perf_tests.protocol.offloading import Placement
from perf_tests.tables.platforms import Device
from perf_tests.tables.recipes import QuantizedOn
from perf_tests.unit.fake_worker.subject import BYTES_PER_MODULE, Subject


def times(_subject: Subject) -> dict[str, tuple[float, ...]]:
    """Metric name -> what is measured of one answer."""
    return {"answer_ms": (50.0,), "latency_s": (0.05,), "device_latency_s": (0.05,)}


def values(subject: Subject) -> dict[str, float]:
    """Metric name -> what is known once everything was moved."""
    of_gpu = {"quantize_peak_vs_needed": 0.9} if subject.device is Device.CUDA else {}
    return {"move_s": 0.125, "answer_sqnr_db": 40.0, **of_gpu}


def begins_on_device(subject: Subject) -> bool:
    """Whether the weights of a model are on a GPU when they are quantized."""
    recipe = subject.case.build.recipe
    is_moved = not subject.case.build.pipeline.generates and not subject.has("stays-on-host")
    return is_moved and subject.device is Device.CUDA and recipe.quantized_on is QuantizedOn.DEVICE


def placement(subject: Subject) -> Placement | None:
    """Where the model was, and is; None where that is not said."""
    if subject.has("unreported-placement"):
        return None
    device, elsewhere = str(subject.device), "cpu" if subject.device is Device.CUDA else "meta"
    left = {elsewhere: BYTES_PER_MODULE} if subject.has("left-behind") else {}
    return Placement(
        device=device,
        before={"cpu": subject.weight_bytes},
        after={device: subject.weight_bytes - sum(left.values())} | left,
        plain={"Embedding": 1, "LlamaRMSNorm": 7},
    )
