"""TABLE: the metrics of memory."""

from __future__ import annotations

from perf_tests.tables.metrics import expected
from perf_tests.tables.metrics.spec import (
    ANY,
    BY_RULE,
    BY_RULE_EVERYWHERE,
    DRIFT_LIMIT_PCT,
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

ALLOCATED = Gate(
    tolerance=Tolerance(relative_pct=1.0, absolute=64.0), surprise=Tolerance(relative_pct=5.0, absolute=64.0)
)
RESERVED = Gate(
    tolerance=Tolerance(relative_pct=3.0, absolute=256.0),
    surprise=Tolerance(relative_pct=10.0, absolute=256.0),
)

METRICS = (
    Metric(
        name="model_memory_mib",
        units="MiB",
        better=Better.LOWER,
        group=Group.MEMORY,
        reader=Reader.BUILD,
        gates={
            device: Gate(tolerance=Tolerance(relative_pct=0.5), surprise=Tolerance(relative_pct=0.5))
            for device in Device
        },
        drift_limit_pct=DRIFT_LIMIT_PCT,
        needs_verification=True,
        activities=ANY,
    ),
    *(
        Metric(
            name=name,
            units="MiB",
            better=Better.LOWER,
            group=Group.MEMORY,
            reader=Reader.BUILD,
            gates={Device.CUDA: gate},
            drift_limit_pct=DRIFT_LIMIT_PCT,
            needs_verification=True,
            activities=ANY,
        )
        for name, gate in (("peak_allocated_mib", ALLOCATED), ("peak_reserved_mib", RESERVED))
    ),
    *(
        Metric(
            name=name,
            units="MiB",
            better=Better.LOWER,
            group=Group.MEMORY,
            reader=Reader.BUILD,
            gates=gates,
            needs_verification=True,
            follows_search=True,
            activities=activities,
            only_for=only_for,
        )
        for name, gates, activities, only_for in (
            ("load_peak_allocated_mib", {Device.CUDA: ALLOCATED}, ANY, ()),
            ("load_peak_reserved_mib", {Device.CUDA: RESERVED}, ANY, ()),
            (
                "quantize_peak_allocated_mib",
                # On a CPU, of the weights that are replaced and of those that replace them.
                {
                    Device.CUDA: ALLOCATED,
                    Device.CPU: Gate(tolerance=Tolerance(relative_pct=5.0, absolute=0.5)),
                },
                UNTRAINED,
                (Trait.QUANTIZED, Trait.MADE_HERE),
            ),
            (
                "quantize_peak_reserved_mib",
                {Device.CUDA: RESERVED},
                UNTRAINED,
                (Trait.QUANTIZED, Trait.MADE_HERE),
            ),
        )
    ),
    *(
        Metric(
            name=name,
            units="MiB",
            better=Better.LOWER,
            group=Group.MEMORY,
            reader=Reader.BUILD,
            gates={},
            needs_verification=True,
            activities=ANY,
        )
        for name in ("peak_device_mib", "peak_rss_mib")
    ),
    *(
        Metric(
            name=name,
            units="MiB",
            better=Better.LOWER,
            group=Group.MEMORY,
            reader=Reader.SAMPLES,
            gates={},
            needs_verification=True,
        )
        for name in ("live_allocated_mib", "live_host_mib")
    ),
    *(
        Metric(
            name=name,
            units="MiB",
            better=Better.LOWER,
            group=Group.MEMORY,
            reader=Reader.GROWTH,
            of=of,
            rule=Rule.EXPECTED_RANGE,
            expected=implied,
            gates=BY_RULE_EVERYWHERE,
            needs_verification=True,
        )
        for name, of, implied in (
            ("leaked_mib_per_image", "live_allocated_mib", expected.leaked_mib),
            ("host_growth_mib_per_image", "live_host_mib", expected.host_growth_mib),
        )
    ),
    # The peak of loading / that of loading and quantizing in the process that saved the file.
    *(
        Metric(
            name=name,
            units="x",
            better=Better.LOWER,
            group=Group.MEMORY,
            reader=Reader.BUILD,
            gates=gates,
            needs_verification=True,
            only_for=(Trait.LOADED,),
        )
        for name, gates in (
            ("load_peak_allocated_vs_built", {Device.CUDA: Gate(tolerance=Tolerance(relative_pct=2.0))}),
            # The imports are part of both.
            ("load_peak_rss_vs_built", {}),
        )
    ),
    # Only of recipes that keep weights on the host, or decode in parts.
    *(
        Metric(
            name=name,
            units=units,
            better=better,
            group=Group.MEMORY,
            reader=Reader.BUILD,
            rule=rule,
            gates=gates,
            needs_verification=True,
            only_for=(trait,),
        )
        for name, units, better, rule, gates, trait in (
            *(
                (
                    f"{stage}_peak_allocated_mib",
                    "MiB",
                    Better.LOWER,
                    Rule.WITHIN_TOLERANCE,
                    {Device.CUDA: ALLOCATED},
                    Trait.SAVES_MEMORY,
                )
                for stage in ("encode", "denoise", "decode")
            ),
            # Between two generations.
            *(
                (name, "MiB", Better.LOWER, Rule.WITHIN_TOLERANCE, gates, Trait.OFFLOADED)
                for name, gates in (
                    ("resident_mib", {Device.CUDA: ALLOCATED}),
                    ("host_pinned_mib", {Device.CUDA: RESERVED}),
                    (
                        "host_weights_mib",
                        dict.fromkeys(Device, Gate(tolerance=Tolerance(relative_pct=0.5))),
                    ),
                )
            ),
            # Of the time that copies to the device take: what a stream of their own is for. A host that makes
            # them take 1.6 times as long takes 38 % off it, the loss of that stream all of it. Without such a
            # stream it is 0, and could not be red.
            (
                "copies_under_kernels_pct",
                "%",
                Better.HIGHER,
                Rule.WITHIN_TOLERANCE,
                {Device.CUDA: Gate(tolerance=Tolerance(relative_pct=50.0, absolute=1.0))},
                Trait.STREAMED,
            ),
            ("offload_set_up_s", "s", Better.LOWER, Rule.WITHIN_TOLERANCE, {}, Trait.OFFLOADED),
        )
    ),
    # Copies of weights, and of what the pipeline itself copies: a few bytes of latents, times and texts.
    *(
        Metric(
            name=name,
            units="B",
            better=Better.EXACT,
            group=Group.MEMORY,
            reader=Reader.BUILD,
            rule=Rule.EXACT,
            gates={Device.CUDA: BY_RULE},
            needs_verification=True,
            same_packages=("torch", "diffusers", "transformers"),
            # More than a pipeline copies besides weights, and less than any block has.
            elsewhere=Tolerance(relative_pct=0.1),
            only_for=(Trait.OFFLOADED,),
        )
        for name in ("h2d_bytes_per_image", "d2h_bytes_per_image")
    ),
)
