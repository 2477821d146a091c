"""What workers reported as values: how long compiling took, and a loaded case beside its built twin."""

from __future__ import annotations

import msgspec
import pytest

from perf_tests.harness.processes.reported import compile_values, package_values, phase_seconds, twin_values
from perf_tests.protocol.messages import Compiled, Inspected, Loaded, Phase, Quantized
from perf_tests.protocol.packages import CompiledHere, LoadedPackages, Packages
from perf_tests.protocol.reports import BuiltTwin, CompileCache, MemoryWindow, PlanReport, TunedChoices
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
INSPECTED = Inspected(values={}, memory=window(None, 0.0), fidelity_s=13.0)
BYTES = STATE.components["transformer"].weight_bytes


def test_each_second_of_a_worker_is_in_one_phase() -> None:
    spent_s = {
        Phase.IMPORT: 2.0,
        Phase.LOAD: 4.0,
        Phase.QUANTIZE: 21.0,
        Phase.COMPILE: 6.0,
        Phase.GENERATE: 67.0,
        Phase.INSPECT: 30.0,
    }
    quantized = msgspec.structs.replace(QUANTIZED, fidelity_s=12.0)
    assert phase_seconds(spent_s, quantized, INSPECTED, 40.0) == {
        **{
            phase.value: spent_s[phase] for phase in (Phase.IMPORT, Phase.LOAD, Phase.COMPILE, Phase.GENERATE)
        },
        "quantize": 9.0,
        "fidelity": 25.0,
        "inspect": 17.0,
        "built-twin": 40.0,
    }


def test_a_search_is_a_part_of_quantizing() -> None:
    plan = PlanReport(file="plan.json", sha256="f" * 64, search_s=300.0, chosen={})
    quantization = msgspec.structs.replace(QUANTIZED.quantization, plan=plan)
    quantized = msgspec.structs.replace(QUANTIZED, quantization=quantization)
    assert phase_seconds({Phase.SEARCH: 310.0}, quantized, None, 0.0) == {"quantize": 10.0, "search": 300.0}


def test_a_worker_that_only_switched_paid_for_what_it_did_since() -> None:
    spent_s = {Phase.LOAD: 0.0, Phase.QUANTIZE: 0.0, Phase.SWITCH_WORKLOAD: 0.5, Phase.INSPECT: 3.0}
    assert phase_seconds(spent_s, None, msgspec.structs.replace(INSPECTED, fidelity_s=0.0), 0.0) == {
        "turn": 0.5,
        "inspect": 3.0,
    }


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


PACKAGING_TWIN = msgspec.structs.replace(
    TWIN,
    files={},
    packages=Packages(export_s=2.0, compile_s=60.0, files={"One.pt2": 3_000_000, "Two.pt2": 4_000_000}),
    compiled=CompiledHere(first_image_s=32.0, step_ms=100.0, cached_first_image_s=16.0),
)
PACKAGED = Compiled(
    seconds=2.0,
    memory=window(None, 0.0),
    cache=None,
    packages=LoadedPackages(
        seconds=1.5, first_s=1.25, blocks={"One": 19, "Two": 38}, constant_mib=800.0, added_mib=8.0
    ),
)


def test_packages_are_set_against_what_compiling_the_same_blocks_takes() -> None:
    image = make_sample({"latency_s": (6.0,), "denoise_step_ms": (103.0, 104.0, 150.0)})
    assert package_values(PACKAGING_TWIN, PACKAGED, [image], [image]) == {
        "package_bytes": 7_000_000.0,
        "export_s": 2.0,
        "package_s": 60.0,
        "packaged_blocks": 57.0,
        "package_load_s": 1.5,
        "first_package_s": 1.25,
        "package_copied_share": 0.01,
        "first_image_s": 8.0,
        "first_image_s_vs_jit": 0.25,
        "first_image_s_vs_cached": 0.5,
        "denoise_step_ms_vs_jit": 1.04,
    }


def test_case_without_packages_has_no_values_of_them() -> None:
    assert package_values(TWIN, msgspec.structs.replace(PACKAGED, packages=None), (), ()) == {}


def test_packages_are_compared_with_nothing_where_the_twin_did_not_compile() -> None:
    twin = msgspec.structs.replace(PACKAGING_TWIN, compiled=None)
    image = make_sample()
    values = package_values(twin, PACKAGED, [image], [image])
    assert not [name for name in values if "_vs_" in name]


def test_packages_have_no_ratio_to_artifacts_that_could_not_be_saved() -> None:
    cold = CompiledHere(first_image_s=32.0, step_ms=100.0)
    twin, image = msgspec.structs.replace(PACKAGING_TWIN, compiled=cold), make_sample()
    assert "first_image_s_vs_cached" not in package_values(twin, PACKAGED, [image], [image])


def test_pictures_of_packages_need_not_be_those_of_the_twin() -> None:
    assert "outputs_unlike_built" not in twin_values(PACKAGING_TWIN, LOADED, QUANTIZED, (make_sample(),))
