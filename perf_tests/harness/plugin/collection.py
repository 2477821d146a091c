"""Which tests there are and which of them a session selects: parameters, markers, shards, the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

import pytest

from perf_tests.harness.lanes.gpu_lock import GpuLock
from perf_tests.harness.lanes.machine import Target
from perf_tests.harness.plugin.selection import Selection
from perf_tests.harness.plugin.session import PerfSession
from perf_tests.harness.verdicts.gates import gated_metrics
from perf_tests.protocol.errors import PerfError, UsageError
from perf_tests.tables.cases import Case, Row, Weights
from perf_tests.tables.known_issues import KNOWN_ISSUES, KnownIssue
from perf_tests.tables.matrix import MATRIX
from perf_tests.tables.metrics.spec import Group
from perf_tests.tables.pipelines.rows import MODELS
from perf_tests.tables.platforms import PLATFORMS, Device, Platform
from perf_tests.tables.tiers import SMOKE

T = TypeVar("T")

SESSION = pytest.StashKey[PerfSession]()
TARGET = pytest.StashKey[Target]()
ROWS = pytest.StashKey[Mapping[str, tuple[Row, Case]]]()
"""Id of a case that `--perf-case` selects -> its row of the matrix, and the case."""
SELECTION = pytest.StashKey[Selection]()
"""The selected cases, also those which only another machine can measure."""
ELSEWHERE = pytest.StashKey[frozenset[pytest.Item]]()
"""The judging tests that other shards of the same selection run; absent without shards."""
EXPLAINED = pytest.StashKey[set[str]]()
"""Ids of tests that failed or were skipped for what the report at the end explains."""
SUITE = Path(__file__).parents[2]
"""The folder of the judging tests."""
SIDE_BY_SIDE = "pytest-xdist runs tests side by side, and they would share one GPU: run with -n 0"
COLLECTED = pytest.StashKey[set[Group | None]]()
"""The groups of metrics that collected tests judge, deselected tests included; None stands for the build."""
SMOKE_IDS = frozenset(each.case for each in SMOKE)
EXHAUSTIVE_GROUPS = (None, Group.NUMERICS)
"""What the tests of the cross product judge: the build, and what the tables imply without a baseline."""


# Which tests there are


def markers() -> Iterator[str]:
    """What `-m` can select, with its description: platforms and families are those of the tables."""
    yield "judges(group): the group of metrics a test asserts; none: the build"
    yield (
        "exhaustive: the cross product of schemes and miniatures, and slow scripts of known issues, where "
        'asked for ("cpu and exhaustive")'
    )
    yield "smoke: the GPU rows that a pull request can afford, one for each kind of failure"
    yield (
        "unsettled: GPU rows without a baseline of three processes; where they are asked for, published ones "
        "are measured before the rest, and the cheapest first"
    )
    yield "unrecorded: GPU rows that never had a baseline, which a night leaves out"
    for platform in PLATFORMS:
        machine = platform.gpu.name if platform.gpu else "the CPU of any machine"
        yield f"{platform.id}: cases measured on {machine}"
    for family in dict.fromkeys(pipeline.family for pipeline in MODELS):
        yield f"{family}: pipelines of the family {family}"


def rows(weights: Weights) -> Mapping[str, tuple[Row, Case]]:
    """Case id -> its row of the matrix, and the case; of all cases."""
    cases = ((row, row.case(weights)) for row in MATRIX)
    return {case.id: (row, case) for row, case in cases}


def generate_cases(metafunc: pytest.Metafunc) -> None:
    """One test per selected case that the test has anything to say about."""
    session, target = metafunc.config.stash[SESSION], metafunc.config.stash[TARGET]
    group = judged_group(metafunc.definition)
    metafunc.config.stash[COLLECTED].add(group)
    metafunc.parametrize(
        "case",
        [
            pytest.param(
                case, id=case_id, marks=[*_marks(row, target), *_tier_marks(case, row, session, target)]
            )
            for case_id, (row, case) in metafunc.config.stash[ROWS].items()
            if _is_judged_by(group, row, case)
        ],
    )


def generate_known_issues(metafunc: pytest.Metafunc) -> None:
    """One test per known issue that `--perf-case` selects."""
    options, target = metafunc.config.stash[SESSION].options, metafunc.config.stash[TARGET]
    metafunc.parametrize(
        "known_issue",
        [
            pytest.param(
                issue,
                id=issue.id,
                marks=[
                    *([pytest.mark.exhaustive] if issue.exhaustive else []),
                    *_platform_marks(target.platforms(issue), target),
                ],
            )
            for issue in KNOWN_ISSUES
            if options.selects(issue.id)
        ],
    )


def judged_group(item: pytest.Item) -> Group | None:
    """The group of metrics that the test judges; None for the build."""
    marker = item.get_closest_marker("judges")
    return marker.args[0] if marker and marker.args else None


def _is_judged_by(group: Group | None, row: Row, case: Case) -> bool:
    """Whether a test of `group` has anything to say about the case."""
    if row.exhaustive and group not in EXHAUSTIVE_GROUPS:
        return False
    return group is None or any(gated_metrics(case, platform, group) for platform in row.platforms)


def _marks(row: Row, target: Target) -> list[pytest.MarkDecorator]:
    names = (row.pipeline.family, *(["exhaustive"] if row.exhaustive else []))
    marks = [getattr(pytest.mark, name) for name in names]
    return [*marks, *_platform_marks(target.platforms(row), target)]


def _tier_marks(case: Case, row: Row, session: PerfSession, target: Target) -> Iterator[pytest.MarkDecorator]:
    """`smoke`; `unrecorded` and `unsettled`, if asked for, on the platform that the case is filed under."""
    case_id, platform = case.id, target.platforms(row)[0]
    if case_id in SMOKE_IDS:
        yield pytest.mark.smoke
    if session.baselines.is_unrecorded(case_id, platform):
        yield pytest.mark.unrecorded
    if session.options.records and session.baselines.is_unsettled(case, platform):
        yield pytest.mark.unsettled


def _platform_marks(platforms: Sequence[Platform], target: Target) -> list[pytest.MarkDecorator]:
    """The platforms' markers, and a skip where this machine is none of them."""
    marks = [getattr(pytest.mark, platform.id) for platform in platforms]
    if not any(target.can_measure(platform) for platform in platforms):
        wanted = " or ".join(platform.id for platform in platforms)
        marks.append(pytest.mark.skip(reason=f"needs {wanted}; this machine has {target.found}"))
    return marks


# Which of them are selected


def kept_items(config: pytest.Config, items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """`items` without the cross product unless it is asked for, and without the cases of other shards; all
    tests of a case one after another, and in the order in which rows are recorded, where that is what the
    session is for.

    Raises PerfError where the baselines that tell the cost of a case cannot be read.
    """
    session = config.stash[SESSION]
    kept = [item for item in items if not item.get_closest_marker("exhaustive") or _is_asked_for(item)]
    if session.options.records:
        kept = _in_recording_order(config, kept)
    elif not session.options.measures_all_first:
        kept = _case_by_case(kept)
    if session.options.shard is None:
        return kept
    mine = session.forecaster.shard(selection_of(config, kept))
    elsewhere = frozenset(item for item in kept if is_judging(item) and case_of(item).id not in mine)
    config.stash[ELSEWHERE] = elsewhere
    return [item for item in kept if item not in elsewhere]


def _case_by_case(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """`items` with all tests of a case at the place of its first, and the other tests at their own.

    In pytest's order, module by module, the first module has every case measured: a session that is killed
    would have judged none of them, and nobody would hear of a red one before the last was measured.
    """
    places: dict[str, int] = {}
    order = [
        places.setdefault(case_of(item).id, place) if is_judging(item) else place
        for place, item in enumerate(items)
    ]
    return [item for _, item in sorted(zip(order, items, strict=True), key=itemgetter(0))]


def _in_recording_order(config: pytest.Config, items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """`items` with all tests of a row one after another."""
    places = config.stash[SESSION].forecaster.recording_order(selection_of(config, items))
    last = len(places)
    return sorted(items, key=lambda item: places.get(case_of(item).id, last) if is_judging(item) else last)


def selection_of(config: pytest.Config, items: Sequence[pytest.Item]) -> Selection:
    """The cases of the judging `items`, each with the platform it is filed under: this machine's or
    another's."""
    target, by_id = config.stash[TARGET], config.stash[ROWS]
    selection = Selection()
    for item in filter(is_judging, items):
        case, verified_only = case_of(item), item.get_closest_marker("exhaustive") is not None
        selection.add(case, target.platforms(by_id[case.id][0])[0], verified_only=verified_only)
    return selection


def uncollected_groups(config: pytest.Config) -> tuple[Group | None, ...]:
    """The groups that no test judges though the whole suite was asked for: its file was deleted or ignored.

    Empty where the command line names single files or tests, or only the tests that failed last.
    """
    # `-p no:cacheprovider` takes the option away.
    if config.getoption("lf", False) or not _is_whole_suite(config):
        return ()
    return tuple(group for group in (None, *Group) if group not in config.stash[COLLECTED])


def _is_whole_suite(config: pytest.Config) -> bool:
    """Whether nobody chose among the files of the suite."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        return True
    return any(SUITE.is_relative_to(Path(argument).resolve()) for argument in config.args)


def is_judging(item: pytest.Item) -> bool:
    """Whether the test judges a case; the suite's own tests and those of known issues do not."""
    return item.get_closest_marker("judges") is not None


def lacks_its_parameter(item: pytest.Item) -> bool:
    """Whether this is the test that pytest makes up where there is not a single case or known issue.

    Tests outside the suite may call what they like by the same name.
    """
    if item.path.parent != SUITE:
        return False
    parameters = (
        item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    )
    types = {"case": Case, "known_issue": KnownIssue}
    return any(not isinstance(parameters[name], types[name]) for name in types.keys() & parameters.keys())


def _is_asked_for(item: pytest.Item) -> bool:
    """Whether an exhaustive test is named: by its marker, the whole id of its parameter or its own name."""
    option = item.config.option
    by_name = any("::" in argument for argument in item.config.args)
    return "exhaustive" in option.markexpr or _parameter_id(item) in option.perf_case or by_name


def _parameter_id(item: pytest.Item) -> str | None:
    """The id of the case or the known issue; None for a test that has neither."""
    return item.callspec.id if isinstance(item, pytest.Function) and hasattr(item, "callspec") else None


def case_of(item: pytest.Item) -> Case:
    case = item.callspec.params["case"] if isinstance(item, pytest.Function) else None
    assert isinstance(case, Case), f"{item.nodeid} judges no case"
    return case


# What this machine will measure


def prepare(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Tell the session what the judging `items` will ask of it, and reserve the GPU.

    Raises PerfError for options that cannot be followed, baselines that cannot be read, and a GPU that is not
    there, not known, or taken.
    """
    if getattr(config.option, "numprocesses", None):
        raise UsageError(SIDE_BY_SIDE)
    _select(config, items)
    if not config.option.collectonly:
        _lock_gpu(config)
        config.stash[SESSION].check_resumed()


def refuse_side_by_side(config: pytest.Config, node_ids: Iterable[str]) -> None:
    """Raise UsageError where one of the tests that a worker of pytest-xdist has collected judges a case."""
    files = {config.rootpath / node_id.partition("::")[0] for node_id in node_ids}
    # The ids are all that the process in charge is told; the suite's own tests may run side by side.
    if any(file.parent == SUITE for file in files):
        raise UsageError(SIDE_BY_SIDE)


def _select(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    session, target = config.stash[SESSION], config.stash[TARGET]
    by_id, uncollected = config.stash[ROWS], uncollected_groups(config)
    elsewhere = config.stash.get(ELSEWHERE, frozenset())
    on_gpu = False
    for item in (*items, *elsewhere):
        case = case_of(item)
        row, _ = by_id[case.id]
        platforms = target.platforms(row)
        if target.problem and all(platform.device is Device.CUDA for platform in platforms):
            raise UsageError(target.problem)
        here = [platform for platform in platforms if target.can_measure(platform)]
        on_gpu = on_gpu or any(platform.device is Device.CUDA for platform in here)
        unjudged = [group for group in uncollected if _is_judged_by(group, row, case)]
        for platform in here[:1]:
            for group in (judged_group(item), *unjudged):
                session.select(
                    case, platform, group, verified_only=row.exhaustive, elsewhere=item in elsewhere
                )
    if session.options.require_gpu and not on_gpu:
        raise UsageError(
            f"--perf-require-gpu: no selected case can run here; this machine has {target.found}"
        )
    session.check()


def _lock_gpu(config: pytest.Config) -> None:
    """One suite on each GPU that this one measures on, until pytest ends."""
    session, target = config.stash[SESSION], config.stash[TARGET]
    first = (target.unit,) if target.unit is not None else ()
    if session.selection.is_on_gpu:
        for unit in tuple(card.unit for card in target.cards) or first:
            config.add_cleanup(GpuLock(unit).release)


def or_usage_error(ask: Callable[[], T]) -> T:
    """The answer of `ask`; pytest's UsageError, which prints one sentence, for a PerfError."""
    try:
        return ask()
    except PerfError as error:
        raise pytest.UsageError(str(error)) from None
