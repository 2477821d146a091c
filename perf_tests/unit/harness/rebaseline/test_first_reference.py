"""What proposals do to the first reference, which drift is measured from."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.baselines import files
from perf_tests.harness.rebaseline.proposal import write
from perf_tests.unit.builders import FLUX_FP8, MINI_INT8WO, make_record, store_baselines
from perf_tests.unit.harness.rebaseline.proposals import accept, proposed, timed


def _first(root: Path) -> dict[str, tuple[float, ...]]:
    return files.load(root, "h100")["flux1-dev"].cases[FLUX_FP8.id].first


def test_accepted_steps_of_one_percent_are_refused_once_they_add_up_to_the_limit(tmp_path: Path) -> None:
    accepted = 0
    for step in range(11):
        proposal = proposed(tmp_path, timed(100.0 * 1.01**step))
        if proposal.ineligible:
            break
        write(proposal)
        accepted = step
    # 1.01^4 is 4.06 %, 1.01^5 is 5.10 %
    assert accepted == 4
    assert proposal.ineligible == (
        f"{FLUX_FP8.id}: has drifted too far: accepted steps have moved denoise_step_ms by +5.10 % from its "
        "first reference, and the limit is +5.00 %: undo one of them, or start over with "
        "--new-first-reference REASON",
    )
    assert _first(tmp_path)["denoise_step_ms"] == (100.0,)


def test_an_accepted_step_shows_what_all_of_them_add_up_to(tmp_path: Path) -> None:
    accept(tmp_path, timed(100.0))
    accept(tmp_path, timed(101.0))
    changes = {each.metric: each for each in proposed(tmp_path, timed(103.0)).changes}
    assert changes["denoise_step_ms"].change_pct == pytest.approx(1.98, abs=0.001)
    assert changes["denoise_step_ms"].since_first_pct == pytest.approx(3.0)


def test_drift_for_the_better_is_not_limited(tmp_path: Path) -> None:
    accept(tmp_path, timed(100.0))
    proposal = proposed(tmp_path, timed(50.0))
    assert proposal.ineligible == ()


def test_a_new_first_reference_needs_its_own_reason_which_stays(tmp_path: Path) -> None:
    accept(tmp_path, timed(100.0))
    accept(tmp_path, timed(110.0), first_reason="  a better sampler ")
    accept(tmp_path, timed(111.0))
    entry = files.load(tmp_path, "h100")["flux1-dev"].cases[FLUX_FP8.id]
    assert entry.first["denoise_step_ms"] == (110.0,)
    assert entry.first_reason == "a better sampler"


def test_a_first_reference_holds_only_what_gates_and_has_a_drift_limit(tmp_path: Path) -> None:
    accept(tmp_path, make_record())
    assert set(files.load(tmp_path, "cpu")["flux-mini"].cases[MINI_INT8WO.id].first) == {"model_memory_mib"}


def test_a_first_reference_that_is_missing_is_taken_from_the_accepted_numbers(tmp_path: Path) -> None:
    accept(tmp_path, timed(100.0))
    before = files.read(tmp_path, "h100", "flux1-dev")
    entry = msgspec.structs.replace(before.cases[FLUX_FP8.id], first={})
    store_baselines(tmp_path, msgspec.structs.replace(before, cases={FLUX_FP8.id: entry}))
    accept(tmp_path, timed(101.0))
    assert _first(tmp_path)["denoise_step_ms"] == (100.0,)


def test_a_first_reference_is_replaced_where_the_digest_changes(tmp_path: Path) -> None:
    accept(tmp_path, timed(100.0))
    before = files.read(tmp_path, "h100", "flux1-dev")
    entry = msgspec.structs.replace(before.cases[FLUX_FP8.id], digest="d" * 64)
    store_baselines(tmp_path, msgspec.structs.replace(before, cases={FLUX_FP8.id: entry}))
    accept(tmp_path, timed(200.0))
    assert _first(tmp_path)["denoise_step_ms"] == (200.0,)
