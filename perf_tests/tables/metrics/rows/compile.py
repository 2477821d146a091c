"""TABLE: the metrics of what was compiled, and of what compiling takes."""

from __future__ import annotations

from perf_tests.tables.metrics import expected
from perf_tests.tables.metrics.spec import (
    ANY,
    BY_RULE,
    BY_RULE_EVERYWHERE,
    COUNT_ELSEWHERE,
    GENERATING,
    INSTRUCTION_SET,
    TRAINING,
    UNTRAINED,
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
from perf_tests.tables.recipes import Activity

WITHIN_5_PCT = Gate(tolerance=Tolerance(relative_pct=5.0))
KERNEL_COUNTS = (
    ("kernels_per_step", Rule.EXACT, True, COUNT_ELSEWHERE),
    # Equal in 4 to 6 processes of each of 5 rows, on up to 3 H100s. To become `Rule.EXACT` once they are seen
    # to be equal with the memory filled, too.
    ("kernels_per_encode", Rule.WITHIN_TOLERANCE, False, None),
    ("kernels_per_decode", Rule.WITHIN_TOLERANCE, False, None),
)
"""Name, rule, whether a search of schemes decides it, and how far it may lie off where kernels are tuned (a
product with its epilogue is one kernel or two, whichever was faster by a hair, in each of 57 blocks); None
where nothing of it is."""


# Host work, and hosts differ: a gate against doubled compile times, not against percents.
HOST_WORK = Gate(tolerance=Tolerance(relative_pct=60.0, absolute=10.0))


def kernel_count(
    name: str,
    rule: Rule,
    *,
    follows_search: bool = False,
    where_tuned: Tolerance | None = None,
    activities: tuple[Activity, ...] = GENERATING,
) -> Metric:
    """The row of the kernels that a GPU runs in one stage; `rule` judges it under the same stack."""
    return Metric(
        name=name,
        units="",
        better=Better.EXACT,
        group=Group.COMPILE,
        reader=Reader.BUILD,
        rule=rule,
        gates={Device.CUDA: BY_RULE if rule is Rule.EXACT else WITHIN_5_PCT},
        follows_search=follows_search,
        activities=activities,
        # Inductor decides what is fused, and the libraries that come with torch how a GEMM is split.
        same_packages=("torch", "triton"),
        elsewhere=COUNT_ELSEWHERE,
        where_tuned=where_tuned,
    )


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
            activities=ANY,
        )
        for name in ("compiled_graphs", "graph_breaks", "recompiles")
    ),
    *(
        kernel_count(name, rule, follows_search=follows_search, where_tuned=where_tuned)
        for name, rule, follows_search, where_tuned in KERNEL_COUNTS
    ),
    # Of a forward and a backward pass. No GPU has counted it twice yet.
    kernel_count("kernels_per_train_step", Rule.WITHIN_TOLERANCE, activities=TRAINING),
    *(
        Metric(
            name=name,
            units="",
            better=Better.EXACT,
            group=Group.COMPILE,
            reader=Reader.BUILD,
            rule=Rule.EXACT,
            gates={Device.CPU: BY_RULE},
            activities=activities,
            only_for=only_for,
            follows_search=True,
            # What an operator consists of, and what is fused, is torch's choice for a set of instructions.
            same_packages=("torch",),
            same_settings=(INSTRUCTION_SET,),
            elsewhere=COUNT_ELSEWHERE,
        )
        for name, activities, only_for in (
            ("operators_per_encode", GENERATING, (Trait.UNTWINNED,)),
            ("operators_per_step", GENERATING, (Trait.UNTWINNED,)),
            ("operators_per_decode", GENERATING, (Trait.UNTWINNED,)),
            ("operators_in_quantize", UNTRAINED, (Trait.QUANTIZED, Trait.MADE_HERE)),
            ("generated_kernels", ANY, (Trait.COMPILED,)),
            ("extern_calls", ANY, (Trait.COMPILED,)),
        )
    ),
    Metric(
        name="graphs_of_changes",
        units="",
        better=Better.EXACT,
        group=Group.COMPILE,
        reader=Reader.BUILD,
        rule=Rule.EXACT,
        gates=BY_RULE_EVERYWHERE,
        only_for=(Trait.RESHAPED,),
    ),
    *(
        Metric(
            name=name,
            units="s",
            better=Better.LOWER,
            group=Group.COMPILE,
            reader=Reader.BUILD,
            gates=gates,
            needs_verification=True,
            only_for=(Trait.RESHAPED,),
        )
        for name, gates in (
            # As much host work as a cold compilation of each shape.
            (
                "first_image_after_change_s",
                {Device.CUDA: Gate(tolerance=Tolerance(relative_pct=60.0, absolute=10.0))},
            ),
            ("image_after_change_s", {}),
        )
    ),
    Metric(
        name="compile_cold_s",
        units="s",
        better=Better.LOWER,
        group=Group.COMPILE,
        reader=Reader.BUILD,
        gates={Device.CUDA: HOST_WORK},
        needs_verification=True,
        activities=ANY,
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
        activities=ANY,
        only_for=(Trait.COMPILED,),
        some_processes=True,
    ),
    # What packages take, and what they spare the process that loads them.
    Metric(
        name="package_bytes",
        units="B",
        better=Better.LOWER,
        group=Group.COMPILE,
        reader=Reader.BUILD,
        gates={Device.CUDA: WITHIN_5_PCT},
        only_for=(Trait.PACKAGED,),
        # Machine code of torch's and triton's making.
        same_packages=("torch", "triton"),
        elsewhere=COUNT_ELSEWHERE,
    ),
    Metric(
        name="packaged_blocks",
        units="",
        better=Better.EXACT,
        group=Group.COMPILE,
        reader=Reader.BUILD,
        rule=Rule.EXACT,
        gates=BY_RULE_EVERYWHERE,
        only_for=(Trait.PACKAGED,),
    ),
    *(
        Metric(
            name=name,
            units=units,
            better=Better.LOWER,
            group=Group.COMPILE,
            reader=Reader.BUILD,
            gates=gates,
            needs_verification=True,
            only_for=(Trait.PACKAGED,),
        )
        for name, units, gates in (
            ("export_s", "s", {Device.CUDA: HOST_WORK}),
            ("package_s", "s", {Device.CUDA: HOST_WORK}),
            ("package_load_s", "s", {Device.CUDA: HOST_WORK}),
            # Of it, what is done once in a process, however many blocks it loads.
            ("first_package_s", "s", {}),
            # From weights that are ready to the end of the first image.
            ("first_image_s", "s", {Device.CUDA: HOST_WORK}),
            ("first_image_s_vs_jit", "x", {}),
            # Of a process that reads what another has compiled from a file.
            ("first_image_s_vs_cached", "x", {}),
        )
    ),
    Metric(
        name="denoise_step_ms_vs_jit",
        units="x",
        better=Better.LOWER,
        group=Group.COMPILE,
        reader=Reader.BUILD,
        rule=Rule.CONFIRMED,
        expected=expected.step_vs_jit,
        gates={Device.CUDA: BY_RULE},
        needs_verification=True,
    ),
)
