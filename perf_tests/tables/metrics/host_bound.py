"""TABLE: rows whose steps wait for the host, which are judged by the device's time beside the wall clock.

A GPU that a Python thread feeds kernel by kernel takes as long as that thread does: whatever else the host
does shows in each step, and a test of the wall clock would be red for it. How long the device itself is busy
does not depend on that.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from perf_tests.tables.cases import Case
from perf_tests.tables.schemes.spec import Unsteady

BUSY_TIMED = "flux1-dev-slim-*"
"""Glob of the cases whose device time is recorded: host-bound ones, and what they are compared with."""
BUSY_STEPS = 8
"""Steady steps over which it is averaged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostBound:
    """Rows of which a test of the wall clock says more about the host than about the code."""

    cases: str
    """Glob of case ids."""
    wall: Unsteady
    """How far the wall clock may move: only a change of kind shows there."""


HOST_BOUND = (
    *(
        HostBound(
            cases=cases,
            wall=Unsteady(
                slower_pct=150.0,
                reason=(
                    "host-bound: steps of 11 ms became 23 ms beside busy siblings, and bursts of the host "
                    "hit 6 of 31 generations, so the time of the device is tested instead (step_busy_ms)"
                ),
            ),
        )
        # Blocks from packages are called from Python as well; a CUDA graph is not.
        for cases in (
            "flux1-dev-slim-b1-fp8dqrow-regional",
            "flux1-dev-slim-b1-fp8dqrow-regional-reshaped*",
            "flux1-dev-slim-b1-fp8dqrow-aoti",
        )
    ),
    # The whole model in bf16 trains in steps of 568 to 577 ms, of which an H200 is busy for 549, and another
    # for 532. In float8, with 1.9 times the kernels, they are busy for 511 (tensors) and 527 (rows).
    HostBound(
        cases="flux1-dev-b1-bf16-regional-lora-fp8*-ckpt",
        wall=Unsteady(
            slower_pct=20.0,
            reason=(
                "host-bound: in single processes on idle hosts, steps took 531 to 646 ms and once 529 to "
                "784, while those of bf16 lay 2 % apart; processes were 0 to 6 % faster than bf16 "
                "(`train_busy_ms` is the time of the device)"
            ),
        ),
    ),
    # The slim model in bf16 trains in steps of 41 ms, 0.7 % apart in a process, of which the device is busy
    # for 40. In float8, with twice the kernels, it is busy for 40 (tensors) and 42 (rows).
    HostBound(
        cases="flux1-dev-slim-b1-bf16-regional-lora-fp8*",
        wall=Unsteady(
            slower_pct=150.0,
            reason=(
                "host-bound: in one process on an idle host, steps of 43 ms took up to 62 ms, at the full "
                "clock (`train_busy_ms` is the time of the device)"
            ),
        ),
    ),
)

COPYING = Unsteady(
    slower_pct=60.0,
    reason=(
        "weights are copied in each step, which the memory of the host takes part in: of five images of one "
        "process, at a load of 0.14 per core, four had steps of 493 to 509 ms, and the last of 560"
    ),
)
"""Of every recipe that copies a module's weights for each of its calls: only a change of kind shows."""


def is_busy_timed(case: Case) -> bool:
    """Whether the time that a GPU is busy in a step is recorded."""
    return fnmatchcase(case.id, BUSY_TIMED)


def is_host_bound(case: Case) -> bool:
    """Whether the row is judged by the time of the device, because its wall clock is the host's."""
    return any(fnmatchcase(case.id, each.cases) for each in HOST_BOUND)


def unsteady_of(case: Case) -> Unsteady | None:
    """Why the steps of a case vary, and how widely their wall clock is limited; None where they do not."""
    of_row = next((each.wall for each in HOST_BOUND if fnmatchcase(case.id, each.cases)), None)
    recipe = case.build.recipe
    copying = COPYING if recipe.offload is not None and recipe.offload.per_call else None
    return recipe.scheme.unsteady or copying or of_row
