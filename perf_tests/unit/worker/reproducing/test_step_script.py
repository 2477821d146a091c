"""The script of a row runs as it is, and does in a step what the suite counts there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perf_tests.harness.reproducing.script import script
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import Device
from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes.rows import INT8DQ
from perf_tests.worker.inspection import kernels
from perf_tests.worker.measure.clock import HostClock
from perf_tests.worker.quantization import apply


def test_the_script_of_a_row_does_what_the_suite_counts(
    make_case: Callable[..., Case], make_pipeline: Callable[..., Any], tmp_path: Path
) -> None:
    recipe = Recipe(scheme=INT8DQ, fuse_qkv=True)
    case, pipeline = make_case(recipe), make_pipeline(recipe)
    apply.apply(pipeline, case.build)
    counted = kernels.measure(pipeline, case, HostClock(), kernels.UNITS[Device.CPU])
    file = tmp_path / "step.py"
    file.write_text(script(case, Device.CPU, file.name))
    # Nothing of this checkout, which is not where a maintainer of torch runs it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, str(file), "--steps=3", "--generations=1", f"--profile={tmp_path / 'step.json'}"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert re.search(
        r"^ms per step: median [\d.]+, [\d.]+ to [\d.]+ in 2 steps$", result.stdout, re.MULTILINE
    )
    assert f"{counted.values['operators_per_step']:.0f} events of category cpu_op" in result.stdout
