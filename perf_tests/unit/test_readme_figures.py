"""The figures of the H100 in README.md are those on record, ours and the published ones in brackets."""

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
    "{ours} s in bf16 ({theirs})": ("bf16-eager", "bf16-eager"),
    "{ours} s compiled ({theirs})": ("bf16-regional", "bf16-regional"),
    "{ours} s quantized to `fp8dqrow` and compiled ({theirs})": ("fp8dqrow-regional", "fp8dqrow-regional"),
    # Published with kernels that are chosen by timing them.
    "{ours} s as `int8dq` ({theirs})": ("int8dq-regional", "int8dq-regional-tuned"),
    "{ours} s as `int8wo` ({theirs})": ("int8wo-regional-noonednn", "int8wo-regional-noonednn"),
}
"""How the README words a latency of FLUX.1-dev -> the rows with our number and the published one."""


@pytest.mark.parametrize("words", WORDS)
def test_latency_of_the_readme_is_on_record(words: str) -> None:
    ours, theirs = (f"flux1-dev-b1-{name}" for name in WORDS[words])
    accepted = files.load(ROOT / "baselines", "h100")["flux1-dev"].cases[ours]
    latency_s = statistics.median(accepted.metrics[LATENCY])
    published_s = published.latencies_s(ROOT / "baselines" / "published")[theirs]["H100"]

    assert words.format(ours=f"{latency_s:.2f}", theirs=f"{published_s:.2f}") in TEXT


def test_each_latency_of_the_readme_is_compared_with_the_record() -> None:
    assert len(re.findall(r"\d\.\d+ s\b", TEXT)) == len(WORDS)
