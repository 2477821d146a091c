"""lanes/cards.py: which cards are asked for, and how they share the processor cores."""

from __future__ import annotations

from pathlib import Path

import pytest

from perf_tests.harness.lanes.cards import LaneCard, chosen, first_sibling, share_cores
from perf_tests.protocol.errors import UsageError

A, B, C = "GPU-aaaa", "GPU-bbbb", "GPU-cccc"


def itself(core: int) -> int:
    """A processor without further threads."""
    return core


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("all", (A, B, C)),
        ("2", (A, B)),
        ("GPU-cccc,GPU-aaaa", (C, A)),
        ("GPU-b", (B,)),
    ],
)
def test_cards_are_named_as_all_by_count_or_by_uuid(wanted: str, found: tuple[str, ...]) -> None:
    assert chosen(wanted, (A, B, C)) == found


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("4", "--perf-gpus 4: this machine shows 3 GPUs .*; ask for 1 to 3"),
        ("0", "ask for 1 to 3"),
        ("GPU-dddd", "'GPU-dddd' names 0 of these"),
        ("GPU-", "'GPU-' names 3 of these"),
        ("GPU-aaaa,", "'' names 0 of these"),
        ("GPU-aaaa,GPU-a", "the same GPU twice"),
    ],
)
def test_cards_that_are_not_there_are_refused(wanted: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        chosen(wanted, (A, B, C))


@pytest.mark.parametrize("wanted", ["all", "1"])
def test_a_machine_without_gpus_has_none_to_choose_from(wanted: str) -> None:
    with pytest.raises(UsageError, match=r"shows 0 GPUs \(none\); leave the option out"):
        chosen(wanted, ())


def test_cards_of_two_nodes_get_half_of_the_cores_of_their_own() -> None:
    low, high = frozenset(range(4)), frozenset(range(4, 8))
    near = {A: low, B: high, C: low}
    assert share_cores(near, frozenset(range(8)), itself) == {
        A: frozenset({0, 1}),
        C: frozenset({2, 3}),
        B: frozenset({4, 5, 6, 7}),
    }


def test_threads_of_one_core_belong_to_one_card() -> None:
    everything = frozenset(range(8))
    shares = share_cores({A: everything, B: everything}, everything, lambda core: core % 4)
    assert shares == {A: frozenset({0, 4, 1, 5}), B: frozenset({2, 6, 3, 7})}


def test_cores_that_this_process_may_not_use_are_given_to_nobody() -> None:
    near = {A: frozenset({0, 1, 2, 3}), B: frozenset({8, 9})}
    assert share_cores(near, frozenset({2, 3}), itself) == {A: frozenset({2}), B: frozenset({3})}


def test_fewer_cores_than_cards_are_shared_by_all() -> None:
    two = frozenset({0, 1})
    assert share_cores({A: two, B: two, C: two}, two, itself) == {A: two, B: two, C: two}


def test_cards_with_some_common_cores_share_all_of_them() -> None:
    near = {A: frozenset({0, 1, 2}), B: frozenset({2, 3})}
    assert share_cores(near, frozenset(range(4)), itself) == {A: frozenset({0, 1}), B: frozenset({2, 3})}


@pytest.mark.parametrize(("siblings", "first"), [("3,67\n", 3), ("2-3\n", 2), ("", 67)])
def test_the_kernel_tells_which_threads_are_one_core(tmp_path: Path, siblings: str, first: int) -> None:
    topology = tmp_path / "cpu67" / "topology"
    topology.mkdir(parents=True)
    (topology / "thread_siblings_list").write_text(siblings)
    assert first_sibling(67, tmp_path) == first


def test_a_card_shows_itself_alone_and_that_the_host_is_shared() -> None:
    variables = LaneCard(unit=A, cores=frozenset({0})).variables
    assert variables == {"CUDA_VISIBLE_DEVICES": A, "PERF_HOST_SHARED": "1"}
