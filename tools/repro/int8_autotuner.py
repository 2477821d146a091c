"""torchao's own autotuner for int8 products ignores its file of tuned kernels unless it may tune as well.

    python tools/repro/int8_autotuner.py             # every variant, each in a process of its own
    python tools/repro/int8_autotuner.py --ignored   # the same, as one line of JSON

One product of FLUX.1-dev's attention (4608 tokens, 3072 -> 3072) through `torchao.kernel.int_scaled_matmul`,
whose 960 configurations are trimmed to 12 before the first call: all of them take half an hour a shape. On an
H200 with torch 2.11 and torchao 0.18 it takes 2.1 to 2.8 ms without, 0.19 to 0.26 ms with both variables.

Cause: `TORCHAO_AUTOTUNER_DATA_PATH` names the file, but both call sites ask `TORCHAO_AUTOTUNER_ENABLE` first
(torchao/kernel/intmm.py), so that the way to reuse a file that the README of diffusers-torchao gives, the
path alone, never reached a tuned kernel. With both variables a shape that is not in the file starts a search.

The autotuner is gone from torchao's main branch: where it is not found, nothing is ignored any more. The file
is a pickle: load only what you have written.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

TOKENS, IN_FEATURES, OUT_FEATURES = 4608, 3072, 3072
TUNED_KERNEL = "scaled_matmul_kernel_with_block_pointers"
TILES = ((128, 128, 64), (128, 128, 128), (128, 256, 128), (256, 128, 128))
STAGES = (2, 3, 4)
WARPS = 8
WARMUPS, REPETITIONS = 3, 15
ENABLE, DATA_PATH = "TORCHAO_AUTOTUNER_ENABLE", "TORCHAO_AUTOTUNER_DATA_PATH"
VARIANTS = {
    "off": (),
    "tuned": (ENABLE, DATA_PATH),
    "reused": (ENABLE, DATA_PATH),
    "path-alone": (DATA_PATH,),
}
"""In this order -> the variables that are set; the second one writes the file, the others find it."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Measurements of one variant of the product."""

    variant: str
    first_call_s: float
    """With the search, where there is one."""
    product_ms: float
    """Median by device events."""
    runs_tuned_kernel: bool
    sha256: str
    """Of the product: the same for every kernel, since integers add up exactly."""
    shapes_in_file: int
    file_sha256: str | None


def main() -> None:
    """Print a table of all variants, or one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ignored", action="store_true")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant is not None:
        print(json.dumps(asdict(measure(arguments.variant))))
        return
    found = results()
    if arguments.ignored:
        print(json.dumps({"ignored": ignored(found), "variants": [asdict(each) for each in found]}))
        return
    print(f"{'variant':12} {'first call s':>12} {'ms':>7} {'tuned kernel':>13} {'shapes':>7}  product, file")
    for each in found:
        file = (each.file_sha256 or "-")[:12]
        print(
            f"{each.variant:12} {each.first_call_s:12.1f} {each.product_ms:7.3f} "
            f"{each.runs_tuned_kernel!s:>13} {each.shapes_in_file:7}  {each.sha256[:12]}, {file}"
        )


def results() -> list[Result]:
    """Each variant in a process of its own; none where torchao has no autotuner."""
    # Not its submodules, which import triton.
    if importlib.util.find_spec("torchao") is None or not _has_autotuner():
        return []
    with tempfile.TemporaryDirectory() as folder:
        values = {ENABLE: "1", DATA_PATH: str(Path(folder) / "data.pkl")}
        return [
            _in_a_process(name, {each: values[each] for each in VARIANTS[name]}, folder) for name in VARIANTS
        ]


def ignored(found: list[Result]) -> int:
    """How many products did not run the kernel of the file, where its path is all that is set.

    Raises RuntimeError where the autotuner does not work with both variables either.
    """
    by_name = {each.variant: each for each in found}
    if not by_name:
        return 0
    tuned, reused = by_name["tuned"], by_name["reused"]
    if not (tuned.runs_tuned_kernel and reused.runs_tuned_kernel):
        raise RuntimeError(f"no kernel {TUNED_KERNEL} ran with both variables: {tuned}, {reused}")
    if (tuned.shapes_in_file, tuned.file_sha256) != (1, reused.file_sha256):
        raise RuntimeError(
            f"the file holds another number of shapes, or was written again: {tuned}, {reused}"
        )
    if len({each.sha256 for each in found}) != 1:
        raise RuntimeError(f"the products differ: {found}")
    return int(not by_name["path-alone"].runs_tuned_kernel)


def _has_autotuner() -> bool:
    import torchao

    return (Path(torchao.__file__).parent / "kernel" / "autotuner.py").exists()


def _in_a_process(variant: str, variables: dict[str, str], folder: str) -> Result:
    # Both variables are read when torchao is imported.
    others = {name: value for name, value in os.environ.items() if name not in (ENABLE, DATA_PATH)}
    environment = {**others, **variables, "REPRO_FILE": str(Path(folder) / "data.pkl")}
    command = [sys.executable, __file__, "--variant", variant]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return Result(**json.loads(done.stdout.splitlines()[-1]))


def measure(variant: str) -> Result:
    """Multiply, time it and name its kernel, with the variables that this process was started with."""
    import torch
    from torch.profiler import ProfilerActivity, profile
    from torchao.kernel import intmm, intmm_triton

    _trim(intmm_triton)
    torch.manual_seed(0)
    left = torch.randint(-127, 128, (TOKENS, IN_FEATURES), dtype=torch.int8, device="cuda")
    right = torch.randint(-127, 128, (OUT_FEATURES, IN_FEATURES), dtype=torch.int8, device="cuda").t()
    # A power of two, so that scaling rounds nothing.
    scales = torch.full((TOKENS, 1), 2.0**-10, device="cuda")

    def product() -> Any:
        return intmm.int_scaled_matmul(left, right, scales)

    started_s = time.perf_counter()
    value = product()
    torch.cuda.synchronize()
    first_call_s = time.perf_counter() - started_s
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        product()
        torch.cuda.synchronize()
    names = [event.key for event in recorded.key_averages()]
    shapes, file_sha256 = _file()
    return Result(
        variant=variant,
        first_call_s=first_call_s,
        product_ms=_median_ms(product),
        runs_tuned_kernel=any(TUNED_KERNEL in name for name in names),
        sha256=hashlib.sha256(value.float().cpu().numpy().tobytes()).hexdigest(),
        shapes_in_file=shapes,
        file_sha256=file_sha256,
    )


def _trim(intmm_triton: Any) -> None:
    """Leave 12 of the configurations; the list is read at each call."""
    configs = intmm_triton.int8_mm_kernel_configs
    configs[:] = [
        config
        for config in configs
        if (config.kwargs["BLOCK_M"], config.kwargs["BLOCK_N"], config.kwargs["BLOCK_K"]) in TILES
        and config.num_stages in STAGES
        and config.num_warps == WARPS
    ]


def _file() -> tuple[int, str | None]:
    """Number of shapes in the file, and its hash; it was written by another process of this script."""
    import pickle

    file = Path(os.environ["REPRO_FILE"])
    if not file.exists():
        return 0, None
    content = file.read_bytes()
    return len(pickle.loads(content)), hashlib.sha256(content).hexdigest()


def _median_ms(call: Any) -> float:
    import torch

    for _ in range(WARMUPS):
        call()
    taken_ms: list[float] = []
    for _ in range(REPETITIONS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        taken_ms.append(start.elapsed_time(end))
    return statistics.median(taken_ms)


if __name__ == "__main__":
    main()
