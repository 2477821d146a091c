"""Phases of workers in, the seconds in which a device was held out."""

from __future__ import annotations

from perf_tests.harness.processes.usage import Usage, UsageMeter
from perf_tests.harness.processes.watch import Step, unwatched
from perf_tests.protocol.messages import Phase


class Clock:
    """A clock that is told the time."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def step(phase: Phase) -> Step:
    return Step(case_id="flux1-dev-b1-bf16-eager", phase=phase)


def test_a_device_without_a_worker_has_no_usage() -> None:
    assert UsageMeter().usage is None


def test_time_is_held_spent_on_imports_or_idle() -> None:
    clock = Clock()
    meter = UsageMeter(clock)
    watch = meter.on(unwatched)
    for phase, lasts_s, then_idle_s in (
        (Phase.IMPORT, 5.0, 0.0),
        (Phase.LOAD, 30.0, 4.0),
        (Phase.GENERATE, 60.0, 9.0),
    ):
        with watch(step(phase)):
            clock.now_s += lasts_s
        clock.now_s += then_idle_s
    usage = meter.usage
    assert usage is not None
    assert usage == Usage(
        wall_s=99.0, held_s=90.0, importing_s=5.0
    )  # what follows the last phase is nobody's
    assert usage.idle_s == 4.0
    assert round(usage.unused_pct, 2) == 9.09


def test_phases_that_overlap_count_once_and_imports_beside_others_not_at_all() -> None:
    clock = Clock()
    meter = UsageMeter(clock)
    watch, other = meter.on(unwatched), meter.on(unwatched)
    with watch(step(Phase.IMPORT)):
        clock.now_s += 2.0
        with other(step(Phase.LOAD)):
            clock.now_s += 3.0
            with watch(step(Phase.LOAD)):
                clock.now_s += 1.0
        clock.now_s += 0.5
    assert meter.usage == Usage(wall_s=6.5, held_s=4.0, importing_s=2.5)


def test_a_phase_that_fails_has_taken_its_time() -> None:
    clock = Clock()
    meter = UsageMeter(clock)
    try:
        with meter.on(unwatched)(step(Phase.COMPILE)):
            clock.now_s += 7.0
            raise RuntimeError
    except RuntimeError:
        pass
    assert meter.usage == Usage(wall_s=7.0, held_s=7.0, importing_s=0.0)
