"""TABLE: the metrics that are judged by a range which the tables imply, without a baseline."""

from __future__ import annotations

from functools import partial

from perf_tests.tables.metrics import expected
from perf_tests.tables.metrics.spec import (
    BY_RULE,
    BY_RULE_EVERYWHERE,
    GENERATING,
    TRAINING,
    UNTRAINED,
    Better,
    Group,
    Metric,
    Reader,
    Rule,
)
from perf_tests.tables.platforms import Device

OF_MODELS = frozenset({"weight_bytes_vs_implied", "outputs_unlike_built", "quantize_peak_vs_needed"})
"""Those that are also about a model that generates nothing."""

METRICS = (
    *(
        Metric(
            name=name,
            units="dB",
            better=Better.HIGHER,
            group=Group.NUMERICS,
            reader=Reader.BUILD,
            rule=Rule.EXPECTED_RANGE,
            expected=implied,
            gates=gates,
        )
        for name, implied, gates in (
            ("output_sqnr_db", expected.output_sqnr_db, {Device.CPU: BY_RULE}),
            ("package_sqnr_db", expected.package_sqnr_db, BY_RULE_EVERYWHERE),
            ("graph_sqnr_db", expected.graph_sqnr_db, {Device.CUDA: BY_RULE}),
            # In the order of the pipeline's call: what went wrong first stands first.
            ("anchor_embeds_sqnr_db", expected.anchor_embeds_sqnr_db, BY_RULE_EVERYWHERE),
            ("anchor_sqnr_db", expected.anchor_sqnr_db, BY_RULE_EVERYWHERE),
            ("anchor_latents_sqnr_db", expected.anchor_latents_sqnr_db, BY_RULE_EVERYWHERE),
            ("anchor_picture_sqnr_db", expected.anchor_picture_sqnr_db, BY_RULE_EVERYWHERE),
        )
    ),
    *(
        Metric(
            name=name,
            units=units,
            better=Better.EXACT,
            group=Group.NUMERICS,
            reader=Reader.BUILD,
            rule=Rule.EXPECTED_RANGE,
            expected=implied,
            gates=gates,
            activities=UNTRAINED if name in OF_MODELS else GENERATING,
        )
        for name, units, implied, gates in (
            ("weight_bytes_vs_implied", "x", expected.weight_bytes_vs_implied, BY_RULE_EVERYWHERE),
            ("modules_off_plan", "", expected.modules_off_plan, BY_RULE_EVERYWHERE),
            ("unfused_attention_calls", "", expected.unfused_attention_calls, BY_RULE_EVERYWHERE),
            ("distinct_prompt_embeddings", "", expected.distinct_prompt_embeddings, BY_RULE_EVERYWHERE),
            ("distinct_prompt_latents", "", expected.distinct_prompt_latents, BY_RULE_EVERYWHERE),
            ("anchor_schedule", "", expected.anchor_schedule, BY_RULE_EVERYWHERE),
            ("outputs_unlike_built", "", expected.outputs_unlike_built, BY_RULE_EVERYWHERE),
            ("graphs_on_return", "", expected.nothing_after_a_change, BY_RULE_EVERYWHERE),
            ("eager_blocks_after_change", "", expected.nothing_after_a_change, BY_RULE_EVERYWHERE),
            ("checkpoint_overhead_bytes", "B", expected.checkpoint_overhead_bytes, BY_RULE_EVERYWHERE),
            ("graph_launches_per_step", "", expected.graph_launches_per_step, {Device.CUDA: BY_RULE}),
            ("package_copied_share", "x", expected.package_copied_share, BY_RULE_EVERYWHERE),
            # Only on a GPU is the host another place.
            ("quantize_peak_vs_needed", "x", expected.quantize_peak_vs_needed, {Device.CUDA: BY_RULE}),
            ("resident_vs_largest", "x", expected.resident_vs_largest, {Device.CUDA: BY_RULE}),
            ("h2d_vs_needed", "x", expected.h2d_vs_needed, {Device.CUDA: BY_RULE}),
        )
    ),
    *(
        Metric(
            name=f"{component}_calls",
            units="",
            better=Better.EXACT,
            group=Group.NUMERICS,
            reader=Reader.EVERY_SAMPLE,
            rule=Rule.EXPECTED_RANGE,
            expected=partial(expected.calls, component=component),
            gates=BY_RULE_EVERYWHERE,
        )
        for component in ("transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "decode")
    ),
    Metric(
        name="batch_psnr_db",
        units="dB",
        better=Better.LOWER,
        group=Group.NUMERICS,
        reader=Reader.EVERY_SAMPLE,
        rule=Rule.EXPECTED_RANGE,
        expected=expected.batch_psnr_db,
        gates=BY_RULE_EVERYWHERE,
    ),
    *(
        Metric(
            name=name,
            units=units,
            better=better,
            group=Group.NUMERICS,
            reader=Reader.BUILD,
            rule=Rule.EXPECTED_RANGE,
            expected=implied,
            gates=BY_RULE_EVERYWHERE,
            activities=TRAINING,
        )
        for name, units, better, implied in (
            ("loss_difference_pct", "%", Better.LOWER, expected.loss_difference_pct),
            ("gradient_error_vs_redrawn", "x", Better.LOWER, expected.gradient_error_vs_redrawn),
            # Less than rounding costs is as wrong as more: then something is not in float8.
            ("gradient_error_vs_rounded", "x", Better.EXACT, expected.gradient_error_vs_rounded),
        )
    ),
)
