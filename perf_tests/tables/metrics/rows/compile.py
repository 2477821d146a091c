"""TABLE: the metrics of what was compiled, and of what compiling takes."""

from __future__ import annotations

from perf_tests.tables.metrics.spec import (
    BY_RULE,
    BY_RULE_EVERYWHERE,
    COUNT_ELSEWHERE,
    INSTRUCTION_SET,
    Better,
    Gate,
    Group,
    Metric,
    Reader,
    Rule,
    Tolerance,
    Trait,
)
from perf_tests.tables.platforms import Device

METRICS = (
    *(
        Metric(
            name=name,
            units="",
            better=Better.EXACT,
            group=Group.COMPILE,
            reader=Reader.BUILD,
            rule=Rule.EXACT,
            gates=BY_RULE_EVERYWHERE,
        )
        for name in ("compiled_graphs", "graph_breaks", "recompiles")
    ),
    Metric(
        name="kernels_per_step",
        units="",
        better=Better.EXACT,
        group=Group.COMPILE,
        reader=Reader.BUILD,
        rule=Rule.EXACT,
        gates={Device.CUDA: BY_RULE},
        follows_search=True,
        # Inductor decides what is fused, and the libraries that come with torch how a GEMM is split.
        same_packages=("torch", "triton"),
        elsewhere=COUNT_ELSEWHERE,
    ),
    # Exact once shown equal between processes and cards, and with the memory filled.
    *(
        Metric(
            name=name,
            units="",
            better=Better.EXACT,
            group=Group.COMPILE,
            reader=Reader.BUILD,
            gates={Device.CUDA: Gate(tolerance=Tolerance(relative_pct=5.0))},
            same_packages=("torch", "triton"),
            elsewhere=COUNT_ELSEWHERE,
        )
        for name in ("kernels_per_encode", "kernels_per_decode")
    ),
    *(
        Metric(
            name=name,
            units="",
            better=Better.EXACT,
            group=Group.COMPILE,
            reader=Reader.BUILD,
            rule=Rule.EXACT,
            gates={Device.CPU: BY_RULE},
            only_for=only_for,
            follows_search=True,
            # What an operator consists of, and what is fused, is torch's choice for a set of instructions.
            same_packages=("torch",),
            same_settings=(INSTRUCTION_SET,),
            elsewhere=COUNT_ELSEWHERE,
        )
        for name, only_for in (
            ("operators_per_encode", ()),
            ("operators_per_step", ()),
            ("operators_per_decode", ()),
            ("operators_in_quantize", (Trait.QUANTIZED,)),
            ("generated_kernels", (Trait.COMPILED,)),
            ("extern_calls", (Trait.COMPILED,)),
        )
    ),
    Metric(
        name="compile_cold_s",
        units="s",
        better=Better.LOWER,
        group=Group.COMPILE,
        reader=Reader.BUILD,
        # Host work, and hosts differ: a gate against doubled compile times, not against percents.
        gates={Device.CUDA: Gate(tolerance=Tolerance(relative_pct=60.0, absolute=10.0))},
        needs_verification=True,
        only_for=(Trait.COMPILED,),
        cold_caches_only=True,
        some_processes=True,
    ),
    Metric(
        name="compile_warm_s",
        units="s",
        better=Better.LOWER,
        group=Group.COMPILE,
        reader=Reader.BUILD,
        gates={},
        needs_verification=True,
        only_for=(Trait.COMPILED,),
        some_processes=True,
    ),
)
