"""What becomes of issues over nights: one a cause, never doubled, closed only after three green nights."""

from __future__ import annotations

import msgspec
import pytest

from perf_tests.harness.records.attributions import Blame
from perf_tests.harness.telling import issues
from perf_tests.harness.telling.findings import (
    CASES,
    PACKAGES,
    SUITE,
    CaseOutcome,
    NightFindings,
    RedCause,
)
from perf_tests.harness.telling.issues import ApiIssue, ApiLabel
from perf_tests.harness.telling.plan import NightToTell, plan
from perf_tests.tables.metrics.rows import METRIC_BY_NAME
from perf_tests.unit.harness.telling.nights import (
    ALL,
    BF16,
    FP8,
    FP8_B4,
    INT8,
    Repository,
    cause,
    night,
)

OPENED = "create Performance: fp8dqrow regional on h100: denoise_step_ms regressed"
OTHER = "create Performance: int8wo eager on h100: denoise_step_ms regressed"
BUDGET = tuple(each for each in ALL if each != FP8)
"""All but one case: the time did not suffice for it."""


@pytest.fixture
def repository() -> Repository:
    return Repository()


def after(repository: Repository, *nights: NightFindings) -> list[str]:
    """What the last of these nights did."""
    done: list[str] = []
    for each in nights:
        done = repository.apply(plan(NightToTell(findings=each), repository.issues), int(each.night[-2:]))
    return done


def strip(repository: Repository, number: int = 1) -> str:
    memory = issues.memory_of(repository.issues[number - 1])
    assert memory is not None
    return memory.strip


def test_the_nights_of_a_cause_are_one_issue(repository: Repository) -> None:
    assert after(repository, night(1, cause(FP8))) == [OPENED]
    assert after(repository, night(2, cause(FP8))) == ["update 1"]
    assert after(repository, night(3, cause(INT8))) == [OTHER, "update 1"]  # another cause
    assert after(repository, night(4, measured=BUDGET)) == ["update 1", "update 2"]  # cut by the budget
    assert after(repository, night(5)) == ["update 1", "update 2"]
    assert strip(repository) == "RRg-g"
    assert after(repository, night(6)) == ["close 1", "close 2"]
    assert repository.comments == ["Green in 3 nights, the last one that of 2026-11-06."] * 2
    assert after(repository, night(7)) == []
    assert after(repository, night(8, cause(FP8))) == ["reopen 1"]
    assert strip(repository) == "RRg-ggR"
    assert repository.issues[0].state == "open"
    assert len(repository.issues) == 2


def test_a_red_night_begins_the_count_of_green_ones_anew(repository: Repository) -> None:
    after(repository, night(1, cause(FP8)), night(2), night(3), night(4, cause(FP8)), night(5), night(6))
    assert repository.issues[0].state == "open"
    assert after(repository, night(7)) == ["close 1"]


def test_what_comes_back_after_14_days_is_another_issue(repository: Repository) -> None:
    after(repository, night(1, cause(FP8)), night(2), night(3), night(4))
    assert after(repository, night(19, cause(FP8))) == [OPENED]
    assert len(repository.issues) == 2


def test_each_member_must_have_been_green(repository: Repository) -> None:
    after(repository, night(1, cause(FP8, FP8_B4)), night(2, cause(FP8)))
    without = tuple(each for each in ALL if each != FP8_B4)
    after(repository, *(night(day, measured=without) for day in range(3, 9)))
    assert strip(repository) == "RR------"
    assert repository.issues[0].state == "open"


def test_a_metric_that_is_red_behind_another_one_is_still_red(repository: Repository) -> None:
    after(repository, night(1, cause(FP8)))
    other = night(2, cause(FP8, metric="weight_bytes"))
    (outcome,) = [each for each in other.outcomes if each.case == FP8]
    both = msgspec.structs.replace(outcome, red=("denoise_step_ms", "weight_bytes"))
    outcomes = tuple(both if each is outcome else each for each in other.outcomes)
    after(repository, msgspec.structs.replace(other, outcomes=outcomes))
    assert strip(repository) == "RR"


def test_a_change_that_was_accepted_closes_its_issue_and_names_the_commit(repository: Repository) -> None:
    after(repository, night(1, cause(FP8)))
    assert after(repository, night(3, recorded="2026-11-02")) == ["close 1"]
    assert repository.comments == [
        "The change was accepted with 0123456789abcdef: the baselines of all its cases are newer than it."
    ]


def test_a_change_that_was_red_with_its_accepted_baseline_needs_three_green_nights(
    repository: Repository,
) -> None:
    after(repository, night(1, cause(FP8)), night(3, recorded="2026-11-02"))
    assert after(repository, night(5, cause(FP8), recorded="2026-11-02")) == ["reopen 1"]
    assert after(repository, night(6, recorded="2026-11-02")) == ["update 1"]
    assert after(repository, night(7, recorded="2026-11-06")) == ["close 1"]


def test_what_only_another_metric_shows_with_the_accepted_baseline_is_red_with_it(
    repository: Repository,
) -> None:
    after(repository, night(1, cause(FP8)))
    other = night(3, cause(FP8, metric="weight_bytes"), recorded="2026-11-02")
    outcomes = tuple(
        msgspec.structs.replace(each, red=("denoise_step_ms", "weight_bytes")) if each.case == FP8 else each
        for each in other.outcomes
    )
    after(repository, msgspec.structs.replace(other, outcomes=outcomes))
    assert "close 1" not in after(repository, night(4, recorded="2026-11-02"))


def test_changes_that_are_accepted_one_case_after_the_other_close_their_issue(repository: Repository) -> None:
    def recorded(of: NightFindings, day: int, *case_ids: str) -> NightFindings:
        outcomes = tuple(
            msgspec.structs.replace(each, baseline_of=f"2026-11-{day:02}") if each.case in case_ids else each
            for each in of.outcomes
        )
        return msgspec.structs.replace(of, outcomes=outcomes)

    after(repository, night(1, cause(FP8, FP8_B4)), recorded(night(3, cause(FP8_B4)), 2, FP8))
    assert after(repository, recorded(night(5, recorded="2026-11-04"), 2, FP8)) == ["close 1"]


def elsewhere(of: NightFindings) -> NightFindings:
    """The same night on H200s, on which nothing is red."""
    outcomes = tuple(msgspec.structs.replace(each, platform="h200", red=()) for each in of.outcomes)
    return msgspec.structs.replace(of, run="99-1", causes=(), outcomes=outcomes)


def test_green_nights_of_another_platform_close_no_issue(repository: Repository) -> None:
    after(repository, night(1, cause(FP8)))
    assert after(repository, *(elsewhere(night(day, recorded="2026-11-02")) for day in range(2, 7))) == []
    assert strip(repository) == "R"
    of_both = night(7, cause(FP8))
    outcomes = (*of_both.outcomes, *elsewhere(of_both).outcomes)
    after(repository, msgspec.structs.replace(of_both, causes=(), outcomes=outcomes))
    assert strip(repository) == "RR"


def test_an_issue_from_before_platforms_were_remembered_goes_on(repository: Repository) -> None:
    after(repository, night(1, cause(FP8)))
    repository.issues[0].body = (repository.issues[0].body or "").replace(',"platform":"h100"', "")
    assert after(repository, night(2), night(3), night(4)) == ["close 1"]


def test_a_night_that_was_told_is_not_told_again(repository: Repository) -> None:
    after(repository, night(1, cause(FP8)), night(2, cause(FP8)))
    assert after(repository, night(2, cause(FP8))) == []
    assert after(repository, night(1)) == []  # a job of an earlier night that was run again


def test_which_package_it_was_is_commented_once(repository: Repository) -> None:
    after(repository, night(1, cause(FP8)))
    assert after(repository, night(2, cause(FP8, blame=Blame.TORCH))) == ["update 1"]
    assert repository.comments == ["Which package it comes from is known now: torch."]
    assert after(repository, night(3, cause(FP8, blame=Blame.TORCH))) == ["update 1"]


# Umbrellas


def test_where_bf16_itself_is_red_one_issue_stands_for_all(repository: Repository) -> None:
    done = after(repository, night(1, cause(BF16), cause(FP8)))
    assert done == ["create Performance: the host or the stack as a whole on h100"]
    assert "bf16 itself is red" in (repository.issues[0].body or "")


def test_causes_that_have_an_issue_keep_it_below_an_umbrella(repository: Repository) -> None:
    after(repository, night(1, cause(FP8)))
    done = after(repository, night(2, cause(BF16), cause(FP8), cause(INT8)))
    assert done == ["update 1", "create Performance: the host or the stack as a whole on h100"]


def test_many_new_causes_have_one_thing_in_common(repository: Repository) -> None:
    metrics = ("decode_ms", "encode_ms", "first_step_ms", "weight_bytes", "graph_breaks", "recompiles")
    done = after(repository, night(1, *(cause(FP8, metric=each) for each in metrics)))
    assert done == ["create Performance: the host or the stack as a whole on h100"]
    assert "6 causes are new" in (repository.issues[0].body or "")


def test_an_umbrella_is_closed_after_three_green_nights(repository: Repository) -> None:
    after(repository, night(1, cause(BF16), cause(FP8)), night(2), night(3))
    assert repository.issues[0].state == "open"
    assert after(repository, night(4)) == ["close 1"]


# What is left alone


def test_a_fire_drill_is_told_to_nobody() -> None:
    assert plan(NightToTell(findings=night(1, cause(FP8), counts=False)), ()) == ()


def test_a_quiet_night_without_issues_does_nothing() -> None:
    assert plan(NightToTell(findings=night(1)), ()) == ()


def test_an_issue_without_the_label_is_not_ours(repository: Repository) -> None:
    after(repository, night(1, cause(FP8)))
    body = repository.issues[0].body
    stranger = ApiIssue(number=9, state="open", title="mine", body=body, labels=(ApiLabel(name="bug"),))
    assert [action.number for action in plan(NightToTell(findings=night(2)), [stranger])] == []
    assert [action.kind for action in plan(NightToTell(findings=night(2, cause(FP8))), [stranger])] == [
        "create"
    ]


def test_an_issue_whose_memory_was_edited_away_begins_anew(repository: Repository) -> None:
    after(repository, night(1, cause(FP8)))
    issue = repository.issues[0]
    issue.body = (issue.body or "").replace('"strip"', '"stripe"')
    assert after(repository, night(2)) == []
    assert after(repository, night(3, cause(FP8))) == ["update 1"]
    assert strip(repository) == "R"


def test_the_body_holds_names_numbers_and_commands_only(repository: Repository) -> None:
    red: RedCause = cause(FP8, FP8_B4, blame=Blame.TORCH)
    after(repository, night(1, red))
    body = repository.issues[0].body or ""
    assert f"| `{FP8}` | +1.50 % |" in body
    assert "Which package it comes from: torch." in body
    assert "torch `2.15.0.dev20261101`" in body
    assert f"Reproduce: `pytest --perf-case '{FP8}'`" in body
    assert "`python tools/bisect.py nights torch " in body
    assert "@" not in body


# One night, told twice


def again(of: NightFindings, attempt: int) -> NightFindings:
    return msgspec.structs.replace(of, run=f"{of.run.partition('-')[0]}-{attempt}")


def test_another_attempt_of_a_night_counts_once(repository: Repository) -> None:
    after(repository, night(1, cause(FP8)), again(night(1, cause(FP8)), 2))
    assert strip(repository) == "R"
    after(repository, night(2), again(night(2), 2), again(night(2), 3))
    assert strip(repository) == "Rg"
    assert repository.issues[0].state == "open"


def test_of_two_attempts_the_red_one_counts(repository: Repository) -> None:
    after(repository, night(1, cause(FP8)), night(2), night(3), night(4))
    assert repository.issues[0].state == "closed"
    assert after(repository, again(night(4, cause(FP8)), 2)) == ["reopen 1"]
    assert strip(repository) == "RggR"
    assert after(repository, again(night(4), 3)) == []


def test_an_attempt_that_measures_what_the_first_one_did_not_counts(repository: Repository) -> None:
    after(repository, night(1, cause(FP8)), night(2), night(3), night(4, measured=BUDGET))
    assert strip(repository) == "Rgg-"
    assert after(repository, again(night(4), 2)) == ["close 1"]
    assert strip(repository) == "Rggg"


# Limits


def test_new_causes_of_all_platforms_count_together(repository: Repository) -> None:
    metrics = ("decode_ms", "encode_ms", "first_step_ms", "weight_bytes", "graph_breaks", "recompiles")
    red = night(1, *(cause(FP8, metric=each) for each in metrics))
    moved = tuple(msgspec.structs.replace(each, platform="h200") for each in red.causes[3:])
    findings = msgspec.structs.replace(
        red,
        causes=(*red.causes[:3], *moved),
        outcomes=(*red.outcomes, *elsewhere(red).outcomes),
    )
    assert after(repository, findings) == [
        "create Performance: the host or the stack as a whole on h100",
        "create Performance: the host or the stack as a whole on h200",
    ]


def test_the_longest_body_is_one_that_github_takes() -> None:
    recipe = CASES[FP8].build.recipe
    alike = tuple(
        name
        for name, case in CASES.items()
        if (case.build.recipe.scheme.id, case.build.recipe.compile) == (recipe.scheme.id, recipe.compile)
    )
    causes = tuple(cause(*alike, metric=name) for name in list(METRIC_BY_NAME)[:80])
    everything = msgspec.structs.replace(
        night(1, *causes),
        outcomes=tuple(CaseOutcome(case=each, platform="h100", measured=True) for each in CASES),
        commits=dict.fromkeys((*PACKAGES, SUITE), "0" * 40),
        packages=dict.fromkeys(PACKAGES, "1" * 60),
    )
    (made,) = plan(NightToTell(findings=everything), ())
    assert len(made.body) < 30_000
    assert len(made.body) + sum(map(len, CASES)) + 3 * len(CASES) < 65_536
