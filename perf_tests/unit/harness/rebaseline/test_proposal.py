from __future__ import annotations

from pathlib import Path

import pytest

from perf_tests.harness.baselines import files
from perf_tests.harness.rebaseline.proposal import commit_message, write
from perf_tests.harness.runs.record import RunRecord
from perf_tests.protocol.errors import BaselineError, UsageError
from perf_tests.unit.builders import (
    FLUX_FP8,
    MINI_BF16,
    MINI_INT8WO,
    make_build,
    make_failure,
    make_process,
    make_record,
    make_run,
)
from perf_tests.unit.harness.rebaseline.proposals import accept, proposed, timed, with_bytes

ID = MINI_INT8WO.id


def _text(root: Path) -> str:
    return files.path_of(root, "cpu", "flux-mini", ID).read_text(encoding="utf-8")


def test_accepting_one_case_keeps_the_entries_and_the_provenance_of_others(tmp_path: Path) -> None:
    accept(tmp_path, make_record(make_run(), make_run(MINI_BF16)), reason="first")
    before = files.load(tmp_path, "cpu")["flux-mini"]
    changed = make_record(make_run(processes=(with_bytes(7.0),)), make_run(MINI_BF16))
    accept(tmp_path, changed, patterns=(ID,), reason="second")
    after = files.load(tmp_path, "cpu")["flux-mini"]
    assert after.cases[MINI_BF16.id] == before.cases[MINI_BF16.id]
    assert {each.reason for each in after.provenance.values()} == {"first", "second"}
    assert after.provenance[after.cases[ID].provenance].reason == "second"


def test_provenance_that_no_entry_refers_to_leaves_the_file(tmp_path: Path) -> None:
    accept(tmp_path, make_record(), reason="first")
    changed = make_record(make_run(processes=(with_bytes(7.0),)))
    accept(tmp_path, changed, reason="second")
    (provenance,) = files.load(tmp_path, "cpu")["flux-mini"].provenance.values()
    assert provenance.reason == "second"


def test_accepting_the_same_run_twice_changes_nothing(tmp_path: Path) -> None:
    accept(tmp_path, make_record())
    before = _text(tmp_path)
    again = proposed(tmp_path, make_record(), reason="another reason")
    write(again)
    assert (again.changes, dict(again.baselines)) == ((), {})
    assert _text(tmp_path) == before


def _spending(*seconds: dict[str, float]) -> RunRecord:
    processes = tuple(make_process(build=make_build(seconds=each)) for each in seconds)
    return make_record(make_run(processes=processes))


def _seconds(root: Path) -> dict[str, float]:
    return files.load(root, "cpu")["flux-mini"].cases[ID].seconds


def test_seconds_change_without_being_shown_as_a_metric(tmp_path: Path) -> None:
    accept(tmp_path, _spending({"load": 1.0}), reason="first")
    proposal = proposed(tmp_path, _spending({"load": 9.0}), reason="second")
    write(proposal)
    assert (proposal.changes, proposal.unshown) == ((), (ID,))
    assert commit_message(proposal, "second") == f"baseline(cpu): second\n\n- {ID}: 1 process (provisional)"
    assert _seconds(tmp_path) == {"load": 9.0}


def test_seconds_are_added_to_an_entry_that_keeps_its_reason(tmp_path: Path) -> None:
    accept(tmp_path, _spending({}), reason="first")
    assert "seconds" not in _text(tmp_path)
    accept(tmp_path, _spending({"load": 1.0}), reason="second")
    assert _seconds(tmp_path) == {"load": 1.0}
    (provenance,) = files.load(tmp_path, "cpu")["flux-mini"].provenance.values()
    assert provenance.reason == "first"


def test_a_proposal_writes_nothing(tmp_path: Path) -> None:
    proposed(tmp_path, make_record())
    assert list(tmp_path.iterdir()) == []


def test_changes_name_old_new_and_percent_of_what_differs_only(tmp_path: Path) -> None:
    accept(tmp_path, make_record(make_run(processes=(with_bytes(4.0),))))
    proposal = proposed(tmp_path, make_record(make_run(processes=(with_bytes(5.0),))))
    (change,) = proposal.changes
    assert (change.case, change.metric, change.old, change.new) == (ID, "weight_bytes", 4.0, 5.0)
    assert change.change_pct == pytest.approx(25.0)


def test_a_first_recording_changes_from_nothing(tmp_path: Path) -> None:
    change = proposed(tmp_path, make_record()).changes[0]
    assert (change.old, change.new, change.change_pct) == (None, 1.0, None)


def test_a_metric_that_is_no_longer_measured_is_shown_as_removed(tmp_path: Path) -> None:
    accept(tmp_path, make_record())
    proposal = proposed(tmp_path, make_record(references=()))
    (change,) = proposal.changes
    assert (change.metric, change.old, change.new) == ("speedup_vs_bf16", 1.0, None)


def test_the_commit_message_names_platform_reason_and_cases(tmp_path: Path) -> None:
    proposal = proposed(tmp_path, make_record(make_run(), make_run(MINI_BF16)))
    assert commit_message(proposal, "new torchao") == (
        "baseline(cpu): new torchao\n\n- flux-mini-b1-int8wo-eager: 1 process (provisional)\n"
        "- flux-mini-b1-bf16-eager: 1 process (provisional)"
    )


# Selection


def test_a_selected_case_is_accepted_although_another_failed(tmp_path: Path) -> None:
    record = make_record(make_run(), make_run(MINI_BF16, failure=make_failure()))
    proposal = proposed(tmp_path, record, patterns=(ID,))
    assert (proposal.ineligible, {change.case for change in proposal.changes}) == ((), {ID})


def test_an_unknown_pattern_is_refused_with_the_ids_of_the_run(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=f"--only 'flux-maxi' matches no case of the run; its cases are: {ID}"
    ):
        proposed(tmp_path, make_record(), patterns=("*", "flux-maxi"))


def test_a_reference_cannot_be_selected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="matches no case of the run"):
        proposed(tmp_path, make_record(), patterns=(MINI_BF16.id,))


def test_an_unknown_platform_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--platform 'h1000' is not one of cpu, h100, h200, a100, b200"):
        proposed(tmp_path, make_record(), platform="h1000")


def test_one_ineligible_case_keeps_all_from_being_written(tmp_path: Path) -> None:
    record = make_record(make_run(), make_run(MINI_BF16, failure=make_failure()))
    with pytest.raises(UsageError, match="nothing was written: flux-mini-b1-bf16-eager: it failed"):
        accept(tmp_path, record)
    assert list(tmp_path.iterdir()) == []


def test_a_case_is_ineligible_by_its_numbers_as_well_as_by_how_it_was_measured(tmp_path: Path) -> None:
    (sentence,) = proposed(tmp_path, timed(100.0, 104.0, 100.0)).ineligible
    assert sentence.startswith(f"{FLUX_FP8.id}: its 3 processes scatter too much: ")
    (sentence,) = proposed(tmp_path, make_record(), platform="h100").ineligible
    assert sentence == f"{ID}: it is a run of another platform: it was measured on cpu, not on h100"


def test_a_broken_baseline_file_is_not_overwritten(tmp_path: Path) -> None:
    path = files.path_of(tmp_path, "cpu", "flux-mini", ID)
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(BaselineError, match="is not JSON"):
        proposed(tmp_path, make_record())
    assert path.read_text() == "{"
