"""What a blind night draws."""

from __future__ import annotations

import random

import pytest

from perf_tests.unit.fake_worker.switches import Switches
from perf_tests.unit.harness.page import blind_night

CASES = blind_night.measured()


@pytest.mark.parametrize("seed", range(5))
def test_five_kinds_are_drawn_that_share_no_case(seed: int) -> None:
    planted = blind_night.draw(random.Random(seed), CASES)
    spoiled = [case_id for each in planted for case_id in each.cases]

    assert len({each.kind for each in planted}) == 5
    assert len(spoiled) == len(set(spoiled))
    assert all(3 <= len(each.cases) <= 12 for each in planted)


def test_what_is_drawn_is_told_to_the_cases_that_it_names_and_to_no_others() -> None:
    planted = blind_night.draw(random.Random(0), CASES)
    switches = Switches(",".join(each.told for each in planted))

    for each in planted:
        name = each.switch.partition(":")[0]
        told = {case.id for case in CASES if switches.argument(name, case) is not None}
        assert told == set(each.cases)


def test_another_night_has_other_causes() -> None:
    assert blind_night.draw(random.Random(0), CASES) != blind_night.draw(random.Random(1), CASES)
