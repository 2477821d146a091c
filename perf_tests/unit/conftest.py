"""Whole sessions of the suite on fake workers, each in a directory of its own."""

from __future__ import annotations

import gc
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pynvml
import pytest
from _pytest.fixtures import FixtureFunctionDefinition, FixtureManager

from perf_tests.harness.fidelity import image_metrics
from perf_tests.harness.lanes import gpu_lock
from perf_tests.harness.plugin.options import Options
from perf_tests.harness.plugin.session import PerfSession
from perf_tests.harness.processes import inherited, worker_process
from perf_tests.harness.runs.record import Run, RunRecord, Status
from perf_tests.harness.runs.record_file import read_record
from perf_tests.tables.cases import Case, Weights
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.metrics.spec import Group
from perf_tests.tables.platforms import CPU, H100, Platform
from perf_tests.unit import fake_cards
from perf_tests.unit.forked_workers import FakeWorkers

ROOT = Path(__file__).resolve().parents[2]
TESTS = tuple(map(str, sorted((ROOT / "perf_tests").glob("test_*.py"))))
FAKE_WORKER = "perf_tests.unit.fake_worker"

BF16 = "flux-mini-b1-bf16-eager"
INT8WO = "flux-mini-b1-int8wo-eager"
LOADED = "flux-mini-b1-int8wo-eager-torchsave"
TRAINED = "flux-mini-b1-bf16-eager-lora-fp8tensor"
QUANTIZED = "llama-mini-b1-int8wo-eager-onhost"
COMPILED = "flux-mini-b1-bf16-regional"
FP8DQROW = "flux1-dev-b1-fp8dqrow-regional"
RECORDED = ((CPU, (BF16, INT8WO, COMPILED, LOADED, TRAINED, QUANTIZED)), (H100, (FP8DQROW,)))
CASES = {case.id: case for case in (row.case(Weights.SYNTHETIC) for row in MATRIX)}

IDLE_PLUGINS = (
    "debugging",
    "doctest",
    "faulthandler",
    "legacypath",
    "logging",
    "monkeypatch",
    "pastebin",
    "pytester",
    "recwarn",
    "setuponly",
    "setupplan",
    "stepwise",
    "subtests",
    "threadexception",
    "unittest",
    "unraisableexception",  # collects garbage at the end: a tenth of a second in each session
)
"""Plugins of pytest that do nothing unless asked: setting them up takes a fifth of each session."""

NO_TORCH = "not torch"
NEEDS_TORCH = Path(__file__).with_name("worker")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m "not torch"`, alone or `and` more, do not even import the tests that all need torch: importing
    takes seconds."""
    left_out = NO_TORCH in config.option.markexpr.split(" and ")
    return True if collection_path == NEEDS_TORCH and left_out else None


SMALL_PICTURE = 16 * 16 * 3
"""Values of a picture of the fake worker."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector thousands of tests, while they are made and whenever it looks at what their
    sessions left."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


rebaseline: Callable[[list[str]], int] = runpy.run_path(str(ROOT / "tools" / "rebaseline.py"))["main"]


def make_options(**changes: Any) -> Options:
    """Options with `changes`; by default one process per case on the fake worker, no faults, no baselines."""
    default: dict[str, Any] = {
        "case_globs": (),
        "out": Path("run"),
        "baselines": Path("nowhere"),
        "processes": 1,
        "max_processes": 5,
        "weights": Weights.SYNTHETIC,
        "require_gpu": False,
        "drills": (),
        "python": sys.executable,
        "worker_module": FAKE_WORKER,
    }
    return Options(**default | changes)


@pytest.fixture(scope="session", autouse=True)
def forked_workers() -> Iterator[FakeWorkers]:
    """Fork the fake workers of this process instead of starting an interpreter for each."""
    server = FakeWorkers()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker_process, "start_process", server.start_process)
        yield server
    server.close()


@pytest.fixture(scope="session", autouse=True)
def alone() -> Iterator[None]:
    """The sessions that tests start measure alone, also where pytest-xdist runs these tests side by side."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTEST_XDIST_WORKER", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def remembered_ssim() -> Iterator[None]:
    """Fake workers make the same few pictures over and over: each two of them are compared once."""
    compute, known = image_metrics._ssim, dict[tuple[object, ...], float]()

    def look_up(measured: np.ndarray, reference: np.ndarray) -> float:
        if measured.size > SMALL_PICTURE:
            return compute(measured, reference)
        key = (measured.shape, measured.tobytes(), reference.shape, reference.tobytes())
        if key not in known:
            known[key] = compute(measured, reference)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_metrics, "_ssim", look_up)
        yield


class QuietHost:
    """A `PressureMeter` of a host on which no task waits, whatever else this machine does meanwhile."""

    def pressure_pct(self) -> float:
        """Percent of the time since creation."""
        return 0.0


@pytest.fixture(scope="session", autouse=True)
def quiet_host() -> Iterator[None]:
    """A worker that does not answer in time is not excused by what else this machine does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker_process, "PressureMeter", QuietHost)
        yield


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Baselines of the fake worker, from one process per case. Tests must not change them."""
    folder = tmp_path_factory.mktemp("recorded")
    for platform, case_ids in RECORDED:
        out = folder / platform.id
        _measure(out, platform, [CASES[case_id] for case_id in case_ids])
        accept = ["apply", str(out), "--only", "*", "--reason", "first", "--write"]
        assert rebaseline([*accept, "--baselines", str(folder / "baselines")]) == 0
    return folder / "baselines"


def _measure(out: Path, platform: Platform, cases: list[Case]) -> None:
    session = PerfSession(make_options(out=out), ("recording",))
    for case in cases:
        for group in Group:
            session.select(case, platform, group)
    for case in cases:
        for group in Group:
            session.judge(session.measure(case.id), group)
    session.close(cut_short=False)


def _hear_ctrl_c() -> None:
    """A shell starts background jobs with SIGINT ignored, and their children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Interruptions:
    """All that pytester needs of the calls of hooks: keeping every call takes a tenth of each session."""

    ret: int

    def __init__(self, manager: pytest.PytestPluginManager) -> None:
        self._calls: list[SimpleNamespace] = []
        manager.register(self)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Keep what pytester raises again, so that Ctrl-C also stops the tests."""
        self._calls.append(SimpleNamespace(excinfo=excinfo))

    def getcalls(self, _names: str) -> list[SimpleNamespace]:
        """The calls of `pytest_keyboard_interrupt`, the only hook that pytester asks for."""
        return self._calls


LOOK_FOR_FIXTURES = FixtureManager.pytest_plugin_registered


def look_where_fixtures_are(manager: FixtureManager, plugin: object, plugin_name: str) -> None:
    """Replaces a look at every name of every plugin, a tenth of a session's time: most hold no fixtures."""
    holders = [plugin] if isinstance(plugin, ModuleType) else type(plugin).mro()
    names = (each for holder in holders for each in vars(holder).values())
    if any(isinstance(each, FixtureFunctionDefinition) for each in names):
        LOOK_FOR_FIXTURES(manager, plugin, plugin_name)


class Suite:
    """The suite, run as a user runs it."""

    def __init__(self, pytester: pytest.Pytester, baselines: Path) -> None:
        self.folder = pytester.path
        self.out = self.folder / "run"
        self.baselines = baselines
        self._pytester = pytester
        self._started: list[subprocess.Popen[bytes]] = []

    def run(self, *arguments: str, tests: tuple[str, ...] = TESTS, **settings: Any) -> pytest.RunResult:
        """Run a session inside this process; `settings`, such as `plugins`, go to pytester."""
        return self._pytester.runpytest_inprocess(*self._command(arguments, tests), **settings)

    def start(self, *arguments: str, **settings: Any) -> subprocess.Popen[bytes]:
        """Start a session in a process of its own, its output in `session.log`; `settings` go to Popen."""
        command = [sys.executable, "-m", "pytest", *self._command(arguments, TESTS)]
        with (self._pytester.path / "session.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._pytester.path,
                preexec_fn=_hear_ctrl_c,
                **settings,
            )
        self._started.append(process)
        return process

    def record(self) -> RunRecord:
        """The run.json of the latest session."""
        return read_record(self.out)

    def case(self, case_id: str) -> Run:
        """The run of one case in the latest session."""
        return next(run for run in self.record().cases if run.id == case_id)

    def statuses(self, case_id: str) -> dict[str, Status]:
        """Metric -> status of its verdict, for one case of the latest session."""
        return {verdict.metric: verdict.status for verdict in self.case(case_id).verdicts}

    def stop(self) -> None:
        """Kill the started sessions that still run."""
        for process in self._started:
            process.kill()
            process.wait()

    def _command(self, arguments: tuple[str, ...], tests: tuple[str, ...]) -> tuple[str, ...]:
        # With `=`, since pytest takes the value of an option that it does not know yet for a path to test.
        return (
            *tests,
            "-p",
            "pytest_benchmark.plugin",
            *(f"-pno:{name}" for name in IDLE_PLUGINS),
            "-o",
            f"cache_dir={self.folder / 'cache'}",
            f"--perf-worker-module={FAKE_WORKER}",
            f"--perf-out={self.out}",
            f"--perf-baselines={self.baselines}",
            "--perf-table=all",  # what most tests look for is in the texts of single tests
            *arguments,
        )


@pytest.fixture
def suite(pytester: pytest.Pytester, recorded: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Suite]:
    """Sessions without a GPU, judged by the recorded baselines."""
    # Looking for plugins takes a fifth of each session: in what is installed, and again for each `-p`.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setattr("importlib.metadata.distributions", lambda **_: ())
    for variable in ("CI", "BUILD_NUMBER"):  # pytest prints failures twice where one of these is set
        monkeypatch.delenv(variable, raising=False)
    # It asks git and Mercurial three times for the names of files that no test saves.
    monkeypatch.setattr("pytest_benchmark.plugin.get_tag", lambda: "tag")
    monkeypatch.setattr(pynvml, "nvmlInit", _no_library)
    monkeypatch.setattr(gpu_lock, "FOLDER", pytester.path)
    monkeypatch.setattr(pytester, "make_hook_recorder", Interruptions)
    monkeypatch.setattr(FixtureManager, "pytest_plugin_registered", look_where_fixtures_are)
    started = Suite(pytester, recorded)
    yield started
    started.stop()


Misbehave = Callable[[str], None]


@pytest.fixture
def misbehave(monkeypatch: pytest.MonkeyPatch) -> Misbehave:
    """Make the fake workers that this process starts from now on misbehave (`fake_worker/switches.py`)."""

    def tell(switches: str) -> None:
        monkeypatch.setitem(inherited.ALWAYS, "PERF_FAKE", switches)

    return tell


def _no_library() -> None:
    raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)


Plug = Callable[..., None]


@pytest.fixture
def plug_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plug:
    """Make NVML report one GPU: an H100, except for the given changes; `count` of them, but all alike, for
    another count."""

    def plug(count: int = 1, **changes: Any) -> None:
        monkeypatch.setattr(gpu_lock, "FOLDER", tmp_path)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        fake_cards.plug(monkeypatch, [{**fake_cards.H100_CARD, **changes}] * count)

    return plug


@pytest.fixture
def plug_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plug:
    """Make NVML report that many H100s, GPU-00000000-fake and so on, each with the given changes."""

    def plug(count: int, *changes: dict[str, Any]) -> None:
        monkeypatch.setattr(gpu_lock, "FOLDER", tmp_path)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        cards = fake_cards.h100s(count)
        for card, changed in zip(cards, changes, strict=False):
            card.update(changed)
        fake_cards.plug(monkeypatch, cards)

    return plug


def workers_of(out: Path) -> list[int]:
    """Process ids of the living workers whose compile cache lies in `out`."""
    return [int(folder.name) for folder in Path("/proc").iterdir() if _serves(folder, str(out))]


def _serves(folder: Path, out: str) -> bool:
    if not folder.name.isdigit() or int(folder.name) == os.getpid():
        return False
    try:
        state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        environment = (folder / "environ").read_bytes()  # of any process, so not always UTF-8
    except OSError:
        return False  # it has ended in the meantime
    return state != "Z" and os.fsencode(f"TORCHINDUCTOR_CACHE_DIR={out}/") in environment
