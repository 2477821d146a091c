"""The search that an issue names: its axis, its bad end, and where there is none to name."""

from __future__ import annotations

import msgspec
import pytest

from perf_tests.harness.bisecting import cli
from perf_tests.harness.records.attributions import Blame
from perf_tests.harness.telling import bisect_command
from perf_tests.unit.harness.telling.nights import FP8, cause, night

ROW = f"--case {FP8} --metric denoise_step_ms --processes 3"
NIGHTS = (
    "nights torch --history DIR --index PAGE --good GOOD --bad 2.15.0.dev20261120 --local cu130 --pins FILE"
)
RELEASES = "releases torchao --index PAGE --good GOOD --bad 0.19.0 --pins FILE"
COMMITS = "commits CLONE --good GOOD --bad 36027d82ab --build BUILD"
BUILT = {"torchao": "36027d82ab"}


def named(
    blame: Blame | None,
    commits: dict[str, str] | None = None,
    metric: str = "denoise_step_ms",
    torch: str = "2.15.0.dev20261120+cu130",
) -> list[str]:
    """The paragraph's lines, without the quotes of commands."""
    packages = {"torch": torch, "torchao": "0.19.0"}
    tonight = msgspec.structs.replace(night(20), packages=packages, commits=commits or {})
    parts = list(bisect_command.of_cause(cause(FP8, blame=blame, metric=metric), tonight))
    assert len(parts) <= 1
    return [line.replace("`", "") for part in parts for line in part.splitlines()]


@pytest.mark.parametrize(
    ("blame", "commits", "searches"),
    [
        (Blame.TORCH, {}, [NIGHTS]),
        (Blame.TORCHAO, {}, [RELEASES]),
        (Blame.TORCHAO, BUILT, [COMMITS]),
        (Blame.EACH, BUILT, [NIGHTS, COMMITS]),
        (Blame.TOGETHER, {}, [NIGHTS, RELEASES]),
    ],
)
def test_each_guilty_package_is_searched(blame: Blame, commits: dict[str, str], searches: list[str]) -> None:
    assert named(blame, commits) == [
        "Which change it is, where GOOD is what the last green night of python tools/history.py series "
        f"{FP8} denoise_step_ms --history DIR had:",
        "",
        *(f"- python tools/bisect.py {search} {ROW}" for search in searches),
    ]


@pytest.mark.parametrize(
    "blame", [None, Blame.EITHER, Blame.BOTH, Blame.PARTLY, Blame.NOT_REPRODUCED, Blame.UNKNOWN]
)
def test_without_a_guilty_package_there_is_nothing_to_search(blame: Blame | None) -> None:
    assert named(blame, BUILT) == []


def test_what_cannot_be_measured_or_is_of_no_known_version_is_not_searched() -> None:
    assert named(Blame.TORCH, metric="build") == []
    assert named(Blame.TORCH, torch="main") == []


def test_an_exact_metric_takes_one_process() -> None:
    assert named(Blame.TORCHAO, metric="weight_bytes")[-1] == (
        f"- python tools/bisect.py {RELEASES} --case {FP8} --metric weight_bytes"
    )


@pytest.mark.parametrize(("blame", "commits"), [(Blame.EACH, {}), (Blame.TORCHAO, BUILT)])
def test_the_tool_understands_what_is_named(blame: Blame, commits: dict[str, str]) -> None:
    for line in named(blame, commits)[2:]:
        found = cli._parser(None).parse_args(line.removeprefix("- python tools/bisect.py ").split())
        assert (found.case, found.metric, found.processes, found.good) == (FP8, "denoise_step_ms", 3, "GOOD")
