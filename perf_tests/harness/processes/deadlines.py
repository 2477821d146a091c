"""How long a worker may take for each phase."""

from __future__ import annotations

from perf_tests.protocol.messages import Phase
from perf_tests.tables.platforms import Timeouts


def timeout_s(timeouts: Timeouts, phase: Phase) -> float:
    """Seconds after which a worker that is still in `phase` is ended."""
    return {
        Phase.LOAD: timeouts.load_s,
        Phase.QUANTIZE: timeouts.quantize_s,
        Phase.SEARCH: timeouts.quantize_s + timeouts.compile_s,  # a search compiles every candidate
        Phase.SAVE: timeouts.load_s + timeouts.quantize_s,  # some ways build and quantize for themselves
        Phase.COMPILE: timeouts.compile_s,
        Phase.GENERATE: timeouts.generate_s,
        Phase.SWITCH_WORKLOAD: timeouts.quantize_s,
        Phase.INSPECT: timeouts.generate_s,  # generates once more to count kernels
    }[phase]
