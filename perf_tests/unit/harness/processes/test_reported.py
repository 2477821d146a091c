"""What workers reported as values: how long compiling took, and a loaded case beside its built twin."""

from __future__ import annotations

import msgspec
import pytest

from perf_tests.harness.processes.reported import compile_values, twin_values
from perf_tests.protocol.messages import Compiled, Loaded, Quantized
from perf_tests.protocol.reports import BuiltTwin, CompileCache, MemoryWindow, TunedChoices
from perf_tests.unit.builders import make_quantization, make_sample, make_state


def window(allocated_mib: float | None, rss_mib: float) -> MemoryWindow:
    return MemoryWindow(allocated_mib=allocated_mib, reserved_mib=None, device_mib=None, rss_mib=rss_mib)


TWIN = BuiltTwin(
    seconds={"load": 6.0, "quantize": 2.0, "save": 9.0},
    memory={"load": window(24_000.0, 3_000.0), "quantize": window(25_000.0, 3_500.0)},
    tensors={},
    output_sha256="a" * 64,
    files={"transformer/one.safetensors": 700, "transformer/two.safetensors": 700},
)
LOADED = Loaded(seconds=4.0, memory=window(12_500.0, 7_000.0), weights={})
STATE = make_state()
QUANTIZED = Quantized(
    seconds=0.0,
    memory=window(None, 0.0),
    quantization=make_quantization(),
    state=STATE,
    tensors={"w as Int8Tensor": "0", "w.qdata": "1", "w.scale": "2"},
)
BYTES = STATE.components["transformer"].weight_bytes


def test_file_is_set_against_the_tensors_and_loading_against_building() -> None:
    values = twin_values(TWIN, LOADED, QUANTIZED, ())
    assert values == {
        "checkpoint_bytes": 1400.0,
        "checkpoint_overhead_bytes": (1400.0 - BYTES) / 2,
        "save_s": 9.0,
        "load_s_vs_built": 0.5,
        "load_peak_allocated_vs_built": 0.5,
        "load_peak_rss_vs_built": 2.0,
    }


def test_device_without_a_counter_of_memory_has_no_ratio_of_it() -> None:
    loaded = msgspec.structs.replace(LOADED, memory=window(None, 7_000.0))
    assert "load_peak_allocated_vs_built" not in twin_values(TWIN, loaded, QUANTIZED, ())


@pytest.mark.parametrize(("output", "unlike"), [("a", 0.0), ("b", 2.0)])
def test_outputs_of_the_first_prompt_alone_are_compared(output: str, unlike: float) -> None:
    first = msgspec.structs.replace(make_sample(), output_sha256=output * 64, pair=0)
    another = msgspec.structs.replace(first, output_sha256="c" * 64, pair=1)
    values = twin_values(TWIN, LOADED, QUANTIZED, (first, first, another))
    assert values["outputs_unlike_built"] == unlike


def test_twin_that_saved_nothing_has_no_file_to_compare() -> None:
    twin = msgspec.structs.replace(TWIN, files={})
    assert twin_values(twin, LOADED, QUANTIZED, ()) == {}


@pytest.mark.parametrize(
    ("artifacts", "hits", "values"),
    [
        pytest.param(None, 4, {"compile_cold_s": 60.0}, id="tuned-by-itself-for-a-smaller-workload"),
        pytest.param("saved", 4, {}, id="tuned-by-others"),
        pytest.param("saved", 0, {"compile_cold_s": 60.0}, id="nothing-tuned-before"),
        pytest.param("loaded", 0, {}, id="loaded"),
    ],
)
def test_cold_compilation_has_a_time_unless_others_spared_it(
    artifacts: str | None, hits: int, values: dict[str, float]
) -> None:
    tuned = TunedChoices(hits=hits, misses=5 - hits)
    cache = CompileCache(hits=0, misses=2, bypasses=0, artifacts=artifacts, tuned=tuned)
    assert compile_values(Compiled(seconds=60.0, memory=window(None, 0.0), cache=cache)) == values
