"""TABLE: the metrics of what quantization made of the weights."""

from __future__ import annotations

from perf_tests.tables.metrics.spec import (
    BY_RULE_EVERYWHERE,
    COUNT_ELSEWHERE,
    TRAINING,
    UNTRAINED,
    Better,
    Group,
    Metric,
    Reader,
    Rule,
    Tolerance,
    Trait,
)

METRICS = (
    *(
        Metric(
            name=name,
            units=units,
            better=Better.EXACT,
            group=Group.QUANTIZATION,
            reader=Reader.BUILD,
            rule=Rule.EXACT,
            gates=BY_RULE_EVERYWHERE,
            follows_search=True,
            activities=UNTRAINED,
        )
        for name, units in (("quantized_modules", ""), ("weight_bytes", "B"))
    ),
    # A sum over all components, with a tolerance, does not see one layer of one encoder in float32.
    *(
        Metric(
            name=f"{component}_bytes",
            units="B",
            better=Better.EXACT,
            group=Group.QUANTIZATION,
            reader=Reader.BUILD,
            rule=Rule.EXACT,
            gates=BY_RULE_EVERYWHERE,
            component=component,
            follows_search=True,
            activities=UNTRAINED,
        )
        for component in ("transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "vae")
    ),
    Metric(
        name="checkpoint_bytes",
        units="B",
        better=Better.EXACT,
        group=Group.QUANTIZATION,
        reader=Reader.BUILD,
        rule=Rule.EXACT,
        gates=BY_RULE_EVERYWHERE,
        only_for=(Trait.LOADED,),
        # What a format says besides the tensors belongs to those who write it.
        same_packages=("torch", "torchao", "diffusers", "safetensors"),
        elsewhere=Tolerance(relative_pct=0.5),
    ),
    Metric(
        name="adapter_elements",
        units="",
        better=Better.EXACT,
        group=Group.QUANTIZATION,
        reader=Reader.BUILD,
        rule=Rule.EXACT,
        gates=BY_RULE_EVERYWHERE,
        activities=TRAINING,
    ),
    *(
        Metric(
            name=name,
            units="",
            better=Better.EXACT,
            group=Group.QUANTIZATION,
            reader=Reader.BUILD,
            rule=Rule.EXACT,
            gates=BY_RULE_EVERYWHERE,
            activities=TRAINING,
            only_for=(Trait.FLOAT8_TRAINING,),
            same_packages=same_packages,
            elsewhere=COUNT_ELSEWHERE if same_packages else None,
        )
        for name, same_packages in (
            ("float8_modules", ()),
            # Which gradients are computed at all, and which of those with a product of its own, is theirs.
            ("float8_gemms_forward", ("torch", "torchao")),
            ("float8_gemms_backward", ("torch", "torchao")),
        )
    ),
)
