"""Processes of several runs as one baseline, and what does not belong to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from perf_tests.harness.baselines import files
from perf_tests.harness.baselines.entry import Entry, Provenance
from perf_tests.harness.rebaseline.candidates import CASES, RunFile
from perf_tests.harness.rebaseline.pooling import pool
from perf_tests.harness.runs.record import Process, RunRecord
from perf_tests.tables.platforms import H100
from perf_tests.unit.builders import (
    FLUX_FP8,
    GPU,
    MINI_INT8WO,
    make_failure,
    make_record,
    make_reference,
    make_run,
)
from perf_tests.unit.harness.rebaseline.proposals import accept, on_h100, proposed, with_bytes

ID = FLUX_FP8.id
ITS_SIBLING = CASES["flux1-dev-b1-int8dq-regional"].case
"""A case with the same reference."""
OTHER_CARD = msgspec.structs.replace(GPU, uuid="GPU-other")


def session(*steps_ms: float, reference_ms: float = 130.0, **environment: Any) -> RunRecord:
    """A session of FLUX.1-dev with a process for each step time, and one of its reference."""

    def process(step_ms: float) -> Process:
        found = on_h100(step_ms)
        changed = msgspec.structs.replace(found.environment, **environment)
        return msgspec.structs.replace(found, environment=changed)

    run = make_run(FLUX_FP8, H100, processes=tuple(map(process, steps_ms)))
    return make_record(run, references=(make_reference(FLUX_FP8, H100, processes=(process(reference_ms),)),))


def stored(root: Path) -> tuple[Entry, Provenance]:
    baselines = files.load(root, "h100")["flux1-dev"]
    entry = baselines.cases[ID]
    return entry, baselines.provenance[entry.provenance]


def test_processes_of_one_card_are_pooled_with_their_references(tmp_path: Path) -> None:
    accept(tmp_path, session(100.0), session(100.5, 99.75, reference_ms=130.5))

    entry, provenance = stored(tmp_path)
    assert entry.metrics["denoise_step_ms"] == (100.0, 100.5, 99.75)
    assert (entry.processes, entry.reference_processes, entry.provisional) == (3, 2, False)
    # Both processes of the reference: their geometric mean is 130.2498 ms.
    assert entry.metrics["speedup_vs_bf16"] == pytest.approx((1.302498, 1.296018, 1.305762), abs=1e-6)
    assert (provenance.run_sha256, provenance.pooled_sha256) == (f"{1:064x}", (f"{2:064x}",))


def test_a_single_run_is_taken_as_it_is() -> None:
    record = session(100.0)
    pooled = pool((RunFile(path=Path("run"), record=record, sha256="f"),))
    assert (pooled.record, pooled.left_out) == (record, {})


def test_a_reference_that_was_selected_elsewhere_counts_for_every_run(tmp_path: Path) -> None:
    alone = make_record(make_reference(FLUX_FP8, H100, processes=(on_h100(130.25),)), references=())
    accept(tmp_path, session(100.0), alone, patterns=(ID,))
    entry, _ = stored(tmp_path)
    assert entry.reference_processes == 2


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"packages": {"torch": "9.9"}}, id="stack"),
        pytest.param({"gpu": OTHER_CARD}, id="card"),
    ],
)
def test_a_ratio_is_never_formed_with_the_reference_of_another_run(
    tmp_path: Path, environment: dict[str, Any]
) -> None:
    # The first is taken for another case, so that its reference is among those of the pool.
    other = make_run(ITS_SIBLING, H100, processes=(on_h100(90.0),))
    first = make_record(other, references=session(100.0, reference_ms=200.0).references)
    accept(tmp_path, first, session(100.0, **environment), patterns=(ID,))
    assert stored(tmp_path)[0].metrics["speedup_vs_bf16"] == (1.3,)


def test_a_case_whose_own_reference_failed_is_refused(tmp_path: Path) -> None:
    alone = make_record(*session(100.0, gpu=OTHER_CARD).cases, references=())
    other = make_run(ITS_SIBLING, H100, processes=(on_h100(90.0),))
    first = make_record(other, references=session(100.0).references)
    (sentence,) = proposed(tmp_path, first, alone, patterns=(ID,)).ineligible
    assert "reference" in sentence


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        pytest.param(
            {"gpu": OTHER_CARD}, f"does not pool with run-1: card {GPU.uuid} -> GPU-other", id="card"
        ),
        pytest.param(
            {"gpu": msgspec.structs.replace(GPU, driver="9")}, f"driver {GPU.driver} -> 9", id="driver"
        ),
        pytest.param({"packages": {"torch": "9.9"}}, "torch 2.13.0 -> 9.9", id="stack"),
        pytest.param({"settings": {"threads": "3"}}, "threads absent -> 3", id="settings"),
    ],
)
def test_what_does_not_pool_is_named_with_the_difference(
    tmp_path: Path, environment: dict[str, Any], why: str
) -> None:
    proposal = accept(tmp_path, session(100.0, 100.25), session(101.0, **environment))
    (sentence,) = proposal.left_out
    assert sentence.startswith(f"{ID} of run-2 ")
    assert why in sentence
    assert stored(tmp_path)[0].metrics["denoise_step_ms"] == (100.0, 100.25)


def test_the_card_with_the_most_processes_is_taken(tmp_path: Path) -> None:
    proposal = accept(tmp_path, session(100.0), session(101.0, 101.1, gpu=OTHER_CARD))
    assert proposal.left_out[0].startswith(f"{ID} of run-1 does not pool with run-2: card GPU-other -> ")
    assert stored(tmp_path)[1].unit == "GPU-other"


def test_a_process_that_stands_in_two_runs_counts_once(tmp_path: Path) -> None:
    proposal = accept(tmp_path, session(100.0, 100.25), session(100.25, 100.5))
    assert proposal.left_out == (
        f"{ID} of run-2 holds 1 process of a run that was given before: counted once",
    )
    assert stored(tmp_path)[0].metrics["denoise_step_ms"] == (100.0, 100.25, 100.5)


def test_a_run_that_failed_is_left_out_with_its_reason(tmp_path: Path) -> None:
    failed = make_record(make_run(FLUX_FP8, H100, failure=make_failure()))
    proposal = accept(tmp_path, session(100.0), failed)
    assert proposal.left_out == (f"{ID} of run-2 is left out: it failed: out of memory at 79 GiB",)
    assert stored(tmp_path)[0].processes == 1


def test_a_case_that_no_run_can_give_is_refused_as_if_it_were_alone(tmp_path: Path) -> None:
    failed = make_record(make_run(FLUX_FP8, H100, failure=make_failure()))
    proposal = proposed(tmp_path, failed, failed)
    assert proposal.ineligible == (f"{ID}: it failed: out of memory at 79 GiB",)
    assert proposal.left_out == (f"{ID} of run-2 is left out: it failed: out of memory at 79 GiB",)


def test_processes_that_lie_too_far_apart_are_refused_together(tmp_path: Path) -> None:
    (sentence,) = proposed(tmp_path, session(100.0), session(104.0), session(100.25)).ineligible
    assert sentence.startswith(f"{ID}: its 3 processes scatter too much: ")


def test_processes_whose_counts_differ_are_refused_together(tmp_path: Path) -> None:
    runs = (make_record(make_run(processes=(with_bytes(each),))) for each in (4.0, 5.0))
    (sentence,) = proposed(tmp_path, *runs).ineligible
    assert sentence == (f"{MINI_INT8WO.id}: weight_bytes has no exact value, its processes differ: 4, 5")


def test_only_selected_cases_say_what_of_them_does_not_pool(tmp_path: Path) -> None:
    mini = make_record()
    both = msgspec.structs.replace(mini, cases=(*mini.cases, *session(101.0, gpu=OTHER_CARD).cases))
    assert proposed(tmp_path, session(100.0), both, patterns=(MINI_INT8WO.id,)).left_out == ()
