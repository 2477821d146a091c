"""The ranges that the tables imply for a case, for metrics that are judged without a baseline."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

from perf_tests.tables.cases import Case, Weights
from perf_tests.tables.metrics.host_bound import unsteady_of
from perf_tests.tables.metrics.spec import IDENTICAL_DB
from perf_tests.tables.pipelines.spec import PROMPTS, AnchorFloor, AnchorFloors
from perf_tests.tables.recipes import Activity
from perf_tests.tables.schemes.spec import Range


def anchor_sqnr_db(case: Case) -> Range | None:
    """Of the transformer's first answer against the committed anchor; None for a case without one."""
    return _above_floor(case, operator.attrgetter("answer"))


def anchor_embeds_sqnr_db(case: Case) -> Range | None:
    """Of the text encoders' answers against the committed anchor; None for a case without one."""
    return _above_floor(case, operator.attrgetter("embeds"))


def anchor_latents_sqnr_db(case: Case) -> Range | None:
    """Of the latents after the last step against the committed anchor; None for a case without one."""
    return _above_floor(case, operator.attrgetter("latents"))


def anchor_picture_sqnr_db(case: Case) -> Range | None:
    """Of the decoded outputs against the committed anchor; None for a case without one."""
    return _above_floor(case, operator.attrgetter("picture"))


def anchor_schedule(case: Case) -> Range | None:
    """Of the timesteps and sigmas that differ from the committed anchor's; None for a case without one."""
    if _anchor_floors(case) is None:
        return None
    return Range(low=0, high=0, source="a schedule is the same in every dtype")


def _above_floor(case: Case, stage: Callable[[AnchorFloors], AnchorFloor]) -> Range | None:
    floors = _anchor_floors(case)
    if floors is None:
        return None
    floor = stage(floors)
    source = f"the rounding of bf16 leaves {floor.measured_db} dB, as threads and kernels vary"
    return Range(low=floor.low_db, high=IDENTICAL_DB, source=source)


def _anchor_floors(case: Case) -> AnchorFloors | None:
    synthetic = case.build.weights is Weights.SYNTHETIC
    return case.build.pipeline.anchor if case.is_reference and synthetic else None


def output_sqnr_db(case: Case) -> Range | None:
    """Of the transformer's output before and after quantization; None where the scheme states none, and where
    it is loaded quantized."""
    return None if case.build.recipe.is_loaded else case.build.recipe.scheme.output_sqnr_db


def weight_bytes_vs_implied(case: Case) -> Range | None:
    """Of the bytes that the weights take, over what the bit width implies; None without quantization."""
    scheme = case.build.recipe.scheme
    if scheme.config is None:
        return None
    source = "the schemes that the plan chose imply 1"
    if scheme.weight is not None:
        source = f"{scheme.weight.bits} bits an element and {scheme.weight.scale_bytes} bytes a scale imply 1"
    return Range(low=0.98, high=1.02, source=source)


def outputs_unlike_built(case: Case) -> Range | None:
    """Of the outputs of the first prompt and seed that are not the built twin's; None without one."""
    if not case.build.recipe.repeats_twin:
        return None
    return Range(low=0, high=0, source="the same tensors give the same picture")


def package_sqnr_db(case: Case) -> Range | None:
    """Of the answers of every block from a package against its own Python code, for the inputs of one step;
    None for a case without packages."""
    if not case.build.recipe.is_packaged:
        return None
    source = "rounding leaves 43 to 57 dB; the weights of another block, or inputs of other strides, -3 to 9"
    return Range(low=25.0, high=IDENTICAL_DB, source=source)


def package_copied_share(case: Case) -> Range | None:
    """Of the memory that loading packages takes / the weights that they are given; None without any."""
    if not case.build.recipe.is_packaged:
        return None
    return Range(low=-math.inf, high=0.5, source="packages use the weights of the blocks: a copy is 1")


def graph_launches_per_step(case: Case) -> Range | None:
    """Of CUDA graphs that a denoise step launches; None for a case that replays none."""
    recipe = case.build.recipe
    if recipe.cuda_graph:
        return Range(low=1, high=1, source="the transformer is one graph, and a step calls it once")
    if recipe.replays:
        return Range(low=1, high=math.inf, source="the mode records them; its log says where it does not")
    return None


def graph_sqnr_db(case: Case) -> Range | None:
    """Of the answers of a replayed CUDA graph, against the same calls without; None for a case without."""
    if not case.build.recipe.cuda_graph:
        return None
    return Range(low=IDENTICAL_DB, high=IDENTICAL_DB, source="the same kernels compute the same bits")


def step_vs_jit(case: Case) -> Range | None:
    """Of a denoise step, over that of the process that compiles the same blocks itself; None for a case
    without packages."""
    if not case.build.recipe.is_packaged:
        return None
    # Where its wall clock is the host's, only a change of kind shows.
    unsteady = unsteady_of(case)
    high = 1.1 if unsteady is None else 1 + unsteady.slower_pct / 100
    return Range(
        low=0.0, high=high, source="the kernels of a package are those that are compiled at run time"
    )


def checkpoint_overhead_bytes(case: Case) -> Range | None:
    """Of the bytes of a checkpoint beyond its tensors, for each tensor; None for a case that loads none."""
    if not case.build.recipe.is_loaded:
        return None
    source = "names, sizes and alignment take 227 to 405 bytes in the formats of November 2026"
    return Range(low=0, high=512, source=source)


def quantize_peak_vs_needed(case: Case) -> Range | None:
    """Of the peak of quantizing and moving, over the weights that must be on the device at once and three
    times the largest of them in float32; None for a pipeline, whose other components are there, too."""
    if case.build.activity is not Activity.QUANTIZING:
        return None
    source = "what quantizes one weight takes twice its size in float32, and no weight is there twice"
    return Range(low=0.0, high=1.0, source=source)


def resident_vs_largest(case: Case) -> Range | None:
    """Of the memory that is allocated between two images, as a share of what the weights of the largest
    component take; None where they may stay."""
    if case.build.recipe.offload is None:
        return None
    return Range(low=0.0, high=0.01, source="weights that are offloaded have left the device")


def h2d_vs_needed(case: Case) -> Range | None:
    """Of the bytes that one image copies to the device, over those of the weights that it must; None where
    nothing is offloaded."""
    if case.build.recipe.offload is None:
        return None
    source = "what is not on the device is copied to it each time; prompts and noise are small"
    return Range(low=1.0, high=1.02, source=source)


def leaked_mib(_case: Case) -> Range:
    """Of the growth of what the allocator of the device holds, with each image or video."""
    source = "a pipeline keeps nothing of what it generated"
    return Range(low=-math.inf, high=1.0, source=source)


def host_growth_mib(_case: Case) -> Range:
    """Of the growth of what the allocator of the host holds, with each image or video."""
    return Range(low=-math.inf, high=16.0, source="a pipeline keeps nothing of what it generated")


def slowing_pct(_case: Case) -> Range:
    """Of how much longer the last image takes than the first, where each took longer than the one before."""
    return Range(low=-math.inf, high=5.0, source="the images of a process are the same work")


def stalled_images(_case: Case) -> Range:
    """Of the images that take far longer than the others of their process."""
    return Range(low=0, high=0, source="the images of a process are the same work")


def layer_scale_error(_case: Case) -> Range:
    """Of how far the scales of one layer may differ from each other, beyond what chance explains."""
    source = "two rows whose scales are 5 % apart and swapped are 4.8 % off"
    return Range(low=0.0, high=0.02, source=source)


def modules_off_plan(case: Case) -> Range | None:
    """Of the Linear modules that are not what the plan chose for them; None without a search."""
    if case.build.recipe.scheme.search is None:
        return None
    return Range(low=0, high=0, source="every Linear module is to be what the plan chose for it")


def calls(case: Case, component: str) -> Range | None:
    """Of `component` in one generation; None where the pipeline has no such component."""
    per_image = {
        "transformer": (case.workload.generated_steps, "one a step, guidance being a batch of it"),
        "decode": (1, "one for all pictures of a batch and all frames of a video"),
        **{
            name: (count, f"the row of {case.build.pipeline.id} says so")
            for name, count in case.build.pipeline.encoder_calls.items()
        },
    }
    if component not in per_image:
        return None
    count, source = per_image[component]
    return Range(low=count, high=count, source=source)


def distinct_prompt_embeddings(_case: Case) -> Range:
    """Of the inputs that all prompts give the transformer."""
    return Range(low=PROMPTS, high=PROMPTS, source="each prompt has embeddings of its own")


def distinct_prompt_latents(case: Case) -> Range | None:
    """Of the latents that two prompts give from the same noise; None for what is compared with a reference,
    which shares all of this with it."""
    if not case.is_reference:
        return None
    return Range(low=2, high=2, source="another prompt changes the latents")


def unfused_attention_calls(case: Case) -> Range | None:
    """Of the calls of attention in a step that no fused kernel carried out; None for packages and for CUDA
    graphs, which run kernels without torch's dispatcher, so that nobody can count its operators."""
    if case.build.recipe.is_packaged or case.build.recipe.replays:
        return None
    return Range(low=0, high=0, source="a fused kernel carries out every call of attention")


def nothing_after_a_change(case: Case) -> Range | None:
    """Of what is compiled again, or no longer compiled, once a shape was met before; None for what generates
    in one shape."""
    if case.build.recipe.reshaping is None:
        return None
    return Range(low=0, high=0, source="each shape keeps what was compiled for it")


def loss_difference_pct(case: Case) -> Range | None:
    """Of how far the loss of all steps lies from that of bf16 eager; None for what does not train."""
    training = case.build.recipe.training
    if training is None:
        return None
    source = f"the loss over {training.steps} steps of one seed is that of bf16"
    return Range(low=0.0, high=training.largest_loss_difference_pct, source=source)


def gradient_error_vs_redrawn(case: Case) -> Range | None:
    """Of the distance (1 - cosine) of the adapters' gradients to those of bf16 eager, over the distance of
    those that bf16 has with other noise; None for what does not train.

    Also None for what trains in float8, which noise says little about: it averages out over many tokens, and
    rounding adds up over many layers. On an H200 float8 moved the gradients of FLUX.1-dev 4.9 times as far as
    other noise did with 6 blocks, and 13.4 times with all 57.
    """
    training = case.build.recipe.training
    if training is None or training.float8 is not None:
        return None
    source = "what products round matters little to a gradient, beside which noise was drawn"
    return Range(low=0.0, high=1.0, source=source)


def gradient_error_vs_rounded(case: Case) -> Range | None:
    """Of the distance (1 - cosine) of the adapters' gradients to those of bf16 eager, over the distance of
    those that bf16 has once the same factors are rounded to float8; None for what does not train in float8.

    Rounding is what float8 costs: 0.88 to 1.09 times that were seen with a scale for each tensor, and 1.00 to
    1.02 with one for each row (the miniature, and FLUX.1-dev with 6 and with 57 blocks on an H200). On the
    miniature, scales that are twice as large come to 22 times or more, and every other module left in bf16 to
    0.65 times or less.
    """
    if not case.build.recipe.trains_in_float8:
        return None
    source = "float8 moves a gradient as far as the rounding of its factors does"
    return Range(low=0.7, high=1.4, source=source)


MOST_ALIKE_DB = 25.0


def batch_psnr_db(case: Case) -> Range | None:
    """Of the two pictures of a batch that are most alike; None for a batch of one."""
    if case.workload.batch_size == 1:
        return None
    source = "pictures from noise of their own are 10 to 14 dB apart, from the same noise identical"
    return Range(low=0.0, high=MOST_ALIKE_DB, source=source)
