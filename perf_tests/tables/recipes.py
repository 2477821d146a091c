"""What is done to a pipeline once it is built: a scheme, a compile mode, toggles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from perf_tests.tables.digest_fields import NEVER, UNLESS_DEFAULT
from perf_tests.tables.lazy import Lazy, Value
from perf_tests.tables.reshaping import Reshaping
from perf_tests.tables.schemes.rows import BF16, FP32
from perf_tests.tables.schemes.spec import Scheme
from perf_tests.tables.training.spec import Training


class CompileMode(StrEnum):
    """What `torch.compile` is applied to."""

    EAGER = "eager"
    REGIONAL = "regional"
    """The repeated blocks: diffusers' `compile_repeated_blocks`, or the blocks the pipeline row names."""
    FULL = "full"
    """The whole transformer."""
    MAX_AUTOTUNE = "maxautotune"
    """The whole transformer in one graph, in torch's mode of that name: timed GEMMs, CUDA graphs."""
    AOTI = "aoti"
    """The repeated blocks: another process exported, compiled and packaged them (AOTInductor)."""


class Activity(StrEnum):
    """What is done with a pipeline, again and again, while it is measured."""

    GENERATING = "generating"
    TRAINING = "training"
    QUANTIZING = "quantizing"
    """A model is quantized and moved, once; then it answers the same questions."""


class Loader(StrEnum):
    """How the transformer's weights come to the process that is measured."""

    BUILT = "built"
    """Made and quantized there."""
    TORCH_SAVE = "torchsave"
    """Loaded by `torch.load(weights_only=True)`: another process quantized them, and saved its state dict."""
    SAFETENSORS = "safetensors"
    """Loaded by torchao's `unflatten_tensor_state_dict`, from a file of another process."""
    TORCHAO_CONFIG = "torchaoconfig"
    """Loaded by the `from_pretrained` of diffusers; another process quantized them with a `TorchAoConfig`."""
    PIPELINE_CONFIG = "pipelineconfig"
    """As before, with the whole pipeline, of which `PipelineQuantizationConfig` named the transformer."""


class QuantizedOn(StrEnum):
    """Where the weights are when they are quantized."""

    DEVICE = "ondevice"
    """On the device, all of them."""
    HOST = "onhost"
    """On the host; what is quantized is moved to the device afterwards, as a whole."""
    MODULE = "bymodule"
    """On the host, from where each module is moved to the device and quantized there (`device=`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Offload:
    """A way to keep weights on the host until they are needed."""

    id: str
    hook: str = field(metadata=NEVER)
    """The class of what moves them, of accelerate or diffusers."""
    waits_on: str = field(metadata=NEVER)
    """Type of device that a module's parameters are on while it is not called: `meta` where only its hook
    holds the weights."""
    per_call: bool = field(metadata=NEVER)
    """Whether each module's weights are copied to the device for each of its calls; else those of a whole
    component, once for each image or video."""
    breaks_graphs: bool = field(metadata=NEVER)
    """Whether dynamo ends a graph at each of its hooks."""
    streams: bool = field(metadata=NEVER)
    """Whether a stream of its own copies weights on a GPU while kernels run."""


MODEL_OFFLOAD = Offload(
    id="modeloffload", hook="CpuOffload", waits_on="cpu", per_call=False, breaks_graphs=False, streams=False
)
"""diffusers' `enable_model_cpu_offload`: a component stays until the next one is called."""
SEQUENTIAL_OFFLOAD = Offload(
    id="seqoffload",
    hook="AlignDevicesHook",
    waits_on="meta",
    per_call=True,
    breaks_graphs=True,
    streams=False,
)
"""diffusers' `enable_sequential_cpu_offload`: a module's weights leave with its call."""
LEAF_OFFLOAD = Offload(
    id="leafoffload",
    hook="GroupOffloadingHook",
    waits_on="cpu",
    per_call=True,
    breaks_graphs=True,
    streams=True,
)
"""diffusers' `enable_group_offload` by leaf: on a GPU, from pinned memory, and the weights of the next module
are copied meanwhile."""
OFFLOADS = (MODEL_OFFLOAD, SEQUENTIAL_OFFLOAD, LEAF_OFFLOAD)


class Decoding(StrEnum):
    """How the VAE decodes."""

    WHOLE = "whole"
    """As it was created: everything at once."""
    TILED = "tiled"
    """In overlapping tiles (`enable_tiling`), which makes another picture, and only where it is larger than
    one of them."""
    SLICED = "sliced"
    """One picture of a batch after another (`enable_slicing`)."""


COMPONENT_TOGGLES = {
    "text_encoder": "qte",
    "text_encoder_2": "qte2",
    "text_encoder_3": "qte3",
    "vae": "qvae",
}
"""Components quantized in addition to the transformer -> how a recipe's id says so."""


INDUCTOR = "perf_tests.worker.model.inductor_settings:apply"
"""The call that gives settings of `torch._inductor.config`, its keyword arguments, their values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """A process-wide setting of the stack without which a recipe is not what its users expect."""

    id: str
    call: Lazy
    """Called before anything is compiled."""
    reason: str = field(metadata=NEVER)
    kernels: str | None = field(default=None, metadata=NEVER)
    """Glob (`fnmatch`) of kernel names, of which a denoise step runs at least one where the setting took
    effect; None where no name tells."""
    tuning_s: float = field(default=0.0, metadata=NEVER)
    """Seconds that compiling takes longer with it, where nothing of what it tunes is known yet."""

    @property
    def inductor(self) -> Mapping[str, Value]:
        """Name in `torch._inductor.config` -> value; empty for a setting of something else."""
        return self.call.kwargs if self.call.target == INDUCTOR else {}


NO_ONEDNN = Setting(
    id="noonednn",
    call=Lazy(target="torch.backends.mkldnn:set_flags", kwargs={"_enabled": False}),
    reason="with oneDNN, inductor rewrites int8 weight-only layers to aten::_weight_int8pack_mm, on a GPU as "
    "well, where that takes 665 times as long as bf16 (tools/repro/int8wo_compile.py)",
)
# torchao also sets `force_fuse_int_mm_with_mul`, which nothing in torch reads any more (2.11 and 2.13).
INT8_GEMM = Setting(
    id="tuned",
    call=Lazy(target=INDUCTOR, kwargs={"max_autotune_gemm": True}),
    reason="by default inductor leaves int8 products to cuBLAS, which has only kernels of Ampere for them "
    "(717 TFLOP/s) and writes int32 for another kernel to scale: on an H200 a denoise step of FLUX.1-dev "
    "takes 155.8 ms that way, and 132.6 ms with Triton kernels that scale what they multiply (950 TFLOP/s)",
    kernels="triton_tem_fused_*int_mm*",
    tuning_s=50.0,
)
COORDINATE_DESCENT = Setting(
    id="cdt",
    call=Lazy(
        target=INDUCTOR,
        kwargs={"coordinate_descent_tuning": True, "coordinate_descent_check_all_directions": True},
    ),
    reason="what torchao sets where it is not told otherwise, and what was published; bf16 gets it, too",
)
# Seen on a CPU with torch 2.13: what the miniature of FLUX answers, compiled as a whole, is 9.7 dB from what
# it answers eager, and 62.6 dB with this setting.
EAGER_CASTS = Setting(
    id="casts",
    call=Lazy(target=INDUCTOR, kwargs={"emulate_precision_casts": True}),
    reason="inductor keeps in float32 what eager rounds to bf16 on the way, such as guidance x 1000",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Scheme, compile mode and toggles: everything that distinguishes two builds of one pipeline."""

    scheme: Scheme
    compile: CompileMode = CompileMode.EAGER
    fuse_qkv: bool = False
    """Fuse the attention projections, before quantization."""
    compile_vae: bool = False
    """Compile the VAE's decoder as well."""
    quantized_components: tuple[str, ...] = ("transformer",)
    """The transformer, and with the toggles qte, qte2, qte3 and qvae text encoders and VAE as well."""
    channels_last: bool = field(default=False, metadata=UNLESS_DEFAULT)
    """Convert transformer and VAE to `torch.channels_last` before anything else is done to them."""

    settings: tuple[Setting, ...] = field(default=(), metadata=UNLESS_DEFAULT)
    loader: Loader = field(default=Loader.BUILT, metadata=UNLESS_DEFAULT)
    quantized_on: QuantizedOn = field(default=QuantizedOn.DEVICE, metadata=UNLESS_DEFAULT)
    offload: Offload | None = field(default=None, metadata=UNLESS_DEFAULT)
    """None: all weights are on the device all the time."""
    decoding: Decoding = field(default=Decoding.WHOLE, metadata=UNLESS_DEFAULT)
    training: Training | None = field(default=None, metadata=UNLESS_DEFAULT)
    """None where it generates."""
    reshaping: Reshaping | None = field(default=None, metadata=UNLESS_DEFAULT)
    """None where all calls are of one shape."""
    cuda_graph: bool = field(default=False, metadata=UNLESS_DEFAULT)
    """Record a call of the transformer, once it is compiled, and replay it as one CUDA graph from then on."""

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be measured together."""
        if self.offload is not None and self.offload.breaks_graphs and self.compiles:
            message = (
                f"{self.id}: dynamo ends a graph at each hook of {self.offload.id}, so that a recipe with it "
                f"must be eager, or offload by {MODEL_OFFLOAD.id}"
            )
            raise ValueError(message)
        if self.is_packaged:
            self._refuse_beside_packages()
        if self.cuda_graph:
            self._refuse_beside_graph()
        if self.training is not None:
            self._refuse_beside_training()

    def _refuse_beside_packages(self) -> None:
        others = {
            "compile_vae": self.compile_vae,
            "loader": self.is_loaded,
            "quantized_on": self.starts_on_host,
            "offload": self.offload is not None,  # packages know where weights are, and not that they move
            "a scheme with a search": self.scheme.search is not None,
        }
        if refused := [name for name, on in others.items() if on]:
            raise ValueError(
                f"blocks that are loaded from packages exclude {', '.join(refused)}: "
                f"choose another compile mode than {self.compile}, or leave it out"
            )

    def _refuse_beside_graph(self) -> None:
        if self.offload is not None or self.compile is CompileMode.MAX_AUTOTUNE:
            message = (
                f"{self.id}: a CUDA graph knows where weights and buffers are, so that none can be recorded "
                "of a transformer that is offloaded, or that replays graphs of its own: leave one of them out"
            )
            raise ValueError(message)

    def _refuse_beside_training(self) -> None:
        others = {
            "a scheme that quantizes": self.scheme.config is not None,
            "fuse_qkv": self.fuse_qkv,
            "compile_vae": self.compile_vae,
            "channels_last": self.channels_last,
            "settings": bool(self.settings),
            "cuda_graph": self.cuda_graph,
            "loader": self.is_loaded,
            "quantized_on": self.starts_on_host,
            "offload": self.offload is not None,
            "decoding": self.decoding is not Decoding.WHOLE,
            "reshaping": self.reshaping is not None,
            **{str(mode): self.compile is mode for mode in (CompileMode.AOTI, CompileMode.MAX_AUTOTUNE)},
        }
        if refused := [name for name, on in others.items() if on]:
            raise ValueError(f"a recipe that trains excludes {', '.join(refused)}: leave it out")

    @property
    def id(self) -> str:
        """Scheme and compile mode, then only the toggles that are on; never parsed back."""
        toggles = (
            ("fused", self.fuse_qkv),
            ("cvae", self.compile_vae),
            *((name, part in self.quantized_components) for part, name in COMPONENT_TOGGLES.items()),
            ("cl", self.channels_last),
            *((setting.id, True) for setting in self.settings),
            (self.loader, self.is_loaded),
            (self.quantized_on, self.starts_on_host),
            (self.offload.id if self.offload else "", self.offload is not None),
            (self.decoding, self.decoding is not Decoding.WHOLE),
            (self.training.id if self.training else "", self.training is not None),
            (self.reshaping.id if self.reshaping else "", self.reshaping is not None),
            ("graphed", self.cuda_graph),
        )
        return "-".join((self.scheme.id, self.compile, *(name for name, on in toggles if on)))

    @property
    def trains_in_float8(self) -> bool:
        """Whether frozen layers multiply in float8 while it trains."""
        return self.training is not None and self.training.float8 is not None

    @property
    def is_loaded(self) -> bool:
        """Whether another process makes the transformer's weights."""
        return self.loader is not Loader.BUILT

    @property
    def is_packaged(self) -> bool:
        """Whether the repeated blocks are those of packages that another process compiled."""
        return self.compile is CompileMode.AOTI

    @property
    def replays(self) -> bool:
        """Whether a denoise step replays CUDA graphs."""
        return self.cuda_graph or self.compile is CompileMode.MAX_AUTOTUNE

    @property
    def starts_on_host(self) -> bool:
        """Whether what is to be quantized is on the host at first."""
        return self.quantized_on is not QuantizedOn.DEVICE

    @property
    def saves_memory(self) -> bool:
        """Whether less is on the device at a time than the pipeline consists of."""
        return self.offload is not None or self.decoding is not Decoding.WHOLE

    @property
    def built_twin(self) -> Recipe | None:
        """The recipe whose weights it must have, bit by bit, since it only differs in how these, or compiled
        blocks, come about and where they wait; None where it is that recipe."""
        twin = replace(
            self,
            loader=Loader.BUILT,
            quantized_on=QuantizedOn.DEVICE,
            offload=None,
            compile=_compiled_at_run_time(self.compile),
        )
        return None if twin == self else twin

    @property
    def repeats_twin(self) -> bool:
        """Whether its pictures must be its built twin's, bit by bit: not where other kernels compute them."""
        return self.built_twin is not None and not self.is_packaged

    @property
    def compiles(self) -> bool:
        """Whether the process that is measured compiles anything of the pipeline."""
        return self.compile not in (CompileMode.EAGER, CompileMode.AOTI) or self.compile_vae

    @property
    def rounds_as_eager(self) -> bool:
        """Whether what is compiled rounds where eager code does. A whole transformer does not unless it is
        told to: inductor keeps guidance x 1000 as 3500 in float32, where eager rounds it to 3504 in bf16."""
        whole = self.compile in (CompileMode.FULL, CompileMode.MAX_AUTOTUNE)
        return not whole or EAGER_CASTS in self.settings

    @property
    def tuning_s(self) -> float:
        """Seconds that a cold compilation takes longer because kernels are chosen by timing."""
        return math.fsum(setting.tuning_s for setting in self.settings)

    @property
    def is_tuned(self) -> bool:
        """Whether kernels are chosen by timing them."""
        return self.tuning_s > 0 or self.compile is CompileMode.MAX_AUTOTUNE


def _compiled_at_run_time(mode: CompileMode) -> CompileMode:
    return CompileMode.REGIONAL if mode is CompileMode.AOTI else mode


def bf16_twin(recipe: Recipe) -> Recipe:
    """The bf16 recipe of the same compile mode, which fidelity and speed-up are measured against; of blocks
    from packages, the one that compiles them itself, and of training, the same steps. What is compiled for
    minutes is compiled alike."""
    if recipe.compile is CompileMode.MAX_AUTOTUNE:
        return Recipe(
            scheme=BF16,
            compile=recipe.compile,
            channels_last=recipe.channels_last,
            settings=recipe.settings,
        )
    training = None if recipe.training is None else recipe.training.in_bf16
    return Recipe(scheme=BF16, compile=_compiled_at_run_time(recipe.compile), training=training)


FP32_EAGER = Recipe(scheme=FP32)
