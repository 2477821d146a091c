"""planning/sharding.py: cases in, builds out; builds in, one of several equal shares out."""

from __future__ import annotations

import dataclasses

import pytest

from perf_tests.harness.planning.sharding import Shard, ShardItem, build_groups, jobs, parse_shard, shard
from perf_tests.protocol.errors import UsageError
from perf_tests.tables.cases import Case
from perf_tests.tables.pipelines.flux import FLUX1_DEV
from perf_tests.tables.pipelines.spec import Workload
from perf_tests.tables.platforms import H100, H200
from perf_tests.tables.recipes import CompileMode
from perf_tests.tables.schemes.rows import AUTOQUANT, FP8DQ, FP8DQROW
from perf_tests.unit.builders import make_case

BF16 = make_case(FLUX1_DEV, compile=CompileMode.REGIONAL)
FP8 = make_case(FLUX1_DEV, scheme=FP8DQROW, compile=CompileMode.REGIONAL)
OTHER_FP8 = make_case(FLUX1_DEV, scheme=FP8DQ, compile=CompileMode.REGIONAL)


def _of_batch(case: Case, size: int) -> Case:
    return dataclasses.replace(case, workload=dataclasses.replace(case.workload, batch_size=size))


def _ids(*cases: Case) -> list[str]:
    return [case.id for case in cases]


# Which cases share a worker


def test_the_cases_of_a_build_are_one_group_and_their_workloads_ascend() -> None:
    (group,) = build_groups([(_of_batch(BF16, size), H100) for size in (8, 1, 16, 4)])
    assert [case.workload.batch_size for case in group.cases] == [1, 4, 8, 16]
    assert group.implicit == frozenset()


def test_workloads_of_a_scheme_with_a_search_are_groups_of_their_own() -> None:
    search = make_case(FLUX1_DEV, scheme=AUTOQUANT, compile=CompileMode.REGIONAL)
    found = build_groups([(_of_batch(search, size), H100) for size in (4, 1)])
    batches = [[case.workload.batch_size for case in group.cases] for group in found]
    assert batches == [[1, 4], [4], [1]]  # the references share a worker, the searches do not


def test_the_workload_with_fewer_generated_steps_is_first_among_equal_sizes() -> None:
    fewer = dataclasses.replace(BF16, workload=dataclasses.replace(BF16.workload, steps=4))
    (group,) = build_groups([(BF16, H100), (fewer, H100)])
    assert [case.workload.generated_steps for case in group.cases] == [4, 28]


def test_pixels_count_all_frames_of_all_videos() -> None:
    assert Workload(height=10, width=20, steps=1).pixels == 200
    assert Workload(height=10, width=20, steps=1, batch_size=4, num_frames=3).pixels == 2400


def test_a_reference_that_nobody_selected_is_implicit_and_runs_before_all_that_need_it() -> None:
    found = build_groups([(FP8, H100), (OTHER_FP8, H100)])
    assert [_ids(*group.cases) for group in found] == [_ids(BF16), _ids(FP8), _ids(OTHER_FP8)]
    assert [group.implicit for group in found] == [{BF16.id}, frozenset(), frozenset()]
    assert found[0].selected == ()


def test_a_selected_reference_is_not_implicit_and_still_runs_first() -> None:
    found = build_groups([(FP8, H100), (BF16, H100)])
    assert [_ids(*group.selected) for group in found] == [_ids(BF16), _ids(FP8)]


def test_the_reference_of_another_workload_shares_the_worker_of_the_selected_one() -> None:
    large = _of_batch(FP8, 4)
    found = build_groups([(BF16, H100), (large, H100)])
    assert [_ids(*group.cases) for group in found] == [_ids(BF16, _of_batch(BF16, 4)), _ids(large)]
    assert found[0].implicit == {_of_batch(BF16, 4).id}
    assert found[0].selected == (BF16,)


def test_a_case_that_is_only_verified_needs_no_reference() -> None:
    (group,) = build_groups([(FP8, H100)], verified_only={FP8.id})
    assert group.cases == (FP8,)


def test_two_platforms_never_share_a_worker() -> None:
    found = build_groups([(BF16, H100), (BF16, H200)])
    assert [group.platform.id for group in found] == ["h100", "h200"]


# Which of them one of several sessions takes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1/1", Shard(index=1, count=1)),
        ("2/3", Shard(index=2, count=3)),
        ("10/12", Shard(index=10, count=12)),
    ],
)
def test_a_shard_is_written_i_of_n(text: str, expected: Shard) -> None:
    assert parse_shard(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "0/2",
        "3/2",
        "1/0",
        "-1/2",
        "1/-2",
        "1/2/3",
        "a/b",
        "1.5/2",
        " 1/2",
        "1 of 2",
        "\u0661/\u0662",
    ],
)
def test_any_other_text_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(UsageError, match=r"--perf-shard .*: write i/n with i from 1 to n, as in '1/2'"):
        parse_shard(text)


ITEMS = (
    ShardItem(cases=("a", "aa"), seconds=5.0),
    ShardItem(cases=("b",), seconds=4.0),
    ShardItem(cases=("c",), seconds=3.0),
    ShardItem(cases=("d",), seconds=3.0),
    ShardItem(cases=("e",), seconds=3.0),
)


def _shards(items: tuple[ShardItem, ...], count: int) -> list[frozenset[str]]:
    return [shard(items, Shard(index=index, count=count)) for index in range(1, count + 1)]


def test_the_most_expensive_item_is_dealt_first_each_to_the_shard_with_the_least() -> None:
    assert _shards(ITEMS, 2) == [{"a", "aa", "d"}, {"b", "c", "e"}]  # 8 s and 10 s


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
def test_shards_are_disjoint_and_together_exactly_the_whole(count: int) -> None:
    found = _shards(ITEMS, count)
    assert sorted(case for each in found for case in each) == ["a", "aa", "b", "c", "d", "e"]


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_shards_differ_by_at_most_the_most_expensive_item(count: int) -> None:
    items = tuple(
        ShardItem(cases=(f"case-{number}",), seconds=float(7 * number % 11 + 1)) for number in range(40)
    )
    seconds = {item.cases[0]: item.seconds or 0.0 for item in items}
    spent = [sum(seconds[case] for case in each) for each in _shards(items, count)]
    assert max(spent) - min(spent) <= 11.0
    assert sum(spent) == sum(seconds.values())


def test_the_order_of_items_does_not_matter() -> None:
    assert _shards(ITEMS[::-1], 3) == _shards(ITEMS, 3)


def test_an_item_of_unknown_cost_counts_as_much_as_the_most_expensive() -> None:
    items = (
        ShardItem(cases=("known",), seconds=9.0),
        ShardItem(cases=("x-unknown",), seconds=None),
        ShardItem(cases=("small-1",), seconds=1.0),
        ShardItem(cases=("small-2",), seconds=1.0),
    )
    assert _shards(items, 2) == [{"known", "small-1"}, {"x-unknown", "small-2"}]


def test_items_of_unknown_cost_are_dealt_out_evenly() -> None:
    items = tuple(ShardItem(cases=(name,), seconds=None) for name in "abcdef")
    assert [len(each) for each in _shards(items, 3)] == [2, 2, 2]


def test_more_shards_than_items_leave_some_empty() -> None:
    assert _shards((ShardItem(cases=("a",), seconds=1.0),), 2) == [{"a"}, frozenset()]


# What the cards of one session take


def test_jobs_are_as_urgent_as_their_first_case() -> None:
    batch = _of_batch(FP8, 4)
    items = (
        ShardItem(cases=(FP8.id, batch.id), seconds=60.0),
        ShardItem(cases=(OTHER_FP8.id,), seconds=90.0),
    )
    cases = {case.id: case for case in (FP8, batch, OTHER_FP8)}
    places = {batch.id: 0, OTHER_FP8.id: 1, FP8.id: 2}
    assert [job.urgency for job in jobs(items, cases, {}, places)] == [0, 1]
    assert [job.urgency for job in jobs(items, cases, {})] == [0, 0]
