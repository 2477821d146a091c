"""A fidelity metric regressed: heat maps of the pair of pictures that differs most, as files and in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perf_tests.harness.runs.record import Run, Status, Verdict
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


def explaining(verdict: Verdict, metric: Metric, run: Run, out: Path) -> HeatMaps | NoHeatMaps | None:
    """Write the heat maps that show what `verdict` is about, next to the captures in the run directory `out`.

    None where pictures do not explain `verdict`, or where `run` was not compared with a reference.
    """
    compared = [process for process in run.processes if process.captures and process.fidelity]
    if not metric.reader.compares_outputs or verdict.status is not Status.REGRESSED or not compared:
        return None
    from perf_tests.harness.fidelity import drawing  # scikit-image takes a second, and few sessions need it

    try:
        return drawing.draw_worst_pair(compared[0], out)
    except PerfError as error:
        return NoHeatMaps(reason=str(error))
