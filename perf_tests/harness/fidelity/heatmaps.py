"""A fidelity metric regressed: heat maps of the pair of pictures that differs most, as files and in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perf_tests.harness.runs.record import Process, Run, Status, Verdict
from perf_tests.protocol.errors import PerfError
from perf_tests.tables.metrics.spec import Metric


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatMaps:
    """The files of one comparison. All PNGs show the image or frame with the lowest PSNR."""

    reference: Path
    candidate: Path
    heatmap: Path
    """|difference|, averaged over the channels, from black through red and yellow to white."""
    frames: Path | None
    """That frame and its neighbours, in rows: reference, candidate, heat map. None for images."""
    video: Path | None
    """MP4 of the whole video that holds that frame, side by side: reference, candidate, heat map. None for
    images, and where it could not be written."""
    no_video: str | None
    """Why a video has no MP4, in one phrase; None where it has one, and for images."""
    amplification: float
    """Factor applied to all differences: the largest one of the worst frame becomes white."""
    where: str
    """The quarter that changed most, and its PSNR."""

    @property
    def files(self) -> Path:
        """A pattern that matches the PNGs of this comparison and nothing else."""
        return self.heatmap.with_name(self.heatmap.name.replace(".heatmap.", ".*."))

    @property
    def listed(self) -> str:
        """`files`, and for videos the MP4 or why there is none, on one line."""
        return ", ".join(str(each) for each in (self.files, self.video, self.no_video) if each)


@dataclass(frozen=True, kw_only=True, slots=True)
class NoHeatMaps:
    """Heat maps were wanted and could not be made."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierHeatMaps:
    """Heat maps that an earlier session drew; the arrays that they were drawn from are gone."""

    files: Path
    """A pattern that matches their PNGs and nothing else."""


Drawing = HeatMaps | EarlierHeatMaps | NoHeatMaps


def explain(verdict: Verdict, metric: Metric) -> bool:
    """Whether heat maps explain `verdict`: it says that the output itself has regressed."""
    return metric.reader.compares_outputs and verdict.status is Status.REGRESSED


def is_shown_by(verdict: Verdict, metric: Metric) -> bool:
    """Whether somebody should look at the output because of `verdict`: it is red, or new."""
    is_new = metric.reader.compares_outputs and verdict.status is Status.NO_BASELINE
    return is_new or explain(verdict, metric)


def drawn(run: Run, out: Path) -> Drawing | None:
    """Write the heat maps of a run next to its captures in the run directory `out`, or find them there.

    None where `run` was not compared with a reference.
    """
    compared = [process for process in run.processes if process.captures and process.fidelity]
    if not compared:
        return None
    if earlier := _earlier(compared[0], out):
        return earlier
    from perf_tests.harness.fidelity import drawing  # scikit-image takes a second, and few sessions need it

    try:
        return drawing.draw_worst_pair(compared[0], out)
    except PerfError as error:
        return NoHeatMaps(reason=str(error))


def _earlier(process: Process, out: Path) -> EarlierHeatMaps | None:
    """Heat maps of arrays that are gone."""
    for array in (out / capture.array for capture in process.captures):
        heatmap = array.with_name(f"{array.stem}.heatmap.png")
        if heatmap.is_file() and not array.exists():
            return EarlierHeatMaps(files=array.with_name(f"{array.stem}.*.png"))
    return None
