"""A folder to build stacks in, for each test one of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from perf_tests.harness.environments import uv
from perf_tests.unit.harness.environments import fake_uv
from perf_tests.unit.harness.environments.homes import prepared


@pytest.fixture
def home_with_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each command of the stand-in is a process, as uv's are."""
    return prepared(tmp_path, monkeypatch)


@pytest.fixture
def home(home_with_processes: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in runs in this process, since twenty interpreters a build take longer than all else."""
    output_of = uv.output_of

    def called(
        command: Sequence[str], *, folder: Path | None = None, variables: Mapping[str, str] | None = None
    ) -> str:
        if command[0] != "uv":
            return output_of(command, folder=folder, variables=variables)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder or Path.cwd())
            for name, value in (variables or {}).items():
                patch.setenv(name, value)
            fake_uv.main(command[1:])
        return ""

    monkeypatch.setattr(uv, "output_of", called)
    return home_with_processes
