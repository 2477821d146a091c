"""What a case is: a build, a workload, and the platforms they are measured on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from perf_tests.tables.digest_fields import identity
from perf_tests.tables.lazy import Lazy
from perf_tests.tables.pipelines.spec import PipelineSpec, Workload
from perf_tests.tables.platforms import Platform
from perf_tests.tables.recipes import FP32_EAGER, Activity, Recipe, bf16_twin
from perf_tests.tables.schemes.spec import Scheme


class Weights(StrEnum):
    """Where a pipeline's weights come from."""

    SYNTHETIC = "synthetic"
    """Computed on the device: a pure function of (parameter name, element index)."""
    PRETRAINED = "pretrained"
    """Downloaded from the hub at the pinned revision, read from the local cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """What one worker holds."""

    pipeline: PipelineSpec
    recipe: Recipe
    weights: Weights = Weights.SYNTHETIC

    def __post_init__(self) -> None:
        """Raises ValueError for a recipe of which more is asked than a model that generates nothing does."""
        alone = Recipe(scheme=self.recipe.scheme, quantized_on=self.recipe.quantized_on)
        if not self.pipeline.generates and (self.recipe != alone or self.recipe.scheme.search is not None):
            raise ValueError(
                f"{self.pipeline.id} is only quantized and moved, and {self.recipe.id} asks for more: name a "
                "scheme without a search, and where to quantize"
            )

    @property
    def activity(self) -> Activity:
        """What is measured."""
        if not self.pipeline.generates:
            return Activity.QUANTIZING
        return Activity.GENERATING if self.recipe.training is None else Activity.TRAINING

    @property
    def exclusions(self) -> dict[str, str]:
        """Linear modules the scheme leaves alone in this pipeline: pattern of qualified names -> reason."""
        scheme = self.recipe.scheme
        few_rows = f"sees one row per image: the kernels need at least {scheme.min_rows}"
        single = self.pipeline.single_row if scheme.min_rows > 1 else ()
        return {**scheme.exclusions, **dict.fromkeys(single, few_rows)}

    @property
    def targets(self) -> tuple[str, ...]:
        """Everything of the stack that a worker imports for this build, as `"package.module:Name"`."""
        compiler = ("torch._inductor.compile_fx:compile_fx",) if self.recipe.compiles else ()
        return (*self.pipeline.targets, *compiler)

    def config_of(self, scheme: Scheme) -> Lazy | None:
        """The torchao config of `scheme` in this pipeline; None where it quantizes nothing."""
        further = self.pipeline.scheme_arguments.get(scheme.id)
        if scheme.config is None or further is None:
            return scheme.config
        return dataclasses.replace(scheme.config, kwargs={**scheme.config.kwargs, **further})


@dataclass(frozen=True, kw_only=True)  # no slots: sessions ask for ids and digests by the thousand
class Case:
    """A build and what it is asked to generate: one test id, one baseline entry, one report row."""

    build: Build
    workload: Workload

    @cached_property
    def id(self) -> str:
        """Pipeline, batch size, scheme, compile mode, then only what differs from the pipeline's
        defaults. Never parsed back."""
        pipeline = self.build.pipeline
        default = pipeline.workload_of_batch(self.workload.batch_size)
        usual_steps = min(default.measured_steps or self.workload.steps, self.workload.steps)
        differences = (
            (f"{self.workload.height}x{self.workload.width}", self._resized),
            (f"f{self.workload.num_frames}", self.workload.num_frames != default.num_frames),
            (f"s{self.workload.steps}", self.workload.steps != default.steps),
            (f"m{self.workload.generated_steps}", self.workload.generated_steps != usual_steps),
            (self.build.weights, self.build.weights is not Weights.SYNTHETIC),
        )
        return "-".join(
            (
                pipeline.id,
                f"b{self.workload.batch_size}",
                self.build.recipe.id,
                *(name for name, differs in differences if differs),
            )
        )

    @property
    def _resized(self) -> bool:
        default = self.build.pipeline.workload
        return (self.workload.height, self.workload.width) != (default.height, default.width)

    @cached_property
    def digest(self) -> str:
        """sha256 of recipe, workload, weights and pipeline row: two entries with different digests
        are different cases, even if their ids agree. How a case is judged does not enter it."""
        content = identity(self)
        # Who declared an exclusion, the scheme or the pipeline, and why, makes no difference.
        content["build"]["recipe"]["scheme"]["exclusions"] = sorted(self.build.exclusions)
        content["build"]["recipe"]["scheme"]["config"] = identity(
            self.build.config_of(self.build.recipe.scheme)
        )
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def with_recipe(self, recipe: Recipe) -> Case:
        """This case under another recipe: pipeline, weights and workload stay."""
        return dataclasses.replace(self, build=dataclasses.replace(self.build, recipe=recipe))

    @property
    def worker_key(self) -> tuple[str, ...]:
        """What cases have in common that one worker can hold, one after another, on one platform.

        That is their build; the plan of a search, the picture of a built twin, and what training is compared
        with are of one workload only, so that no case shares them.
        """
        recipe = self.build.recipe
        build = (self.build.pipeline.id, recipe.id, self.build.weights.value)
        of_one = (recipe.scheme.search, recipe.built_twin, recipe.training)
        shared = all(each is None for each in of_one)
        return build if shared else (*build, self.id)

    @property
    def worker_order(self) -> tuple[int, int, str]:
        """The key that sorts cases which share a worker: what a small workload leaves in the allocator fits
        into a large one."""
        return (self.workload.pixels, self.workload.generated_steps, self.id)

    @cached_property
    def reference(self) -> Case:
        """The bf16 twin; the case itself where it is one, and where nothing would be compared with it."""
        return self if self.is_reference else self.with_recipe(bf16_twin(self.build.recipe))

    @property
    def built_twin(self) -> Case | None:
        """The case whose weights it must have (`Recipe.built_twin`); None where it has none."""
        twin = self.build.recipe.built_twin
        return None if twin is None else self.with_recipe(twin)

    @property
    def is_training(self) -> bool:
        """Whether it trains."""
        return self.build.activity is Activity.TRAINING

    @property
    def is_compared(self) -> bool:
        """Whether its layers and the transformer's answers are compared with bf16: not those of a case whose
        pictures are its built twin's, nor of one without pictures."""
        return self.is_generating and not self.build.recipe.repeats_twin

    @property
    def is_generating(self) -> bool:
        """Whether it shows pictures or videos."""
        return self.build.activity is Activity.GENERATING

    @property
    def steps(self) -> int:
        """Steps of one sample: of denoising, or of the optimizer."""
        training = self.build.recipe.training
        return self.workload.generated_steps if training is None else training.steps

    @property
    def fp32_twin(self) -> Case:
        """The fp32 eager case that CPU time ratios are taken against."""
        return self.with_recipe(FP32_EAGER)

    @cached_property
    def is_reference(self) -> bool:
        """Whether the case is its own reference."""
        return not self.build.pipeline.generates or self.build.recipe == bf16_twin(self.build.recipe)


@dataclass(frozen=True, kw_only=True)  # no slots: its cases are made once
class Row:
    """One case of the matrix, with the platforms it is measured on."""

    pipeline: PipelineSpec
    recipe: Recipe
    platforms: tuple[Platform, ...]
    workload: Workload | None = None
    """None: the pipeline's default."""
    exhaustive: bool = False
    """Whether it belongs to the cross product, which is built and verified only when asked for, in one
    process and without baselines."""

    def case(self, weights: Weights) -> Case:
        """The case of this row with weights from `weights`."""
        return self._cases[weights]

    @cached_property
    def _cases(self) -> Mapping[Weights, Case]:
        workload = self.workload or self.pipeline.workload
        builds = (Build(pipeline=self.pipeline, recipe=self.recipe, weights=weights) for weights in Weights)
        return {build.weights: Case(build=build, workload=workload) for build in builds}
