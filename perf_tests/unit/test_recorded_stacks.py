"""requirements/<platform>.txt and baselines/<platform> are of one stack: counts of two are not compared.

And what keeping compile caches rests on: a process that loads what was compiled has the peaks of one that
compiles.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from perf_tests.harness.baselines import files
from perf_tests.tables.platforms import PLATFORM_BY_ID

ROOT = Path(__file__).parents[2]
RECORDED_WITH = {
    path.stem: path for path in sorted((ROOT / "requirements").glob("*.txt")) if path.stem in PLATFORM_BY_ID
}
"""Platform id -> the constraints that reproduce the stack of its committed baselines."""
each_platform = pytest.mark.parametrize("platform", RECORDED_WITH)
each_recorded = pytest.mark.parametrize(
    "platform", [name for name in RECORDED_WITH if files.load(ROOT / "baselines", name)]
)
"""Constraints come first: what they install records the first baselines."""


def pinned(path: Path) -> dict[str, str]:
    lines = (line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    return dict(line.split("==") for line in lines)


def recorded(platform: str) -> dict[str, dict[str, str]]:
    """Case id -> package -> version, without torch's build and commit."""
    return {
        case_id: {
            name: re.split(r"[+ ]", version)[0]
            for name, version in baselines.provenance[entry.provenance].packages.items()
        }
        for baselines in files.load(ROOT / "baselines", platform).values()
        for case_id, entry in baselines.cases.items()
    }


def test_every_gpu_with_baselines_has_the_constraints_of_their_stack() -> None:
    recorded_on = {
        name for name, each in PLATFORM_BY_ID.items() if each.gpu and files.load(ROOT / "baselines", name)
    }

    assert "h100" in recorded_on
    assert not recorded_on - RECORDED_WITH.keys(), (
        "write requirements/<platform>.txt with the versions that its baselines name, or copy that of a "
        "platform, where they were recorded with the same: `.ci/stack` and workflows install from it"
    )


@each_platform
def test_baselines_are_of_the_stack_that_the_constraints_install(platform: str) -> None:
    pins, path = pinned(RECORDED_WITH[platform]), RECORDED_WITH[platform].name
    differing = {
        f"{case_id}: {name} {version}, but requirements/{path} has {pins.get(name, 'none')}"
        for case_id, packages in recorded(platform).items()
        for name, version in packages.items()
        if pins.get(name) != version
    }

    assert not differing, f"see 'Move to another stack' in .github/CONTRIBUTING.md: {sorted(differing)}"


@each_recorded
def test_constraints_pin_torch_and_everything_else_that_decides_numbers(platform: str) -> None:
    named = {name for packages in recorded(platform).values() for name in packages}

    assert {"torch", "triton", "torchao", "diffusers", "transformers", "numpy"} <= named
    assert named <= pinned(RECORDED_WITH[platform]).keys()


def test_processes_that_compile_cold_and_warm_have_the_same_peaks() -> None:
    peaks = {
        (case_id, name): entry.metrics[name]
        for baselines in files.load(ROOT / "baselines", "h100").values()
        for case_id, entry in baselines.cases.items()
        if {"compile_cold_s", "compile_warm_s"} <= entry.metrics.keys()
        for name in ("peak_allocated_mib", "peak_reserved_mib")
    }

    assert len(peaks) >= 2 * 3
    most = {"peak_allocated_mib": 0.0, "peak_reserved_mib": 22.0}
    assert not {key: values for key, values in peaks.items() if max(values) - min(values) > most[key[1]]}
