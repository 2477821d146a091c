"""One case as it is stored: what a reviewer reads, the figures beside it, and the seal on both."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perf_tests.harness.baselines import case_file, files
from perf_tests.harness.baselines.entry import Baselines, Entry
from perf_tests.harness.baselines.instruction_sets import OfInstructions
from perf_tests.protocol.errors import BaselineError
from perf_tests.protocol.reports import LayerError
from perf_tests.tables.platforms import PLATFORM_BY_ID
from perf_tests.unit.builders import make_baselines, make_entry, make_layers, make_provenance

STORE = Path(__file__).parents[4] / "baselines"
CASE_FILES = [path for platform in PLATFORM_BY_ID for path in sorted(STORE.glob(f"{platform}/*/*.json"))]
MOST_CHANGED_LINES = 80
"""Of one case that is recorded again, in its file and in the tables."""
TABLE_LINES = 4 + 8
"""Of those, in baselines/README.md and noise.json."""
PATH = Path("baselines/cpu/flux-mini/a.json")


def one(entry: Entry, case: str = "a") -> Baselines:
    return make_baselines(cases={case: entry})


def dumps(entry: Entry) -> str:
    return case_file.dumps(one(entry), "a")[0]


def loads(text: str, figures: str) -> Baselines:
    return case_file.loads(text, PATH, {case_file.digest_of(figures): figures}.__getitem__)


def edited(edit: Callable[[dict[str, Any]], object]) -> tuple[str, str]:
    text, figures = case_file.dumps(one(make_entry()), "a")
    content = json.loads(text)
    edit(content)
    return json.dumps(content), figures


def test_a_case_file_has_a_line_for_each_metric_and_keys_are_sorted() -> None:
    entry = make_entry(
        {"ssim": [0.9, 0.91], "decode_ms": [12.5, 12.25]},
        digest="d" * 4,
        layers={"transformer.proj": LayerError(sqnr_db=40.25, gain=1.0, worst_row_sqnr_db=None)},
        seconds={"load": 12.0, "generate": 16.1},
        samples=5,
    )
    text, figures = case_file.dumps(one(entry), "a")
    assert (
        figures
        == """{
  "layers": {
    "transformer.proj": [40.25, 1.0, null, null, null, null, null]
  },
  "samples": 5,
  "seconds": {
    "generate": 16.1,
    "load": 12.0
  }
}
"""
    )
    assert text.startswith(
        f"""{{
  "case": "a",
  "digest": "dddd",
  "figures": "{case_file.digest_of(figures)}",
  "format_version": 3,
  "metrics": {{
    "decode_ms": [12.5, 12.25],
    "ssim": [0.9, 0.91]
  }},
  "pipeline": "flux-mini",
  "platform": "cpu",
  "processes": 2,
  "provenance": {{
"""
    )
    assert text.endswith("}\n")


def test_a_value_that_all_processes_share_is_one_number() -> None:
    entry = make_entry(
        {"weight_bytes": [3.0] * 3, "decode_ms": [1.0, 1.0, 2.0], "compile_cold_s": [9.0]}, processes=3
    )
    text, figures = case_file.dumps(one(entry), "a")
    assert json.loads(text)["metrics"] == {
        "weight_bytes": 3.0,
        "decode_ms": [1.0, 1.0, 2.0],
        "compile_cold_s": [9.0],
    }
    assert loads(text, figures).cases["a"].metrics == entry.metrics


def test_what_is_read_is_what_was_written() -> None:
    entry = make_entry(
        samples=5,
        seconds={"load": 1.5},
        first={"model_memory_mib": (1.0, 2.0)},
        first_reason="a new text encoder",
        reference_processes=2,
        other_instructions={
            "AVX512": OfInstructions(provenance="p2", processes=2, metrics={"decode_ms": (1.0, 2.0)})
        },
    )
    other = make_provenance(settings={"cpu_capability": "AVX512"})
    own = make_provenance(settings={"cpu_capability": "AVX2"})
    text, figures = case_file.dumps(
        msgspec.structs.replace(one(entry), provenance={"p1": own, "p2": other}), "a"
    )
    read = loads(text, figures)
    back = read.cases["a"]
    # The keys of provenances are not stored.
    others = {"AVX512": msgspec.structs.replace(back.other_instructions["AVX512"], provenance="p2")}
    assert msgspec.structs.replace(back, provenance="p1", other_instructions=others) == entry
    assert read.provenance[back.provenance] == own
    assert read.provenance[back.other_instructions["AVX512"].provenance] == other


def test_whole_numbers_are_written_as_they_will_be_read() -> None:
    entry = make_entry({"weight_bytes": [3]}, first={"weight_bytes": (5,)})
    text, figures = case_file.dumps(one(entry), "a")
    assert case_file.dumps(loads(text, figures), "a") == (text, figures)


def test_only_the_lines_that_differ_change() -> None:
    before = dumps(make_entry({"ssim": [0.1 + 0.2], "decode_ms": [1.0]}))
    after = dumps(make_entry({"ssim": [0.1 + 0.2], "decode_ms": [2.0]}))
    changed = [
        (old, new) for old, new in zip(before.splitlines(), after.splitlines(), strict=True) if old != new
    ]
    metric, seal = changed
    assert metric == ('    "decode_ms": 1.0,', '    "decode_ms": 2.0,')
    assert seal[0].startswith('  "seal": ')


@pytest.mark.parametrize("path", CASE_FILES, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_a_committed_case_is_written_back_byte_for_byte_and_can_be_read_by_a_person(path: Path) -> None:
    text, figures = case_file.dumps(files.read_case(STORE, path), path.stem)
    assert text == path.read_text()
    assert figures == files.figures_path(path.parent, case_file.digest_of(figures)).read_text()
    assert len(text) < 8_000


@pytest.mark.parametrize("processes", [1, 3])
def test_a_committed_case_that_is_recorded_again_is_a_short_diff(processes: int) -> None:
    """In the row with the most metrics, all that is measured changes: what is counted does not."""
    baselines = max(
        (files.read_case(STORE, path) for path in CASE_FILES if path.parents[1].name == "h100"),
        key=lambda each: max(len(entry.metrics) for entry in each.cases.values()),
    )
    ((case, entry),) = baselines.cases.items()
    measured = {
        name: tuple(1.01 * values[0] + 0.001 * number for number in range(processes))
        if len(set(values)) > 1 or len(values) != entry.processes
        else (values[0],) * processes
        for name, values in entry.metrics.items()
    }
    provenance = msgspec.structs.replace(
        baselines.provenance[entry.provenance], recorded_at="later", reason="again", run_sha256="0", unit="B"
    )
    again = msgspec.structs.replace(
        entry, metrics=measured, processes=processes, reference_processes=processes, layers=make_layers()
    )
    after = msgspec.structs.replace(baselines, cases={case: again}, provenance={entry.provenance: provenance})
    old, new = (case_file.dumps(each, case)[0].splitlines() for each in (baselines, after))
    changed = [line for line in difflib.unified_diff(old, new, lineterm="", n=0) if line[:1] in "+-"]
    assert len(changed) + TABLE_LINES < MOST_CHANGED_LINES


# What is refused


@pytest.mark.parametrize(
    ("text", "twice"),
    [
        pytest.param('"processes": 1,', '"processes": 1, "processes": 2,', id="entry"),
        pytest.param('"ssim": 1.0', '"ssim": 1.0, "ssim": 0.1', id="metric"),
        pytest.param('"platform": "cpu",', '"platform": "cpu", "platform": "cpu",', id="file"),
    ],
)
def test_a_key_that_stands_twice_is_refused(text: str, twice: str) -> None:
    written, figures = case_file.dumps(one(make_entry({"ssim": [1.0]})), "a")
    name = text.split('"')[1]
    assert text in written
    with pytest.raises(BaselineError, match=f"names the key '{name}' twice"):
        loads(written.replace(text, twice), figures)


@pytest.mark.parametrize("length", [0, 1, 100, -3])
def test_a_truncated_file_is_refused_by_name(length: int) -> None:
    text, figures = case_file.dumps(one(make_entry()), "a")
    with pytest.raises(BaselineError, match=r"baselines/cpu/flux-mini/a\.json is not JSON"):
        loads(text[:length], figures)


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        pytest.param(
            lambda c: c.update(format_version=99),
            "has format 99, and this checkout reads only 3: use the checkout that wrote it, or record",
            id="later-format",
        ),
        pytest.param(lambda c: c.pop("format_version"), "does not hold baselines", id="no-format"),
        pytest.param(lambda c: c.update(later=1), "does not hold baselines.*later", id="unknown-field"),
        pytest.param(lambda c: c.update(platform="h100"), "is for the platform 'h100', not", id="platform"),
        pytest.param(
            lambda c: c.update(pipeline="sd"), "is for the pipeline 'sd', not 'flux-mini'", id="pipeline"
        ),
        pytest.param(lambda c: c.update(case="b"), "is for the case 'b', not 'a'", id="case"),
        pytest.param(lambda c: c["metrics"].update(ssim=0.5), "was edited: its seal is ", id="number"),
        pytest.param(lambda c: c.update(digest="e" * 64), "was edited: its seal is ", id="digest"),
        pytest.param(lambda c: c["provenance"].update(unit="x"), "was edited: its seal is ", id="unit"),
        pytest.param(lambda c: c.pop("seal"), "was edited: its seal is missing, and that of", id="no-seal"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused(
    edit: Callable[[dict[str, Any]], object], problem: str
) -> None:
    with pytest.raises(BaselineError, match=problem):
        loads(*edited(edit))


def test_figures_that_are_not_those_of_their_digest_are_refused() -> None:
    text, figures = case_file.dumps(one(make_entry(samples=5)), "a")
    with pytest.raises(BaselineError, match=r"the figures [0-9a-f]{16} of .*a\.json were edited: restore"):
        case_file.loads(text, PATH, lambda _digest: figures.replace("5", "6"))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param({"metrics": {"ssim": ()}}, "ssim of a has 0 values from 1 processes", id="no-values"),
        pytest.param({"metrics": {"latency_s": (1.0, 2.0)}}, "has 2 values from 1 processes", id="too-many"),
        pytest.param({"metrics": {"ssim": (0.9,) * 5}}, "ssim of a has 5 values from", id="too-many-pairs"),
        pytest.param({"metrics": {}}, "a has no metrics", id="no-metrics"),
        pytest.param({"processes": 0}, "a has 0 processes", id="no-processes"),
        pytest.param({"samples": 0}, "a has 0 samples", id="no-samples"),
        pytest.param({"reference_processes": 0}, "a has 0 processes of its reference", id="no-reference"),
        pytest.param({"first": {"ssim": (0.0,)}}, "relative change needs positive values", id="first"),
        pytest.param({"first": {"ssim": ()}}, "relative change needs positive values", id="empty-first"),
        pytest.param(
            {"metrics": {"decode_ms": (0.0,)}}, "relative change needs positive values", id="no-time"
        ),
        pytest.param(
            {"metrics": {"weight_bytes": (5.0,)}, "processes": 99},
            "weight_bytes of a has 1 values from 99 processes",
            id="too-few",
        ),
        pytest.param(
            {"metrics": {"psnr_db": (-1e9,)}},
            r"psnr_db of a holds -1e\+09, which nothing measured can be",
            id="absurd-fidelity",
        ),
        pytest.param(
            {"metrics": {"latency_s": (1e308,)}}, "latency_s of a holds 1e\\+308, which", id="absurd-time"
        ),
        pytest.param(
            {"layers": {"transformer.proj": LayerError(sqnr_db=-1e9, gain=1.0)}},
            r"the layer transformer.proj of a holds -1e\+09 dB, which nothing",
            id="absurd-layer",
        ),
        pytest.param({"seconds": {"load": -0.1}}, "a spent -0.1 seconds on load", id="seconds"),
    ],
)
def test_a_broken_entry_is_refused_when_read_and_when_written(changes: dict[str, Any], problem: str) -> None:
    broken = one(msgspec.structs.replace(make_entry({"ssim": [1.0]}), **changes))
    with pytest.raises(BaselineError, match=f"cannot be written: .*{problem}"):
        files.contents(Path("nowhere"), broken)
    with pytest.raises(BaselineError, match=f"is broken: .*{problem}"):
        loads(*case_file.dumps(broken, "a"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_never_written(value: float) -> None:
    with pytest.raises(BaselineError, match="holds a number that is not finite"):
        files.contents(Path("nowhere"), one(make_entry({"ssim": [value]})))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "null"])
def test_a_number_that_is_not_finite_is_never_read(number: str) -> None:
    text, figures = case_file.dumps(one(make_entry({"ssim": [1.0]})), "a")
    with pytest.raises(BaselineError, match=r"a\.json"):
        loads(text.replace('"ssim": 1.0', f'"ssim": [{number}]'), figures)


def test_a_layer_that_is_not_finite_is_never_written() -> None:
    layers = {"transformer.proj": LayerError(sqnr_db=float("nan"), gain=1.0)}
    with pytest.raises(BaselineError, match=r"the layer transformer\.proj of a holds a number that"):
        files.contents(Path("nowhere"), one(make_entry(layers=layers)))
