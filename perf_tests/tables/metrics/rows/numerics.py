"""TABLE: the metrics that are judged by a range which the tables imply, without a baseline."""

from __future__ import annotations

from functools import partial

from perf_tests.tables.metrics import expected
from perf_tests.tables.metrics.spec import BY_RULE, BY_RULE_EVERYWHERE, Better, Group, Metric, Reader, Rule
from perf_tests.tables.platforms import Device

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
            gates=BY_RULE_EVERYWHERE,
        )
        for name, units, implied in (
            ("weight_bytes_vs_implied", "x", expected.weight_bytes_vs_implied),
            ("modules_off_plan", "", expected.modules_off_plan),
            ("unfused_attention_calls", "", expected.unfused_attention_calls),
            ("distinct_prompt_embeddings", "", expected.distinct_prompt_embeddings),
            ("distinct_prompt_latents", "", expected.distinct_prompt_latents),
            ("anchor_schedule", "", expected.anchor_schedule),
            ("outputs_unlike_built", "", expected.outputs_unlike_built),
            ("checkpoint_overhead_bytes", "B", expected.checkpoint_overhead_bytes),
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
)
