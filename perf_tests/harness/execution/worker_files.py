"""Where the files of workers lie: logs, captures and caches in the run directory, others beside it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from perf_tests.harness.lanes.cards import LaneCard
from perf_tests.harness.processes.worker_process import Worker
from perf_tests.harness.runs.directory import CACHE, CAPTURES, LOGS, PLANS
from perf_tests.tables.cases import Case


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerFiles:
    """The places of the files of one launcher's workers."""

    out: Path
    """The run directory."""
    card: LaneCard | None
    """That of several cards which the workers compute on, whose files have a folder of their own; None for a
    session on one."""
    artifacts: Path | None
    """The folder of compile-cache artifacts; None where none are loaded or saved."""
    plans: Path | None
    """The folder of the plans that searches find; None for one in the run directory."""

    @property
    def logs(self) -> Path:
        """The folder of the workers' logs."""
        return self.out / LOGS / self._folder

    def log_name(self, stem: str, index: int) -> str:
        """The path of a worker's log, relative to the run directory."""
        return f"{LOGS}/{self._folder}{stem}.{index}.log"

    def captures(self, stem: str, index: int) -> Path:
        """The beginning of the paths of what a process of a case leaves to be compared."""
        return self.out / CAPTURES / f"{self._folder}{stem}.{index}"

    def checkpoint(self, stem: str, index: int) -> Path:
        """The folder of what another worker saves for a process of a case; beside its compile caches, and
        removed with them at the latest."""
        return self.cache(stem) / f"checkpoint.{index}"

    def artifacts_of(self, case: Case, worker: Worker) -> Path | None:
        """The file of the compile-cache artifacts of `case`, None where there is no folder for them.

        They are valid for the torch, the triton and the GPU model of the worker only.
        """
        if self.artifacts is None:
            return None
        return self.artifacts / f"{_file_stem(case, worker, ('torch', 'triton'))}.bin"

    def plan_of(self, case: Case, worker: Worker) -> Path | None:
        """The file of the plan of `case`, None for a scheme without a search.

        It is valid for the torch, the triton, the torchao and the GPU model of the worker only.
        """
        if case.build.recipe.scheme.search is None:
            return None
        plans = self.plans or self.out / PLANS
        return plans / f"{_file_stem(case, worker, ('torch', 'triton', 'torchao'))}.json"

    def cache(self, stem: str) -> Path:
        """The folder of the compile caches of a case."""
        return self.out / CACHE / f"{self._folder}{stem}"

    def discard_cache(self, stem: str) -> None:
        """Remove the compile caches of a killed worker: what it was writing cannot be trusted."""
        shutil.rmtree(self.cache(stem), ignore_errors=True)  # no other run looks there

    @property
    def _folder(self) -> str:
        return f"{self.card.unit}/" if self.card else ""


def _file_stem(case: Case, worker: Worker, packages: tuple[str, ...]) -> str:
    """The name of a file that is valid for one case, these versions of `packages` and one GPU model."""
    environment = worker.environment
    versions = (f"{name}{environment.packages.get(name, 'none')}" for name in packages)
    device = environment.gpu.name if environment.gpu else environment.cpu_model
    parts = (case.id, case.digest[:16], *versions, device)
    return "-".join(parts).replace(" ", "_").replace("/", "_")
