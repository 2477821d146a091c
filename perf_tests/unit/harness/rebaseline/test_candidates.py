from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.baselines.entry import Entry
from perf_tests.harness.rebaseline import candidates
from perf_tests.harness.rebaseline.candidates import RunFile
from perf_tests.harness.runs.record import RunRecord
from perf_tests.harness.runs.record_file import write_record
from perf_tests.protocol.errors import RecordError
from perf_tests.tables.platforms import CPU, H100
from perf_tests.unit.builders import (
    FLUX_FP8,
    GPU,
    H100_UUID,
    LAYER,
    MINI_BF16,
    MINI_INT8WO,
    make_baselines,
    make_build,
    make_entry,
    make_environment,
    make_layers,
    make_process,
    make_record,
    make_reference,
    make_run,
    make_sample,
)
from perf_tests.unit.harness.rebaseline.proposals import UNSTEADY, with_bytes


def entry_of(record: RunRecord) -> Entry:
    return candidates.entry_of(record.cases[0], record, "p1")


def test_every_case_of_the_matrix_can_be_looked_up_with_either_source_of_weights() -> None:
    assert candidates.CASES[MINI_INT8WO.id].case == MINI_INT8WO
    assert candidates.CASES[MINI_INT8WO.id].platforms == (CPU.id,)
    assert f"{MINI_INT8WO.id}-pretrained" in candidates.CASES


# Records


@pytest.mark.parametrize("name", ["", "run.json"], ids=["folder", "file"])
def test_a_record_is_read_with_the_digest_of_its_file(tmp_path: Path, name: str) -> None:
    write_record(tmp_path / "run.json", make_record())
    found = candidates.read_run(tmp_path / name)
    assert (found.record, len(found.sha256)) == (make_record(), 64)


def test_a_record_that_is_incomplete_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(msgspec.json.encode(make_record())[:-20])
    with pytest.raises(RecordError, match=r"run\.json"):
        candidates.read_run(tmp_path)


def test_a_record_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"run\.json"):
        candidates.read_run(tmp_path / "run.json")


def test_a_reference_may_be_among_the_references_or_the_cases() -> None:
    run, reference = make_run(), make_run(MINI_BF16)
    among_references = make_record(run, references=(reference,))
    among_cases = make_record(run, reference, references=())
    for record in (among_references, among_cases):
        assert candidates.reference_of(run, record) == reference
    assert candidates.reference_of(run, make_record(run, references=())) is None
    assert candidates.reference_of(reference, among_references) is None


# Entries


def test_an_entry_holds_every_observed_metric_with_one_value_per_process() -> None:
    entry = entry_of(make_record(make_run(processes=(with_bytes(5.0), with_bytes(5.0)))))
    assert entry.metrics["weight_bytes"] == (5.0, 5.0)
    assert (entry.processes, entry.reference_processes, entry.samples) == (2, 1, 5)
    assert (entry.digest, entry.provenance) == (MINI_INT8WO.digest, "p1")


def test_an_entry_holds_shown_metrics_as_well_as_gated_ones() -> None:
    metrics = entry_of(make_record()).metrics
    assert {"time_ratio_vs_fp32", "denoise_step_ms", "speedup_vs_bf16"} <= set(metrics)
    assert "compile_cold_s" not in metrics


def test_an_entry_lacks_a_shown_metric_that_was_not_observed() -> None:
    # Without references there is no speed-up, which the CPU platform only shows.
    entry = entry_of(make_record(references=()))
    assert "speedup_vs_bf16" not in entry.metrics
    assert entry.reference_processes is None


def test_an_entry_has_ratios_to_a_reference_that_was_selected_as_a_case() -> None:
    slow = make_process(samples=(make_sample({"denoise_step_ms": [4.0]}),) * 2)
    record = make_record(make_run(), make_run(MINI_BF16, processes=(slow,)), references=())
    assert entry_of(record).metrics["speedup_vs_bf16"] == (4.0,)


def test_an_entry_holds_the_layers_of_the_first_process_in_six_decimals() -> None:
    first, second = make_layers(sqnr_db=38.1234567, worst_row_gain=None), make_layers(sqnr_db=1.0)
    processes = tuple(make_process(build=make_build(layers=layers)) for layers in (first, second))
    entry = entry_of(make_record(make_run(processes=processes)))
    assert entry.layers[LAYER].sqnr_db == 38.123457
    assert entry.layers[LAYER].worst_row_gain is None
    assert len(entry.layers) == 2


def test_an_entry_holds_the_median_seconds_of_the_processes_that_went_through_a_phase() -> None:
    seconds = (
        {"import": 7.04, "load": 24.0, "generate": 16.13},
        {"import": 2.0, "load": 12.06, "generate": 16.1},
        {"generate": 15.9, "turn": 1.26},
    )
    processes = tuple(make_process(build=make_build(seconds=each)) for each in seconds)
    entry = entry_of(make_record(make_run(processes=processes)))
    assert entry.seconds == {"import": 4.5, "load": 18.0, "generate": 16.1, "turn": 1.3}


def test_provenance_says_where_the_numbers_come_from() -> None:
    environment = make_environment(gpu=GPU)
    run = make_run(FLUX_FP8, H100, processes=(make_process(environment=environment),))
    record = make_record(run, references=(make_reference(FLUX_FP8, H100),))
    sources = [RunFile(path=Path(sha256), record=record, sha256=sha256) for sha256 in "fab"]
    found = candidates.provenance_of(run, sources, "  first H100 run ")
    assert (found.unit, found.gpu, found.power_limit_w) == (H100_UUID, "NVIDIA H100 80GB HBM3", 700.0)
    assert (found.reason, found.run_sha256) == ("first H100 run", "f")
    assert found.pooled_sha256 == ("a", "b")
    assert found.recorded_at == "2026-08-02T10:00:00+00:00"
    assert found.packages == environment.packages


# The first reference


def test_a_first_reference_is_kept_and_otherwise_taken_from_the_accepted_numbers() -> None:
    new = make_entry({"model_memory_mib": [3.0], "weight_bytes": [9.0]})
    accepted = make_entry({"model_memory_mib": [2.0]})
    kept = msgspec.structs.replace(accepted, first={"model_memory_mib": (1.0,)})
    found = [candidates.first_reference(new, CPU, MINI_INT8WO, each) for each in (kept, accepted, None)]
    assert found == [{"model_memory_mib": (value,)} for value in (1.0, 2.0, 3.0)]


def test_a_first_reference_is_added_to_entries_of_known_cases_only() -> None:
    entry = make_entry({"model_memory_mib": [2.0]})
    filled = candidates.with_first(make_baselines(cases={MINI_INT8WO.id: entry, "gone": entry}), CPU)
    assert filled.cases[MINI_INT8WO.id].first == {"model_memory_mib": (2.0,)}
    assert filled.cases["gone"].first == {}


def test_drift_is_measured_from_the_first_reference_where_it_is_limited() -> None:
    entry = make_entry({"model_memory_mib": [1.03], "ssim": [0.9]}, first={"model_memory_mib": (1.0,)})
    moved = candidates.drift_of(entry, "model_memory_mib")
    assert moved is not None
    assert moved.change_pct == pytest.approx(3.0)
    assert not moved.is_beyond
    assert candidates.drift_of(entry, "ssim") is None
    assert candidates.drift_of(entry, "removed_from_the_table") is None


# Noise


def test_the_step_of_an_unsteady_scheme_does_not_show_the_noise_of_its_platform() -> None:
    assert not candidates.shows_noise(UNSTEADY.id, "denoise_step_ms")
    assert not candidates.shows_noise(UNSTEADY.id, "speedup_vs_bf16")
    assert candidates.shows_noise(UNSTEADY.id, "decode_ms")
    assert candidates.shows_noise(FLUX_FP8.id, "denoise_step_ms")
    assert candidates.shows_noise("removed-from-the-matrix", "denoise_step_ms")
    assert not candidates.shows_noise("flux1-dev-b1-bf16-eager-modeloffload", "decode_ms")
    assert candidates.shows_noise("flux1-dev-b1-bf16-eager-modeloffload", "denoise_step_ms")
