from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perf_tests.harness.baselines import files
from perf_tests.harness.baselines.files import Accepted
from perf_tests.protocol.errors import BaselineError
from perf_tests.protocol.reports import LayerError
from perf_tests.tables.platforms import PLATFORM_BY_ID, Noise
from perf_tests.unit.builders import (
    MINI_BF16,
    MINI_INT8WO,
    make_baselines,
    make_entry,
    make_provenance,
)

PATH = Path("baselines/cpu/flux-mini.json")
STORE = Path(__file__).parents[4] / "baselines"


def _edited(edit: Callable[[dict[str, Any]], object]) -> str:
    content = json.loads(files.dumps(make_baselines()))
    edit(content)
    return json.dumps(content)


def test_baselines_are_read_as_they_were_written(tmp_path: Path) -> None:
    files.write(files.path_of(tmp_path, "cpu", "flux-mini"), make_baselines())
    assert files.load(tmp_path, "cpu") == {"flux-mini": make_baselines()}


def test_a_missing_folder_is_an_empty_store(tmp_path: Path) -> None:
    assert files.load(tmp_path, "h100") == {}


def test_an_entry_is_found_with_its_provenance() -> None:
    found = files.find({"flux-mini": make_baselines()}, MINI_INT8WO)
    assert found == Accepted(entry=make_entry(), provenance=make_provenance())


def test_a_case_without_an_entry_has_no_baseline() -> None:
    assert files.find({"flux-mini": make_baselines()}, MINI_BF16) is None
    assert files.find({}, MINI_INT8WO) is None


def test_metrics_have_one_line_per_case_and_keys_are_sorted() -> None:
    entry = make_entry(
        {"ssim": [0.9, 0.91], "decode_ms": [12.5, 12.25]},
        digest="d" * 4,
        layers={"transformer.proj": LayerError(sqnr_db=40.25, gain=1.0, worst_row_sqnr_db=None)},
    )
    text = files.dumps(make_baselines(cases={"case-a": entry}))
    assert text.startswith(
        """{
  "cases": {
    "case-a": {
      "digest": "dddd",
      "layers": {
        "transformer.proj": [40.25, 1.0, null, null, null, null, null]
      },
      "metrics": {
        "decode_ms": [12.5, 12.25],
        "ssim": [0.9, 0.91]
      },
      "processes": 2,
      "provenance": "p1"
    }
  },
  "format_version": 2,
"""
    )
    assert text.endswith("}\n")


def test_the_order_of_cases_and_metrics_does_not_change_the_text() -> None:
    entries = {"a": make_entry({"ssim": [1.0], "psnr_db": [2.0]}), "b": make_entry({"ssim": [1.0]})}
    reversed_order = {"b": entries["b"], "a": make_entry({"psnr_db": [2.0], "ssim": [1.0]})}
    assert files.dumps(make_baselines(cases=entries)) == files.dumps(make_baselines(cases=reversed_order))


def test_untouched_rows_stay_byte_identical() -> None:
    before = make_baselines(cases={"a": make_entry({"ssim": [0.1 + 0.2]}), "b": make_entry({"ssim": [1.0]})})
    after = msgspec.structs.replace(before, cases={**before.cases, "b": make_entry({"ssim": [2.0]})})
    changed = [
        (old, new)
        for old, new in zip(files.dumps(before).splitlines(), files.dumps(after).splitlines(), strict=True)
        if old != new
    ]
    assert changed == [('        "ssim": [1.0]', '        "ssim": [2.0]')]


def test_the_seconds_of_each_phase_are_one_line() -> None:
    entry = make_entry({"ssim": [0.9]}, digest="d" * 4, seconds={"load": 12.0, "generate": 16.1})
    assert """      "provenance": "p1",
      "seconds": {
        "generate": 16.1,
        "load": 12.0
      }
    }
""" in files.dumps(make_baselines(cases={"case-a": entry}))


def test_an_entry_without_seconds_is_written_without_them() -> None:
    text = files.dumps(make_baselines())
    assert "seconds" not in text
    assert files.loads(text, PATH).cases[MINI_INT8WO.id].seconds == {}


@pytest.mark.parametrize(
    "path",
    [
        path
        for platform in PLATFORM_BY_ID
        for path in sorted(STORE.glob(f"{platform}/*.json"))
        if path.name != files.NOISE
    ],
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_a_committed_file_is_read_and_written_back_byte_for_byte(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert files.dumps(files.loads(text, path)) == text


@pytest.mark.parametrize(
    ("text", "twice"),
    [
        pytest.param('"processes": 1,', '"processes": 1, "processes": 2,', id="entry"),
        pytest.param('"ssim": [1.0]', '"ssim": [1.0], "ssim": [0.1]', id="metric"),
        pytest.param('"platform": "cpu",', '"platform": "cpu", "platform": "cpu",', id="file"),
    ],
)
def test_a_key_that_stands_twice_is_refused(text: str, twice: str) -> None:
    written = files.dumps(make_baselines(cases={"a": make_entry({"ssim": [1.0]})}))
    name = text.split('"')[1]
    with pytest.raises(BaselineError, match=f"names the key '{name}' twice"):
        files.loads(written.replace(text, twice), PATH)


def test_text_does_not_change_when_it_is_read_and_written_again() -> None:
    # Whole numbers given as int are written as float, which is how they are read.
    text = files.dumps(
        make_baselines(cases={"a": make_entry({"weight_bytes": [3]}, first={"weight_bytes": (5,)})})
    )
    assert files.dumps(files.loads(text, PATH)) == text


@pytest.mark.parametrize("length", [0, 1, 100, -3])
def test_a_truncated_file_is_refused_by_name(length: int) -> None:
    with pytest.raises(BaselineError, match=r"baselines/cpu/flux-mini\.json is not JSON"):
        files.loads(files.dumps(make_baselines())[:length], PATH)


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        pytest.param(
            lambda c: c.update(format_version=99),
            "has format 99, and this checkout reads only 2: use the checkout that wrote it, or record",
            id="later-format",
        ),
        pytest.param(
            lambda c: c.update(format_version=1), "has format 1, and this checkout reads", id="first-format"
        ),
        pytest.param(lambda c: c.pop("format_version"), "does not hold baselines", id="no-format"),
        pytest.param(lambda c: c.update(later=1), "does not hold baselines.*later", id="unknown-field"),
        pytest.param(lambda c: c.update(platform="h100"), "is for the platform 'h100', not", id="platform"),
        pytest.param(
            lambda c: c.update(pipeline="sd"), "is for the pipeline 'sd', not 'flux-mini'", id="pipeline"
        ),
        pytest.param(
            lambda c: c.update(provenance={}),
            "refers to the provenance 'p1', which does not exist",
            id="provenance",
        ),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused(
    edit: Callable[[dict[str, Any]], object], problem: str
) -> None:
    with pytest.raises(BaselineError, match=problem):
        files.loads(_edited(edit), PATH)


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
    entry = msgspec.structs.replace(make_entry({"ssim": [1.0]}), **changes)
    broken = make_baselines(cases={"a": entry})
    with pytest.raises(BaselineError, match=problem):
        files.dumps(broken)
    with pytest.raises(BaselineError, match=problem):
        files.loads(msgspec.json.encode(broken).decode(), PATH)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_never_written(value: float) -> None:
    with pytest.raises(BaselineError, match="holds a number that is not finite"):
        files.dumps(make_baselines(cases={"a": make_entry({"ssim": [value]})}))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "null"])
def test_a_number_that_is_not_finite_is_never_read(number: str) -> None:
    text = files.dumps(make_baselines(cases={"a": make_entry({"ssim": [1.0]})}))
    with pytest.raises(BaselineError, match=r"flux-mini\.json"):
        files.loads(text.replace('"ssim": [1.0]', f'"ssim": [{number}]'), PATH)


def test_a_file_that_is_not_text_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "cpu" / "flux-mini.json"
    path.parent.mkdir()
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BaselineError, match=r"flux-mini\.json cannot be read"):
        files.load(tmp_path, "cpu")


def test_writing_leaves_no_other_file_behind(tmp_path: Path) -> None:
    path = files.path_of(tmp_path, "cpu", "flux-mini")
    files.write(path, make_baselines())
    assert list(tmp_path.rglob("*.*")) == [path]


def test_a_write_that_fails_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files.path_of(tmp_path, "cpu", "flux-mini")
    files.write(path, make_baselines())
    before = path.read_bytes()

    def refuse(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(BaselineError, match=r"cannot be written.*No space left on device"):
        files.write(path, make_baselines(cases={}))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_an_error_by_name(tmp_path: Path) -> None:
    (tmp_path / "cpu").write_text("in the way")
    with pytest.raises(BaselineError, match=r"cpu/flux-mini\.json cannot be written"):
        files.write(files.path_of(tmp_path, "cpu", "flux-mini"), make_baselines())


def test_a_layer_that_is_not_finite_is_never_written() -> None:
    layers = {"transformer.proj": LayerError(sqnr_db=float("nan"), gain=1.0)}
    with pytest.raises(BaselineError, match=r"the layer transformer\.proj of case-a holds a number that"):
        files.dumps(make_baselines(cases={"case-a": make_entry(layers=layers)}))


# Noise


def test_noise_is_not_taken_for_a_pipeline(tmp_path: Path) -> None:
    files.write(files.path_of(tmp_path, "h100", "flux-mini"), make_baselines(platform="h100"))
    files.write_noise(files.noise_path(tmp_path, "h100"), {"decode_ms": Noise(sd_pct=0.9, dof=20)})
    assert list(files.load(tmp_path, "h100")) == ["flux-mini"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("{", "does not hold noise", id="truncated"),
        pytest.param('{"decode_ms": {"sd_pct": 1}}', "does not hold noise", id="no-degrees"),
        pytest.param('{"decode_ms": {"sd_pct": 0, "dof": 9}}', "decode_ms has a noise of 0.0 %", id="none"),
        pytest.param('{"decode_ms": {"sd_pct": 1, "dof": 3}}', "with 3 degrees of freedom", id="too-few"),
        *(
            pytest.param(
                f'{{"decode_ms": {{"sd_pct": {sd_pct}, "dof": 9}}}}', "has a noise of", id=f"absurd-{sd_pct}"
            )
            for sd_pct in ("50", "1000", "1e308")
        ),
        pytest.param(
            '{"decode_ms": {"sd_pct": 1, "dof": 9}, "decode_ms": {"sd_pct": 2, "dof": 9}}',
            "names the key 'decode_ms' twice",
            id="twice",
        ),
    ],
)
def test_noise_that_cannot_be_trusted_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = files.noise_path(tmp_path, "h100")
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(BaselineError, match=problem):
        files.read_noise(path)


def test_an_entry_of_fewer_than_three_processes_is_provisional() -> None:
    assert make_entry({"ssim": [1.0, 1.0]}).provisional
    assert not make_entry({"ssim": [1.0, 1.0, 1.0]}).provisional


@pytest.mark.parametrize("read", [files.read, files.read_noise])
def test_a_pipe_in_place_of_a_file_is_one_sentence(tmp_path: Path, read: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "flux-mini.json")
    with pytest.raises(BaselineError, match=r"cannot be read: .*it is a pipe or a device, not a file"):
        read(tmp_path / "flux-mini.json")
