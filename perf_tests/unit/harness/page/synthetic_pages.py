"""Pages of every kind to open in a browser: made up, marked as such, as large as those of real nights.

`python -m perf_tests.unit.harness.page.synthetic_pages FOLDER` writes them, to be looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from perf_tests.harness.baselines.entry import Accepted
from perf_tests.harness.compare import run_pairs
from perf_tests.harness.history.night import card_of
from perf_tests.harness.page import compared, report_file
from perf_tests.harness.page.earlier import Night, Nights, PastRun
from perf_tests.harness.page.pages import page_of
from perf_tests.harness.page.pictures import albums, of_run
from perf_tests.harness.page.sources import PageSources
from perf_tests.harness.rebaseline.candidates import RunFile
from perf_tests.harness.runs.record import Process, Run, RunRecord, Status, Verdict
from perf_tests.harness.verdicts.gates import gated_metrics
from perf_tests.protocol.messages import FailureKind, Phase
from perf_tests.protocol.reports import Capture
from perf_tests.tables.cases import Case
from perf_tests.tables.platforms import H100
from perf_tests.unit.builders import (
    GPU,
    make_accepted,
    make_build,
    make_entry,
    make_environment,
    make_failure,
    make_process,
    make_record,
    make_run,
    make_sample,
    make_significance,
)
from perf_tests.unit.harness.page import nights
from perf_tests.unit.harness.page.nights import SYNTHETIC, h100_cases

NIGHTS = 60
CASES = 6
"""Of the pages that are not of every row."""
STACK = {"torch": "2.15.0.dev20261119", "torchao": "0.19.0", "triton": "3.8.0", "diffusers": "0.42.1"}
OLD_STACK = STACK | {"torch": "2.15.0.dev20261012"}
TYPICAL = {"ms": 100.0, "s": 4.2, "MiB": 23_456.0, "B": 11_901_408_256.0, "dB": 38.2, "x": 1.62, "%": 97.0}
"""Of a metric, by its unit."""
SLOWER_PCT = 3.4
REASONS = {
    Status.REGRESSED: "3.40 % beyond the baseline, more than the 0.75 % that are tolerated",
    Status.NO_BASELINE: "no baseline of this case is recorded on h100",
}


def green(folder: Path) -> Path:
    """The page of a few cases that all passed."""
    return _written(folder / "green.html", _sources(_record(*map(_run, h100_cases()[:CASES]))))


def red(folder: Path) -> Path:
    """The page of a few cases: one slower, one with other pictures, one crashed, one without a baseline."""
    first, second, third, fourth, *others = h100_cases()[2 : CASES + 2]
    runs = (
        _run(first, {"denoise_step_ms": Status.REGRESSED, "latency_s": Status.REGRESSED}),
        _run(
            second, {"psnr_db": Status.REGRESSED, "ssim": Status.REGRESSED}, capture=_draw(folder, second.id)
        ),
        _crashed(third),
        _run(fourth, {metric.name: Status.NO_BASELINE for metric in gated_metrics(fourth, H100)}),
        *map(_run, others),
    )
    record = _record(*runs)
    sources = _sources(record)
    pictures = albums(
        record.cases, sources.is_red, lambda run: of_run(folder, record, run), report_file.LIMIT_BYTES
    )
    return _written(folder / "red.html", _sources(record, albums=pictures))


def full(folder: Path, count: int | None = None) -> Path:
    """The page of every row, or of `count`, with 60 nights before it and texts that are hostile."""
    record = nights.night(count)
    cases = {case.id: case for case in h100_cases()}
    runs = (_as_judged(run, cases[run.id]) for run in record.cases)
    return _written(folder / "full.html", _sources(msgspec.structs.replace(record, cases=tuple(runs))))


def two_runs(folder: Path) -> Path:
    """The page about two runs of a few cases, of which the second is slower."""
    base, candidate = (
        RunFile(path=folder / name, record=_measured(share, stack), sha256=name * 64)
        for name, share, stack in (("a", 1.0, OLD_STACK), ("b", 1.0 + SLOWER_PCT / 100, STACK))
    )
    comparison = run_pairs.compare(
        base, candidate.record, {H100.id: make_significance().noise}, max_processes=5
    )
    path = folder / "compared.html"
    compared.write(base, candidate, comparison, path)
    return path


PAGES: Mapping[str, Callable[[Path], Path]] = {
    "green": green,
    "red": red,
    "full": full,
    "compared": two_runs,
}
"""Each kind of page, with what writes it into a folder."""


def _written(path: Path, sources: PageSources) -> Path:
    path.write_text(report_file.rendered(page_of(sources)), encoding="utf-8", errors="replace")
    return path


def _sources(record: RunRecord, **changes: object) -> PageSources:
    return PageSources(
        record=record,
        where="run",
        accepted={run.id: _accepted(run) for run in record.cases if run.processes},
        earlier=Nights(nights=tuple(_nights(record))),
        **changes,  # type: ignore[arg-type]  # of any field
    )


def _record(*runs: Run) -> RunRecord:
    return make_record(
        *runs,
        references=(),
        command=f"pytest -m h100 # {SYNTHETIC}",
        created_at="2026-11-20T07:17:00+00:00",
        environment=make_environment(gpu=GPU, packages=STACK),
    )


def _accepted(run: Run) -> Accepted:
    case = next(case for case in h100_cases() if case.id == run.id)
    values = {verdict.metric: (verdict.baseline or 0.0,) * 3 for verdict in run.verdicts}
    values["denoise_step_ms"] = (99.7, 100.0, 100.3)
    return make_accepted(
        make_entry(values, case=case, digest=run.digest),
        unit=GPU.uuid,
        gpu=GPU.name,
        driver=GPU.driver,
        power_limit_w=GPU.power_limit_w,
        packages=OLD_STACK,
        recorded_at="2026-10-12T07:17:00+00:00",
        reason=f"torch 2.15; {SYNTHETIC}",
    )


def _nights(record: RunRecord) -> Iterator[Night]:
    """One a night, oldest first; torch changes every tenth, and the last two are slower."""
    for number in range(NIGHTS):
        day = f"2026-{9 + number // 30:02}-{number % 30 + 1:02}"
        is_slow = number >= NIGHTS - 2
        packages = STACK | {"torch": f"2.15.0.dev2026{9 + number // 30:02}{number // 10 % 3 * 10 + 1:02}"}
        value = 100.0 + (SLOWER_PCT if is_slow else number * 7 % 11 / 40)
        yield Night(
            when=f"{day}T07:17:00+00:00",
            cases={
                (run.id, run.platform): PastRun(
                    digest=run.digest,
                    cards=frozenset({card_of(GPU.uuid)}),
                    packages=packages,
                    values={"denoise_step_ms": value, "latency_s": value / 24, "psnr_db": 38.2},
                    red=frozenset({"denoise_step_ms"} if is_slow else ()),
                )
                for run in record.cases
            },
        )


# Runs


def _process(share: float, stack: Mapping[str, str] = STACK, capture: tuple[Capture, ...] = ()) -> Process:
    steps = tuple((100.0 + (number * 7 % 11) / 10) * share for number in range(27))
    return make_process(
        environment=make_environment(gpu=GPU, packages=dict(stack)),
        build=make_build(
            {"distinct_prompt_embeddings": 4.0, "distinct_prompt_latents": 2.0},
            roofline_ms=61.0,
            seconds={"import": 9.1, "load": 21.4, "quantize": 3.3, "compile": 48.2, "generate": 29.9},
        ),
        samples=(make_sample({"denoise_step_ms": steps, "transformer_calls": (28.0,)}),) * 5,
        captures=capture,
    )


def _run(case: Case, statuses: Mapping[str, Status] | None = None, capture: tuple[Capture, ...] = ()) -> Run:
    """One whose verdicts have `statuses`; all others pass."""
    statuses = statuses or {}
    is_slow = Status.REGRESSED is statuses.get("denoise_step_ms")
    process = _process(1 + SLOWER_PCT / 100 * is_slow, capture=capture)
    return msgspec.structs.replace(
        make_run(case, H100, processes=(process,) * 3),
        status=next(iter(statuses.values()), Status.PASS),
        reason="",
        measured={"denoise_step_ms": 100.0 + SLOWER_PCT * is_slow, "encode_ms": 50.0, "psnr_db": 38.2},
        verdicts=tuple(_verdict(metric.name, metric.units, statuses) for metric in gated_metrics(case, H100)),
        looks=("3 processes: decided",),
    )


def _verdict(name: str, unit: str, statuses: Mapping[str, Status]) -> Verdict:
    status = statuses.get(name, Status.PASS)
    before, is_new = TYPICAL.get(unit, 0.0), status is Status.NO_BASELINE
    share = 1 + SLOWER_PCT / 100 * (status is Status.REGRESSED)
    return Verdict(
        metric=name,
        status=status,
        measured=before / share if unit == "dB" else before * share,
        baseline=None if is_new else before,
        change_pct=None if is_new or not before or unit == "dB" else 100 * (share - 1),
        ci_pct=(2.1, 4.7) if status is Status.REGRESSED and unit != "dB" else None,
        limit=None if is_new else before * (0.99 if unit == "dB" else 1.0075),
        reason=REASONS.get(status, "within the limit"),
    )


def _as_judged(run: Run, case: Case) -> Run:
    """With verdicts on the metrics of the case only; those on others become values that nothing judges."""
    gated = {metric.name for metric in gated_metrics(case, H100)}
    verdicts = (verdict for verdict in run.verdicts if verdict.metric in gated or not verdict.status.is_green)
    return msgspec.structs.replace(run, verdicts=tuple(verdicts))


def _crashed(case: Case) -> Run:
    message = "torch.AcceleratorError: CUDA error: an illegal memory access was encountered"
    failure = make_failure(
        kind=FailureKind.CRASH,
        phase=Phase.GENERATE,
        message=message,
        details="\n".join(f'  File "pipeline_flux.py", line {number}, in __call__' for number in range(12)),
    )
    return make_run(case, H100, status=Status.CRASH, failure=failure, reason=message, processes=())


def _measured(share: float, stack: Mapping[str, str]) -> RunRecord:
    """A record of `share` times the usual duration of a step."""
    runs = (
        make_run(
            case, H100, processes=(_process(share, stack),) * 3, measured={"denoise_step_ms": 100.0 * share}
        )
        for case in h100_cases()[:CASES]
    )
    return _record(*runs)


def _draw(folder: Path, name: str) -> tuple[Capture, ...]:
    """A picture, its reference and where they differ, in `folder`."""
    (folder / "captures").mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, 255, 512, dtype=np.uint8)
    picture = np.stack(
        [np.tile(ramp, (512, 1)), np.tile(ramp, (512, 1)).T, np.full((512, 512), 96, np.uint8)], -1
    )
    changed = picture.copy()
    changed[180:330, 200:400] //= 2
    for part, pixels in {
        "": changed,
        ".reference": picture,
        ".candidate": changed,
        ".heatmap": picture - changed,
    }.items():
        Image.fromarray(pixels).save(folder / "captures" / f"{name}{part}.png")
    return (Capture(array=f"captures/{name}.npy", sha256="", image=f"captures/{name}.png"),)


if __name__ == "__main__":
    for write in PAGES.values():
        print(write(Path(sys.argv[1])))
