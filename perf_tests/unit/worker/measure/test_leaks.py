"""A real pipeline leaks nothing from image to image, and one that keeps something is seen to."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from perf_tests.harness.runs.record import Status
from perf_tests.harness.stats.observations import observe
from perf_tests.harness.verdicts.judge import judge_metric
from perf_tests.protocol import messages
from perf_tests.tables.cases import Build, Case
from perf_tests.tables.metrics.rows import METRIC_BY_NAME
from perf_tests.tables.pipelines.flux import FLUX_MINI
from perf_tests.tables.platforms import CPU, Device
from perf_tests.tables.recipes import Recipe
from perf_tests.tables.schemes.rows import BF16
from perf_tests.unit.builders import CPU_MODEL, make_process, make_run, make_significance
from perf_tests.worker.measure.memory import MIB, live_mib
from perf_tests.worker.session import WorkerSession

IMAGES = 4
CASE = Case(build=Build(pipeline=FLUX_MINI, recipe=Recipe(scheme=BF16)), workload=FLUX_MINI.workload)
METRIC = METRIC_BY_NAME["leaked_mib_per_image"]


@pytest.fixture(scope="module")
def session() -> WorkerSession:
    """A worker that has warmed up, not to be changed for good."""
    opened = WorkerSession(None)
    opened.load(messages.Load(case=CASE, device=Device.CPU))
    opened.quantize(messages.Quantize())
    opened.compile(messages.Compile())
    opened.generate(messages.Generate(warmup=True))
    return opened


@pytest.mark.parametrize(
    ("kept_mib", "mib", "status"),
    [
        pytest.param((0, 0, 0, 0), 0.0, Status.PASS, id="unchanged"),
        pytest.param((16, 16, 16, 16), 16.0, Status.REGRESSED, id="16-mib-an-image"),
        pytest.param((0, 0, 6, 0), 3.0, Status.REGRESSED, id="every-other-image"),
        pytest.param((64, 0, 0, 0), 0.0, Status.PASS, id="first-image-only"),
    ],
)
def test_what_an_image_leaves_behind_is_found(
    session: WorkerSession,
    monkeypatch: pytest.MonkeyPatch,
    kept_mib: tuple[int, ...],
    mib: float,
    status: Status,
) -> None:
    vae, kept, amounts = session._loaded.pipeline.vae, [], iter(kept_mib)
    decode = vae.decode

    def keeping(*arguments: Any, **keywords: Any) -> Any:
        kept.append(torch.zeros(next(amounts) * MIB, dtype=torch.uint8))
        return decode(*arguments, **keywords)

    monkeypatch.setattr(vae, "decode", keeping)
    samples = tuple(session.generate(messages.Generate()).sample for _ in range(IMAGES))
    run = make_run(CASE, processes=(make_process(samples=samples),))

    (found_mib,) = observe(METRIC, run, None).values
    verdict = judge_metric(
        METRIC,
        case=CASE,
        platform=CPU,
        run=run,
        reference=None,
        accepted=None,
        unit=CPU_MODEL,
        significance=make_significance(),
    )

    assert found_mib == pytest.approx(mib, abs=0.5)
    assert verdict.status is status


def test_live_bytes_are_those_of_tensors_that_are_held() -> None:
    device = torch.device("cpu")
    before = live_mib(device)
    tensor = torch.zeros(8 * MIB, dtype=torch.uint8)
    held = live_mib(device)
    del tensor
    after = live_mib(device)
    for name in ("live_allocated_mib", "live_host_mib"):
        assert held[name][0] - before[name][0] == pytest.approx(8.0, abs=0.1)
        assert after[name][0] - before[name][0] == pytest.approx(0.0, abs=0.1)
