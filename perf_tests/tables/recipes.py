"""What is done to a pipeline once it is built: a scheme, a compile mode, toggles."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from perf_tests.tables.schemes import BF16, FP32, Scheme


class CompileMode(StrEnum):
    """What `torch.compile` is applied to."""

    EAGER = "eager"
    REGIONAL = "regional"
    """The repeated blocks: diffusers' `compile_repeated_blocks`, or the blocks the pipeline row names."""
    FULL = "full"
    """The whole transformer."""


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

    @property
    def id(self) -> str:
        """Scheme and compile mode, then only the toggles that are on; never parsed back."""
        toggles = (("fused", self.fuse_qkv), ("cvae", self.compile_vae))
        return "-".join((self.scheme.id, self.compile, *(name for name, on in toggles if on)))

    @property
    def compiles(self) -> bool:
        """Whether anything of the pipeline is compiled."""
        return self.compile is not CompileMode.EAGER or self.compile_vae


def bf16_twin(recipe: Recipe) -> Recipe:
    """The unquantized recipe of the same compile mode: what fidelity and speed-up are taken against."""
    return Recipe(scheme=BF16, compile=recipe.compile)


FP32_EAGER = Recipe(scheme=FP32)
