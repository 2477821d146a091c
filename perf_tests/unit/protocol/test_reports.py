"""protocol/reports.py: what values say about themselves, and which ones are refused."""

from __future__ import annotations

import msgspec
import pytest

from perf_tests.protocol.reports import CompileCache, Environment, Gpu, MemoryWindow, Quantization

GPU = Gpu(
    name="NVIDIA H100 80GB HBM3",
    uuid="GPU-1",
    capability=(9, 0),
    memory_gib=80.0,
    power_limit_w=700.0,
    driver="575.57",
)


def environment(gpu: Gpu | None) -> Environment:
    return Environment(
        python="3.11.7",
        packages={},
        gpu=gpu,
        cpu_model="some processor",
        cpu_count=2,
        settings={},
        variables={},
    )


def test_a_time_that_is_not_a_number_does_not_pass_as_one() -> None:
    window = MemoryWindow(allocated_mib=None, reserved_mib=None, device_mib=None, rss_mib=float("nan"))
    with pytest.raises(msgspec.ValidationError, match="Expected `float`, got `null`"):
        msgspec.json.decode(msgspec.json.encode(window), type=MemoryWindow)


def test_a_quantization_recorded_before_weights_were_counted_is_still_read() -> None:
    recorded = b'{"expected_modules": 4, "groups": [], "excluded": {}, "unquantized": []}'
    assert msgspec.json.decode(recorded, type=Quantization).weights is None


@pytest.mark.parametrize(
    ("hits", "misses", "bypasses", "state"),
    [
        pytest.param(0, 3, 0, "cold", id="only-misses"),
        pytest.param(3, 0, 0, "warm", id="only-hits"),
        pytest.param(2, 1, 0, "mixed", id="both"),
        pytest.param(3, 0, 1, "mixed", id="bypassed"),
        pytest.param(0, 0, 0, "cold", id="never-used"),
    ],
)
def test_the_state_of_the_compile_cache_follows_from_its_counters(
    hits: int, misses: int, bypasses: int, state: str
) -> None:
    assert CompileCache(hits=hits, misses=misses, bypasses=bypasses).state == state


def test_graphs_that_one_phase_compiled_itself_leave_it_cold() -> None:
    """Seen on an H200: of eight graphs of a training step, one was that of another kind of block."""
    assert CompileCache(hits=1, misses=7, bypasses=0, began_empty=True).state == "cold"
    assert CompileCache(hits=7, misses=0, bypasses=0, began_empty=True).state == "warm"
    assert CompileCache(hits=1, misses=7, bypasses=1, began_empty=True).state == "mixed"


def test_the_unit_of_an_environment_is_its_card_or_else_its_processor() -> None:
    assert environment(GPU).unit == "GPU-1"
    assert environment(None).unit == "some processor"
