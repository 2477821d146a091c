"""What the worker says of itself before it is asked anything."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from perf_tests.protocol.messages import PROTOCOL_VERSION, Ready
from perf_tests.protocol.reports import Environment, Gpu
from perf_tests.tables.metrics.spec import INSTRUCTION_SET
from perf_tests.tables.platforms import H100, PLATFORM_BY_ID
from perf_tests.unit.fake_worker.endings import hang
from perf_tests.unit.fake_worker.switches import Switches

OMP = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")
GPU = Gpu(
    name="NVIDIA H100 80GB HBM3",
    uuid="GPU-00000000-fake",
    capability=(9, 0),
    memory_gib=80.0,
    power_limit_w=700.0,
    driver="575.57",
)


def ready(switches: Switches) -> Ready:
    """The first message."""
    if switches.argument("no-torch") is not None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    if switches.argument("die-on-start") is not None:
        sys.exit(3)
    dead = switches.argument("dead-card")
    if dead is not None and dead == os.environ.get("CUDA_VISIBLE_DEVICES"):
        sys.exit("CUDA error: device not ready")
    if switches.argument("hang-on-start") is not None:
        hang()
    environment = Environment(
        python="3.11.7",
        packages=_packages(switches),
        gpu=_gpu(os.environ.get("CUDA_VISIBLE_DEVICES"), switches.argument("platform")),
        cpu_model="fake processor",
        cpu_count=2,
        settings={"float32_matmul_precision": "highest"} | _instructions(switches),
        variables={name: os.environ[name] for name in OMP if name in os.environ},
    )
    old = switches.argument("old-protocol") is not None
    return Ready(protocol_version=0 if old else PROTOCOL_VERSION, environment=environment)


def _packages(switches: Switches) -> dict[str, str]:
    torch, _, torchao = (switches.argument("versions") or "2.13.0+0.18.0").partition("+")
    if (marker := switches.argument("new-torch")) is not None:
        torch = "2.14.0" if Path(marker).exists() else torch
        Path(marker).touch()
    return {"torch": torch, "torchao": torchao, "diffusers": "0.42.1"}


def _instructions(switches: Switches) -> dict[str, str]:
    found = switches.argument("instructions")
    return {INSTRUCTION_SET: found} if found else {}


def _gpu(visible: str | None, platform_id: str | None) -> Gpu | None:
    """The card that is shown by its UUID, else always the same one; None where none is shown."""
    if visible == "":
        return None
    match = PLATFORM_BY_ID[platform_id or H100.id].gpu
    assert match is not None, f"{platform_id} has no card"
    return msgspec.structs.replace(
        GPU,
        name=match.name,
        uuid=visible if visible and visible.startswith("GPU-") else GPU.uuid,
        capability=match.capability,
        memory_gib=sum(match.memory_gib) / 2,
        power_limit_w=sum(match.power_limit_w) / 2,
    )
