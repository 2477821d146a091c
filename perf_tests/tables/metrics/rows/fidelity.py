"""TABLE: the metrics of how close outputs, layers and latents are to those of bf16."""

from __future__ import annotations

import operator

from perf_tests.tables.metrics import expected
from perf_tests.tables.metrics.spec import (
    BY_RULE_EVERYWHERE,
    QUANTIZING,
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


def _off_one(gain: float) -> float:
    return abs(gain - 1)


SURPRISE = Tolerance(absolute=6.0)
"""Half the error: no change of rounding gains as much, while weights that are no longer quantized do."""

METRICS = (
    *(
        Metric(
            name=name,
            units=units,
            better=Better.HIGHER,
            group=Group.FIDELITY,
            reader=Reader.PAIRS,
            field=field,
            rule=Rule.PER_PAIR,
            # Of one pair; the mean of four may move by half of it.
            gates=dict.fromkeys(
                Device,
                Gate(tolerance=Tolerance(absolute=absolute), surprise=surprise),
            ),
            only_for=(Trait.COMPARED, Trait.UNTWINNED),
        )
        for name, field, units, absolute, surprise in (
            ("psnr_db", "pair_psnrs_db", "dB", 3.0, SURPRISE),
            ("ssim", "pair_ssims", "", 0.03, None),
        )
    ),
    *(
        Metric(
            name=name,
            units="dB",
            better=Better.HIGHER,
            group=Group.FIDELITY,
            reader=Reader.CAPTURE,
            field=field,
            # Unchanged code: 0.05 and 0.03 dB between three H100s, 0.12 and 0.09 dB between torch 2.12 and
            # 2.13 on CPU. A miniature is so close to bf16's own noise that it gets twice as much.
            gates={
                Device.CUDA: Gate(tolerance=Tolerance(absolute=absolute), surprise=SURPRISE),
                Device.CPU: Gate(tolerance=Tolerance(absolute=2 * absolute), surprise=SURPRISE),
            },
            only_for=(Trait.COMPARED, Trait.UNTWINNED),
            follows_search=True,
        )
        for name, field, absolute in (
            ("step_sqnr_db", "step_sqnrs_db", 0.5),
            ("latents_sqnr_db", "latents_sqnr_db", 1.0),
        )
    ),
    *(
        Metric(
            name=name,
            units=units,
            better=Better.HIGHER,
            group=Group.FIDELITY,
            reader=Reader.NOISE,
            field=field,
            # What is fused, and so no longer rounded between, is the compiler's choice: 0.4 dB between torch
            # 2.12 and 2.13 on CPU. A fault that only compiled code has costs more, and its quantized twins,
            # compiled alike, do not see it.
            gates=dict.fromkeys(Device, Gate(tolerance=Tolerance(absolute=absolute))),
            only_for=(Trait.COMPILED, Trait.ROUNDS_AS_EAGER, Trait.REFERENCE),
        )
        for name, field, units, absolute in (
            ("noise_step_sqnr_db", "step_sqnrs_db", "dB", 3.0),
            ("noise_latents_sqnr_db", "latents_sqnr_db", "dB", 3.0),
            ("noise_psnr_db", "psnr_db", "dB", 3.0),
            ("noise_ssim", "ssim", "", 0.03),
        )
    ),
    *(
        Metric(
            name=name,
            units=units,
            better=better,
            group=Group.FIDELITY,
            reader=Reader.CAPTURE,
            field=name,
            rule=rule,
            gates=dict.fromkeys(Device, Gate(tolerance=tolerance)) if tolerance else {},
            only_for=(Trait.COMPARED, Trait.UNTWINNED, Trait.VIDEO),
        )
        for name, units, better, rule, tolerance in (
            ("psnr_mean_db", "dB", Better.HIGHER, Rule.WITHIN_TOLERANCE, Tolerance(absolute=1.5)),
            ("psnr_p05_db", "dB", Better.HIGHER, Rule.WITHIN_TOLERANCE, Tolerance(absolute=1.5)),
            ("frame_difference_error", "", Better.LOWER, Rule.WITHIN_TOLERANCE, Tolerance(relative_pct=20.0)),
            # 1 where the video moves as much as its reference: more is flicker, less is a frame that froze.
            ("flicker_ratio", "", Better.EXACT, Rule.EXACT, None),
        )
    ),
    *(
        Metric(
            name=name,
            units=units,
            better=Better.EXACT,
            group=Group.FIDELITY,
            reader=Reader.LAYERS,
            field=field,
            badness=badness,
            rule=Rule.PER_LAYER,
            gates=dict.fromkeys(Device, Gate(tolerance=Tolerance(absolute=absolute))),
            only_for=(Trait.QUANTIZED, Trait.UNTWINNED),
            follows_search=True,
        )
        for name, field, units, badness, absolute in (
            ("layer_sqnr_db", "sqnr_db", "dB", operator.neg, 0.1),
            ("layer_gain", "gain", "", _off_one, 1e-3),
            ("layer_worst_row_sqnr_db", "worst_row_sqnr_db", "dB", operator.neg, 1.0),
        )
    ),
    Metric(
        name="layer_scale_error",
        units="",
        better=Better.LOWER,
        group=Group.FIDELITY,
        reader=Reader.LAYERS,
        field="scale_error",
        badness=float,
        rule=Rule.EXPECTED_OF_LAYERS,
        expected=expected.layer_scale_error,
        gates=BY_RULE_EVERYWHERE,
        only_for=(Trait.QUANTIZED, Trait.UNTWINNED),
    ),
    Metric(
        name="distinct_outputs",
        units="",
        better=Better.EXACT,
        group=Group.FIDELITY,
        reader=Reader.OUTPUTS,
        rule=Rule.EXACT,
        gates=BY_RULE_EVERYWHERE,
        only_for=(Trait.UNTWINNED,),
        activities=UNTRAINED,
    ),
    # Of the answer to the first question, to that of the same model before it was quantized.
    Metric(
        name="answer_sqnr_db",
        units="dB",
        better=Better.HIGHER,
        group=Group.FIDELITY,
        reader=Reader.BUILD,
        gates=dict.fromkeys(Device, Gate(tolerance=Tolerance(absolute=0.5))),
        activities=QUANTIZING,
    ),
    # Of all adapters together, in the first step, to those of bf16 eager in the same process.
    Metric(
        name="gradient_cosine",
        units="",
        better=Better.HIGHER,
        group=Group.FIDELITY,
        reader=Reader.BUILD,
        gates=dict.fromkeys(Device, Gate(tolerance=Tolerance(absolute=0.005))),
        activities=TRAINING,
    ),
    *(
        Metric(
            name=name,
            units=units,
            better=Better.LOWER,
            group=Group.FIDELITY,
            reader=Reader.BUILD,
            gates={},
            activities=TRAINING,
        )
        for name, units in (("train_loss", ""), ("largest_loss_difference_pct", "%"))
    ),
)
