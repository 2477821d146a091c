"""Starts the workers of a campaign, all of them on one stack, each with compile caches of its own."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from perf_tests.harness.execution import machine
from perf_tests.harness.execution.worker_process import Worker
from perf_tests.harness.runs.directory import CACHE, LOGS, PLANS
from perf_tests.harness.runs.environments import differences
from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.messages import Failure, FailureKind, Injection, Phase
from perf_tests.protocol.reports import Environment
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import Device, Platform


@dataclass(frozen=True, slots=True)
class Planned:
    """A case of this session, where it is measured and what is broken in it."""

    case: Case
    platform: Platform
    injections: tuple[Injection, ...] = ()
    smoke: bool = False
    """Whether it is only verified and generated once, without its fp32 twin: no time of it is judged."""


class Launcher:
    """Starts the workers of a campaign, all of them on one stack."""

    def __init__(
        self,
        out: Path,
        python: str,
        command: tuple[str, ...],
        *,
        environment: Environment | None = None,
        artifacts: Path | None = None,
        plans: Path | None = None,
    ) -> None:
        """`environment` is the one that a resumed run was begun with; `artifacts` the folder of compile-cache
        files, None for none; `plans` that of the plans of searches, None for one in `out`."""
        self.out = out
        self.environment = environment
        self._artifacts = artifacts
        self._plans = plans or out / PLANS
        self._python = python
        self._command = command
        self._workers: list[Worker] = []

    def start(self, planned: Planned, stem: str, index: int) -> Worker:
        """A worker that is ready; its log and its caches are named by `stem`.

        Raises WorkerError where it does not come up, computes elsewhere, or on another stack than before.
        """
        worker = self.spawn(planned, stem, index)
        try:
            self.greet(worker, planned)
        except BaseException:  # Ctrl-C, too, must not leave a process behind
            worker.kill()
            raise
        return worker

    def spawn(self, planned: Planned, stem: str, index: int) -> Worker:
        """As `start`, but a worker that is still importing: `greet` it before it is asked for anything.

        Raises WorkerError where the interpreter cannot be started.
        """
        worker = Worker.spawn(
            python=self._python,
            command=self._command,
            log=self.out / self.log_name(stem, index),
            variables=self._variables(planned.platform, stem),
        )
        self._workers.append(worker)
        return worker

    def greet(self, worker: Worker, planned: Planned) -> None:
        """Wait until a spawned worker is ready; WorkerError as `start` raises it, the worker killed."""
        worker.greet(planned.platform.timeouts.import_s)
        self.environment = self.environment or worker.environment
        if problem := machine.mismatch(planned.platform, worker.environment.gpu):
            worker.kill()
            raise WorkerError(Failure(kind=FailureKind.LOAD, phase=Phase.LOAD, message=problem))
        if changes := differences(self.environment.packages, worker.environment.packages):
            worker.kill()
            message = f"stack changed during the run: {', '.join(changes)}"
            raise WorkerError(Failure(kind=FailureKind.LOAD, phase=Phase.IMPORT, message=message))

    def kill_all(self) -> None:
        """End every worker that was started."""
        for worker in self._workers:
            worker.kill()

    def log_name(self, stem: str, index: int) -> str:
        """The log of a worker, relative to the run directory."""
        return f"{LOGS}/{stem}.{index}.log"

    def artifacts_of(self, case: Case, worker: Worker) -> Path | None:
        """The file with the compile-cache artifacts of `case` on the worker's stack and GPU; None without
        a folder for them. They are valid for the same torch, triton and GPU model only."""
        if self._artifacts is None:
            return None
        return self._artifacts / f"{_file_stem(case, worker, ('torch', 'triton'))}.bin"

    def plan_of(self, case: Case, worker: Worker) -> Path | None:
        """The file with the plan of `case` on the worker's stack and GPU; None for a scheme without a
        search."""
        if case.build.recipe.scheme.search is None:
            return None
        return self._plans / f"{_file_stem(case, worker, ('torch', 'triton', 'torchao'))}.json"

    def discard_cache(self, stem: str) -> None:
        """What a killed worker was writing cannot be trusted."""
        shutil.rmtree(self._cache(stem), ignore_errors=True)  # no other run looks there

    def _cache(self, stem: str) -> Path:
        return self.out / CACHE / stem

    def _variables(self, platform: Platform, stem: str) -> dict[str, str]:
        caches = {
            "TORCHINDUCTOR_CACHE_DIR": str(self._cache(stem) / "inductor"),
            "TRITON_CACHE_DIR": str(self._cache(stem) / "triton"),
        }
        return {**caches, **VARIABLES[platform.device]}


def _file_stem(case: Case, worker: Worker, packages: tuple[str, ...]) -> str:
    """What a file is called that is good for one case, some versions and one model of GPU."""
    environment = worker.environment
    versions = (f"{name}{environment.packages.get(name, 'none')}" for name in packages)
    device = environment.gpu.name if environment.gpu else environment.cpu_model
    parts = (case.id, case.digest[:16], *versions, device)
    return "-".join(parts).replace(" ", "_").replace("/", "_")


VARIABLES = {
    Device.CPU: {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),  # those this process may use, not all there are
    },
    # Otherwise CUDA counts the fastest GPU first, and NVML, which describes it, by PCI address.
    Device.CUDA: {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
}
