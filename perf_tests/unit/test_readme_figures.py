"""The figures of GPUs in README.md are those on record, ours and the published ones in brackets."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import pytest

from perf_tests.harness.baselines import files
from perf_tests.harness.compare import published

ROOT = Path(__file__).parents[2]
TEXT = " ".join(
    (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## H100\n")[2].split("\n## ")[0].split()
)
LATENCY = "latency_s"
WORDS = {
    "{ours} s in bf16 ({theirs})": ("h100", "bf16-eager", "bf16-eager"),
    "{ours} s compiled ({theirs})": ("h100", "bf16-regional", "bf16-regional"),
    "{ours} s quantized to `fp8dqrow` and compiled ({theirs})": (
        "h100",
        "fp8dqrow-regional",
        "fp8dqrow-regional",
    ),
    # Published with kernels that are chosen by timing them.
    "{ours} s as `int8dq` ({theirs})": ("h100", "int8dq-regional", "int8dq-regional-tuned"),
    "{ours} s as `int8wo` ({theirs})": ("h100", "int8wo-regional-noonednn", "int8wo-regional-noonednn"),
    "On an H200, FLUX.1-dev takes {ours} s as `int8dq` with tuned kernels ({theirs})": (
        "h200",
        "int8dq-regional-tuned",
        "int8dq-regional-tuned",
    ),
}
"""How the README words a latency of FLUX.1-dev -> the platform and the row with our number, and the row with
the one published for an H100."""


@pytest.mark.parametrize("words", WORDS)
def test_latency_of_the_readme_is_on_record(words: str) -> None:
    platform, *names = WORDS[words]
    ours, theirs = (f"flux1-dev-b1-{name}" for name in names)
    accepted = files.load(ROOT / "baselines", platform)["flux1-dev"].cases[ours]
    latency_s = statistics.median(accepted.metrics[LATENCY])
    published_s = published.latencies_s(ROOT / "baselines" / "published")[theirs]["H100"]

    assert words.format(ours=f"{latency_s:.2f}", theirs=f"{published_s:.2f}") in TEXT


def test_each_latency_of_the_readme_is_compared_with_the_record() -> None:
    assert len(re.findall(r"\d\.\d+ s\b", TEXT)) == len(WORDS)
