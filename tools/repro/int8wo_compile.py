"""On CUDA a compiled int8 weight-only layer takes hundreds of times as long as its bf16 twin.

    python tools/repro/int8wo_compile.py                    # every variant, each in a process of its own
    python tools/repro/int8wo_compile.py --variant default  # one of them; one line of JSON
    python tools/repro/int8wo_compile.py --slowdown         # default / bf16; one line of JSON

One Linear of FLUX.1-dev's feed-forward (in 3072, out 12288) on 4608 tokens in bf16, quantized with torchao's
Int8WeightOnlyConfig.

Cause: inductor's weight-only pattern (torch/_inductor/fx_passes/quantization.py, `_register_woq_lowerings`)
rewrites `mm(x, weight.to(bf16)) * scale` to `aten::_weight_int8pack_mm`. That was meant for CPUs; since
https://github.com/pytorch/pytorch/pull/159325 gave that op a CUDA kernel, which uses no tensor cores,
`_is_valid_woq_optimization_pattern` accepts CUDA as well, for any number of tokens.

Workaround: the patterns are registered while oneDNN is enabled, once per process, at the first compile. With
`torch.backends.mkldnn.set_flags(False)` before that, inductor converts the weight in a pointwise kernel,
calls the bf16 GEMM, and multiplies by the scale afterwards. Nothing else on a GPU uses oneDNN.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

IN_FEATURES, OUT_FEATURES = 3072, 12288
WARMUPS, REPETITIONS = 2, 5


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What is done to the layer."""

    quantized: bool = True
    compiled: bool = True
    onednn: bool = True
    pattern_matcher: bool = True


VARIANTS = {
    "bf16": Variant(quantized=False),
    "eager": Variant(compiled=False),
    "default": Variant(),
    "no-onednn": Variant(onednn=False),
    "no-pattern-matcher": Variant(pattern_matcher=False),
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """Measurements of one variant of the layer."""

    variant: str
    tokens: int
    layer_ms: float
    """Median of 5 calls: by device events, on a CPU by the host clock."""
    sqnr_db: float | None
    """Compared with the bf16 layer; None for identical outputs."""
    rewritten: int
    """How often inductor's weight-only pattern matched."""
    kernels: tuple[str, ...]
    """Names of the device kernels of one call, the longest first."""
    torch: str
    device: str


def main() -> None:
    """Print a table of all variants, or the JSON of one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", choices=VARIANTS)
    parser.add_argument("--slowdown", action="store_true")
    parser.add_argument("--tokens", type=int, default=4608)
    arguments = parser.parse_args()
    if arguments.variant is not None:
        print(json.dumps(asdict(measure(arguments.variant, arguments.tokens))))
        return
    if arguments.slowdown:
        print(json.dumps(slowdown(arguments.tokens)))
        return
    print(f"{'variant':20} {'ms':>9} {'SQNR dB':>8} {'rewritten':>9}  longest kernels")
    for variant in VARIANTS:
        found = _in_a_process(variant, arguments.tokens)
        kernels = ", ".join(name[:60] for name in found["kernels"][:3])
        sqnr = "-" if found["sqnr_db"] is None else f"{found['sqnr_db']:.1f}"
        print(f"{variant:20} {found['layer_ms']:9.3f} {sqnr:>8} {found['rewritten']:9}  {kernels}")


def slowdown(tokens: int) -> dict[str, Any]:
    """How many times as long as bf16 the compiled layer takes, and the measurements of both."""
    found = {name: measure(name, tokens) for name in ("bf16", "default")}
    ratio = found["default"].layer_ms / found["bf16"].layer_ms
    return {"slowdown": ratio, **{name: asdict(result) for name, result in found.items()}}


def _in_a_process(variant: str, tokens: int) -> dict[str, Any]:
    # Inductor registers its patterns once per process.
    command = [sys.executable, __file__, "--variant", variant, "--tokens", str(tokens)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(name: str, tokens: int) -> Result:
    """Build the layer, quantize and compile it as the variant says, and time it."""
    import torch
    from torch import nn

    variant = VARIANTS[name]
    torch.backends.mkldnn.set_flags(variant.onednn)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    layer = nn.Linear(IN_FEATURES, OUT_FEATURES, dtype=torch.bfloat16, device=device)
    rows = torch.randn(tokens, IN_FEATURES, dtype=torch.bfloat16, device=device)
    with torch.no_grad():
        reference = layer(rows).float()
        call = _prepare(layer, variant)
        error = call(rows).float() - reference
        sqnr_db = 20 * torch.log10(reference.norm() / error.norm()).item() if error.any() else None
        layer_ms = _median_ms(lambda: call(rows), device)
        kernels = _kernels(lambda: call(rows), device)
    from torch._dynamo.utils import counters

    return Result(
        variant=name,
        tokens=tokens,
        layer_ms=layer_ms,
        sqnr_db=sqnr_db,
        rewritten=counters["inductor"]["woq_matcher_count"],
        kernels=kernels,
        torch=torch.__version__,
        device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
    )


def _prepare(layer: Any, variant: Variant) -> Callable[[Any], Any]:
    import torch
    from torch._inductor import config as inductor

    inductor.pattern_matcher = variant.pattern_matcher
    # Otherwise the cache would return what was compiled with another setting.
    inductor.force_disable_caches = True
    if variant.quantized:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        quantize_(layer, Int8WeightOnlyConfig(set_inductor_config=False))
    return torch.compile(layer, dynamic=False) if variant.compiled else layer


def _median_ms(call: Callable[[], Any], device: Any) -> float:
    import time

    import torch

    for _ in range(WARMUPS):
        call()
    taken_ms = []
    for _ in range(REPETITIONS):
        if device.type != "cuda":
            start_s = time.perf_counter()
            call()
            taken_ms.append(1e3 * (time.perf_counter() - start_s))
            continue
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        taken_ms.append(start.elapsed_time(end))
    return statistics.median(taken_ms)


def _kernels(call: Callable[[], Any], device: Any) -> tuple[str, ...]:
    import torch
    from torch.profiler import ProfilerActivity, profile

    if device.type != "cuda":
        return ()
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        call()
        torch.cuda.synchronize()
    events = sorted(recorded.key_averages(), key=lambda event: -event.device_time_total)
    return tuple(event.key for event in events if event.device_time_total > 0)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
