from __future__ import annotations

from perf_tests.harness.rebaseline import candidates
from perf_tests.tables.platforms import CPU
from perf_tests.unit.builders import (
    LAYER,
    MINI_INT8WO,
    make_build,
    make_layers,
    make_process,
    make_record,
    make_run,
)


def test_every_case_of_the_matrix_can_be_looked_up_with_both_sources_of_weights() -> None:
    assert candidates.CASES[MINI_INT8WO.id].case == MINI_INT8WO
    assert candidates.CASES[MINI_INT8WO.id].platforms == (CPU.id,)
    assert f"{MINI_INT8WO.id}-pretrained" in candidates.CASES


SPARSE24 = "flux1-dev-b1-int8dq-sparse24-regional"


def test_the_step_of_an_unsteady_scheme_is_no_noise_of_its_platform() -> None:
    assert not candidates.shows_noise(SPARSE24, "denoise_step_ms")
    assert not candidates.shows_noise(SPARSE24, "speedup_vs_bf16")
    assert candidates.shows_noise(SPARSE24, "decode_ms")
    assert candidates.shows_noise("flux1-dev-b1-fp8dqrow-regional", "denoise_step_ms")


def test_an_entry_holds_the_layers_of_the_first_process_in_six_decimals() -> None:
    first, second = make_layers(sqnr_db=38.1234567, worst_row_gain=None), make_layers(sqnr_db=1.0)
    processes = tuple(make_process(build=make_build(layers=layers)) for layers in (first, second))
    run = make_run(processes=processes)
    entry = candidates.entry_of(run, make_record(run), "p1")
    assert entry.layers[LAYER].sqnr_db == 38.123457
    assert entry.layers[LAYER].worst_row_gain is None
    assert len(entry.layers) == 2
