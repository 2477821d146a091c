"""The hardware, packages and settings that this process runs with; pins those that decide numbers."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend

from perf_tests.protocol.reports import Environment, Gpu

PACKAGES = (
    "torch",
    "torchao",
    "triton",
    "diffusers",
    "transformers",
    "accelerate",
    "huggingface_hub",
    "safetensors",
    "tokenizers",
    "numpy",
    "mslk",
)
# Variables that change numbers; cache folders differ from run to run and change none.
VARIABLE_PREFIXES = ("TORCH", "PYTORCH", "OMP_", "MKL_", "OPENBLAS_", "KMP_", "TRITON_", "CUBLAS_", "CUDNN_")
VARIABLE_NAMES = ("CUDA_MODULE_LOADING", "CUDA_LAUNCH_BLOCKING", "NVIDIA_TF32_OVERRIDE")
VARIABLE_EXCEPTIONS = ("_CACHE_DIR", "_DIR", "_PATH", "_HOME")

SDPA_KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "mem_efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
"""Kernels of torch's attention, by their names in the switches of `torch.backends.cuda`."""


def describe(gpu: Gpu | None) -> Environment:
    """The environment of this process."""
    return Environment(
        python=platform.python_version(),
        packages=_packages(),
        gpu=gpu,
        cpu_model=_cpu_model(),
        cpu_count=len(os.sched_getaffinity(0)),
        settings=_settings(),
        variables={
            name: value
            for name, value in sorted(os.environ.items())
            if name in VARIABLE_NAMES
            or (name.startswith(VARIABLE_PREFIXES) and not name.endswith(VARIABLE_EXCEPTIONS))
        },
    )


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    found["torch"] = f"{torch.__version__} ({torch.version.git_version[:10]})"
    return found


def _cpu_model() -> str:
    """Model name, family and model number: hypervisors hide the name, and the numbers choose kernels."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name", platform.processor() or platform.machine())
    return f"{name} family {fields.get('cpu family', '?')} model {fields.get('model', '?')}"


def pin() -> None:
    """Reset what decides numbers to torch's own defaults, which images and packages may have changed.

    The attention backend of diffusers is pinned by the parent, with `DIFFUSERS_ATTN_BACKEND`.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    for name in SDPA_KERNELS:
        getattr(torch.backends.cuda, f"enable_{name}_sdp")(True)


def _sdpa() -> str:
    """The kernels that torch's attention may use, in the order in which it tries them."""
    enabled = {
        kernel.value: name
        for name, kernel in SDPA_KERNELS.items()
        if getattr(torch.backends.cuda, f"{name}_sdp_enabled")()
    }
    # Private: no public function tells the order, which decides what runs and has changed (in torch 2.5).
    order: list[int] = getattr(torch._C, "_get_sdp_priority_order", list)()
    return ", ".join(enabled[number] for number in order if number in enabled) or "order unknown"


def _settings() -> dict[str, str]:
    cudnn = torch.backends.cudnn
    return {
        "attention": f"{os.environ.get('DIFFUSERS_ATTN_BACKEND')}: {_sdpa()}",
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_allow_tf32": str(cudnn.allow_tf32),
        "cuda": str(torch.version.cuda),
        "cudnn": str(cudnn.version() if cudnn.is_available() else None),
        "threads": str(torch.get_num_threads()),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
