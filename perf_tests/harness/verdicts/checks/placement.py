"""Where a model is that is only quantized and moved, and was before; every contradiction is a sentence."""

from __future__ import annotations

from collections.abc import Iterator

from perf_tests.protocol.offloading import Placement
from perf_tests.protocol.reports import Quantization
from perf_tests.tables.platforms import Device
from perf_tests.tables.recipes import QuantizedOn, Recipe


def contradictions(
    recipe: Recipe, placement: Placement | None, quantization: Quantization | None
) -> Iterator[str]:
    """What of `placement`, and of where `quantization` found the weights, contradicts `recipe`."""
    if placement is None:
        yield "the worker did not say where the weights of the model were"
        return
    wanted = {"before it was quantized": Device.CPU, "after its last answer": placement.device}
    for (when, device), found in zip(wanted.items(), (placement.before, placement.after), strict=True):
        if not sum(found.values()):
            yield f"{when}, the model had no weights"
        for other in sorted(found.keys() - {device}):
            yield f"{when}, {found[other]} bytes of the model were on {other}, and all were to be on {device}"
    weights = None if quantization is None else quantization.weights
    # Of weights that are to be quantized on the host, this is checked of every recipe.
    on_device = recipe.quantized_on is QuantizedOn.DEVICE
    if on_device and weights is not None and weights.device != placement.device:
        yield (
            f"the recipe {recipe.id} quantizes weights of the device, {placement.device}, and they were on "
            f"{weights.device or 'a device that was not reported'}"
        )
