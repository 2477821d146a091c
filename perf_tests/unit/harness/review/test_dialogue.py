"""The conversation of a review, with answers from a list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from perf_tests.harness.rebaseline.candidates import read_run
from perf_tests.harness.rebaseline.pooling import pool
from perf_tests.harness.rebaseline.proposal import Terms, propose
from perf_tests.harness.review import items, rejections
from perf_tests.harness.review.dialogue import Dialogue, Reviewed
from perf_tests.harness.review.items import ReviewItem
from perf_tests.harness.runs.record import Progress, RunRecord
from perf_tests.protocol.errors import PerfError
from perf_tests.unit.builders import make_record, make_run
from perf_tests.unit.conftest import rebaseline
from perf_tests.unit.harness.review.reviews import LARGEST_FIRST, record, stored, write_run


def found(tmp_path: Path, made: RunRecord, metric: str | None = None) -> tuple[ReviewItem, ...]:
    root = tmp_path / "baselines"
    source = pool((read_run(write_run(tmp_path / "run", made)),))
    proposal = propose(source, root=root, patterns=("*",), terms=Terms(reason=""))
    return items.items(proposal, source, metric)


@pytest.fixture
def five(tmp_path: Path) -> tuple[ReviewItem, ...]:
    """Five changed cases."""
    stored(tmp_path)
    return found(tmp_path, record(1, 2, 3, -4, 5))


def reviewed(
    five: tuple[ReviewItem, ...],
    *answers: str,
    accept: Callable[[ReviewItem, str], str | None] = lambda *_: None,
) -> tuple[Reviewed, list[str]]:
    typed, said = iter(answers), list[str]()

    def ask(question: str) -> str:
        said.append(question)
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    return Dialogue(ask=ask, say=said.append, accept=accept, reject=lambda _: None).review(five), said


def test_largest_change_is_asked_first(five: tuple[ReviewItem, ...]) -> None:
    assert [item.case for item in five] == list(LARGEST_FIRST)
    assert [item.kind for item in five] == [
        "weight_bytes up",
        "weight_bytes down",
        "weight_bytes up",
        "weight_bytes up",
        "weight_bytes up",
    ]


def test_accept_all_goes_on_with_its_kind_and_asks_about_others(five: tuple[ReviewItem, ...]) -> None:
    done, said = reviewed(five, "a", "new torchao", "s")

    assert [(item.case, reason) for item, reason in done.accepted] == [
        (case, "new torchao") for case in LARGEST_FIRST if case != LARGEST_FIRST[1]
    ]
    assert done.skipped == [LARGEST_FIRST[1]]
    assert done.summary() == "4 accepted, 1 skipped"
    assert said.count("accept? [y,n,s,a,q,?] ") == 2


def test_reason_is_asked_once_for_each_kind(five: tuple[ReviewItem, ...]) -> None:
    done, said = reviewed(five, "y", "grew", "Y", "shrank", "y", "y", "n")

    assert [reason for _, reason in done.accepted] == ["grew", "shrank", "grew", "grew"]
    assert done.rejected == [LARGEST_FIRST[4]]
    assert sum(question.startswith("why are") for question in said) == 2


def test_what_cannot_be_written_is_said_and_the_review_goes_on(five: tuple[ReviewItem, ...]) -> None:
    def accept(item: ReviewItem, _reason: str) -> str | None:
        return "drifted too far" if item.case == LARGEST_FIRST[0] else None

    done, said = reviewed(five, "y", "why", "q", accept=accept)

    assert done.refused == {LARGEST_FIRST[0]: "drifted too far"}
    assert "  not accepted: drifted too far" in said
    assert done.summary() == "1 could not be accepted, 4 left"


def test_nothing_to_ask_about_is_said() -> None:
    assert reviewed(())[0].summary() == "nothing was asked"


def test_commit_message_groups_the_cases_by_reason(five: tuple[ReviewItem, ...]) -> None:
    done, _ = reviewed(five, "y", "grew", "y", "shrank", "q")

    assert items.commit_message(done.accepted) == (
        "baseline(cpu): 2 cases, reviewed\n\n"
        "grew:\n- flux-mini-b1-int4dq-eager: 1 process (provisional)\n\n"
        "shrank:\n- flux-mini-b1-fp8wo-eager: 1 process (provisional)"
    )


def test_only_cases_in_which_a_metric_changes_are_asked_about(tmp_path: Path) -> None:
    stored(tmp_path)

    assert len(found(tmp_path, record(1, 2, 3, 4, 5), "weight_bytes")) == 5
    assert found(tmp_path, record(1, 2, 3, 4, 5), "psnr_db") == ()


def test_new_cases_come_last_and_have_a_kind_of_their_own(tmp_path: Path) -> None:
    (item, *_) = found(tmp_path, record(0, 0, 0, 0, 0))

    assert (item.kind, item.size) == ("new", -1.0)
    assert items.described(item, 1, 1)[0] == "(1 of 1) flux-mini-b1-bf16-eager on cpu: new"
    assert any(
        "more metrics: `rebaseline.py diff` lists them" in line for line in items.described(item, 1, 1)
    )


def test_run_that_was_interrupted_is_refused_and_not_asked_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = stored(tmp_path)
    stopped = make_record(make_run(progress=Progress.INTERRUPTED, reason="interrupted"))
    run = write_run(tmp_path / "run", stopped)

    assert found(tmp_path, stopped) == ()
    assert rebaseline(["review", str(run), "--markdown", "--baselines", str(root)]) == 0
    said = capsys.readouterr()
    assert said.out.endswith("nothing changes\n")
    assert said.err == (
        "rebaseline: not eligible: flux-mini-b1-int8wo-eager: it was interrupted before it had all its "
        "processes\n"
    )


def test_markdown_is_a_table_in_which_nothing_is_markup(tmp_path: Path) -> None:
    stored(tmp_path)

    lines = items.as_markdown(found(tmp_path, record(0, 0, 0, 0, 5))).splitlines()

    assert lines[2] == (
        "| `flux-mini-b1-int4dq-eager` | `weight_bytes` | `1,000 B` | `1,050 B` | `+5.00 %` "
        "| `-` | `-` | `-` |"
    )
    assert lines[-1] == "- `flux-mini-b1-int4dq-eager`: 1 process (provisional)"


def test_metric_that_does_not_exist_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", record(0, 0, 0, 0, 5))

    assert rebaseline(["review", str(run), "--metric", "weights", "--baselines", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("rebaseline: --metric 'weights' is no metric; they are ")


# What was rejected


def test_rejection_is_of_those_numbers_and_not_of_later_ones(
    five: tuple[ReviewItem, ...], tmp_path: Path
) -> None:
    rejections.add(tmp_path, five[0])
    rejections.add(tmp_path, five[1])

    before = rejections.read(tmp_path)
    assert before == {item.case: item.fingerprint for item in five[:2]}
    (later, *_) = found(tmp_path, record(1, 2, 3, 4, 6))
    assert before[later.case] != later.fingerprint


def test_broken_file_of_rejections_is_named(tmp_path: Path) -> None:
    (tmp_path / "review.json").write_text('{"rejected": 1}')

    with pytest.raises(
        PerfError, match=r"cannot read what was rejected before, .*review.json: .*; remove it"
    ):
        rejections.read(tmp_path)
