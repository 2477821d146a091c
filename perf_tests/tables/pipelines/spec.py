"""What a row of the pipeline table holds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace

from perf_tests.tables.digest_fields import NEVER, UNLESS_DEFAULT
from perf_tests.tables.lazy import Lazy, Value


@dataclass(frozen=True, kw_only=True, slots=True)
class Module:
    """A component with weights: a class of diffusers or transformers and its config."""

    cls: str
    """`"package:Class"`."""
    config: dict[str, Value]
    config_cls: str | None = None
    """`"package:Config"` where the class takes one (transformers); None where it takes keywords."""
    gains: dict[str, float] = field(default_factory=dict, metadata=UNLESS_DEFAULT)
    """Factors on synthetic weights whose standard deviation is not 1 / sqrt(fan_in) in this architecture:
    pattern of parameter names (`fnmatch`) -> factor."""

    def with_config(self, **changes: Value) -> Module:
        """This module with some of its config changed."""
        return dataclasses.replace(self, config={**self.config, **changes})


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokenizer:
    """A tokenizer made offline: byte-level, with the special tokens where the checkpoint has them."""

    max_length: int
    pad_token_id: int
    eos_token_id: int
    bos_token_id: int | None = None
    """None where the tokenizer adds none."""
    first_byte_id: int = 3
    """Token id of byte 0."""


FURTHER_PROMPTS = (
    "A lighthouse on a cliff in a thunderstorm, photograph",
    "Three red apples and a brass key on a checkered tablecloth",
    "A crowded night market in the rain, neon signs, wide angle",
)
"""The prompts of all pairs but the first, the same for every workload."""
PROMPTS = 1 + len(FURTHER_PROMPTS)
"""How many prompts, each with its own seed, the timed generations cycle through: a picture of each is
compared with the reference's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """What one generation is asked for."""

    height: int
    width: int
    steps: int
    batch_size: int = 1
    num_frames: int | None = None
    """None for images."""
    seed: int = 0
    prompt: str = "An astronaut in a garden on Mars, oil painting"
    arguments: dict[str, Value] = field(default_factory=dict)
    """Further keyword arguments of the pipeline call."""
    measured_steps: int | None = field(default=None, metadata=UNLESS_DEFAULT)
    """How many steps are generated, if the latency of all `steps` is composed from measured stages; None: all
    of them."""

    @property
    def generated_steps(self) -> int:
        """The denoise steps that one generation takes."""
        return self.measured_steps or self.steps

    @property
    def pixels(self) -> int:
        """Pixels of all frames of all images or videos of the batch: how much is generated at once."""
        return self.batch_size * (self.num_frames or 1) * self.height * self.width

    def of_prompt(self, pair: int) -> Workload:
        """The workload of the pair with this number, 0 to `PROMPTS - 1`: its own prompt and seed, at the same
        cost. Pair 0 is the workload as it stands."""
        prompt = (self.prompt, *FURTHER_PROMPTS)[pair]
        return replace(self, prompt=prompt, seed=self.seed + pair)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnchorFloor:
    """How close to one stage of the committed anchor a bf16 pipeline must come, as an SQNR in dB."""

    low_db: float
    measured_db: str
    """The range that was measured, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnchorFloors:
    """The floor of each stage of the committed anchor: each is of the worst prompt, encoder and output."""

    embeds: AnchorFloor
    """Of the text encoders' answers, and of what the transformer is given of them."""
    answer: AnchorFloor
    """Of the transformer's answer to its first call."""
    latents: AnchorFloor
    """After the last step."""
    picture: AnchorFloor
    """Of the decoded images or videos."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineSpec:
    """An architecture with everything needed to build it offline, and its default workload."""

    id: str
    family: str = field(metadata=NEVER)
    """The pytest marker that full size and miniature share."""
    cls: str
    """`"diffusers:Class"`."""
    repo: str
    revision: str
    """Commit of `repo`, 40 hex digits."""
    licence: str | None = field(metadata=NEVER)
    """Where the licence is accepted, for gated repositories."""
    modules: dict[str, Module]
    tokenizers: dict[str, Tokenizer]
    scheduler: Lazy | None
    """None for a model that generates nothing: it is quantized and moved, and asked a question."""
    workload: Workload = field(metadata=NEVER)
    """The default; what a case runs is its own."""
    batch_argument: str
    """The call's keyword for the batch size."""
    output: str
    """The attribute of the pipeline's output which holds the images or videos."""
    blocks: tuple[str, ...]
    """Module lists of the transformer whose items are its repeated blocks."""
    arguments: dict[str, Value] = field(default_factory=dict)
    """Arguments of the pipeline's constructor other than its components."""
    encoder_calls: dict[str, int] = field(default_factory=dict, metadata=NEVER)
    """Text encoder -> its calls in one generation: with guidance, the empty prompt is encoded as well."""
    scheme_arguments: dict[str, dict[str, Value]] = field(default_factory=dict, metadata=NEVER)
    """Id of a scheme -> keyword arguments that its torchao config takes in this pipeline in addition.
    `Build.config_of` has them, and through it the digests of just these cases."""
    single_row: tuple[str, ...] = field(default=(), metadata=NEVER)
    """Linear modules of the transformer that see one row per image: patterns (`fnmatch`) of their names."""
    miniature_of: str | None = field(default=None, metadata=NEVER)
    """The id of the full-size pipeline that this one is, with small modules; None for all others."""
    one_output_per_prompt: bool = field(default=False, metadata=NEVER)
    """Whether the pipeline ignores `batch_argument`: a batch needs a list of prompts."""
    upcasts_vae: bool = field(default=False, metadata=NEVER)
    """Whether the pipeline turns a VAE in float16 into float32 when it first decodes, and leaves it so."""
    anchor: AnchorFloors | None = field(default=None, metadata=NEVER)
    """None where no anchor is committed for it (baselines/anchors/)."""
    batch_measured_steps: int | None = field(default=None, metadata=NEVER)
    """`Workload.measured_steps` of batches that are larger than the default workload's; None: the
    default's."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Everything of the stack that the pipeline is made of, as `"package:Name"`."""
        classes = (name for each in self.modules.values() for name in (each.cls, each.config_cls) if name)
        return (self.cls, *classes, *(self.scheduler.targets if self.scheduler else ()))

    @property
    def generates(self) -> bool:
        """Whether it makes pictures or videos."""
        return self.scheduler is not None

    def workload_of_batch(self, batch_size: int) -> Workload:
        """The default workload with another batch size."""
        default = self.workload
        if batch_size == default.batch_size:
            return default
        few = self.batch_measured_steps if batch_size > default.batch_size else None
        return replace(default, batch_size=batch_size, measured_steps=few or default.measured_steps)
