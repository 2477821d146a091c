"""Files of whole pipelines, which `rewrite` divides into one file a case."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from perf_tests.harness.baselines import files, pipeline_file
from perf_tests.harness.baselines.entry import Baselines, Entry, Provenance, key_of
from perf_tests.harness.rebaseline import store
from perf_tests.protocol.errors import BaselineError
from perf_tests.unit.builders import (
    MINI_BF16,
    MINI_INT8WO,
    make_baselines,
    make_entry,
    make_provenance,
    store_baselines,
)

BF16, INT8WO = MINI_BF16.id, MINI_INT8WO.id
PATH = Path("baselines/cpu/flux-mini.json")


def recorded(at: str) -> Provenance:
    return make_provenance(recorded_at=at)


def whole(*entries: tuple[str, Entry, Provenance]) -> Baselines:
    """Baselines of flux-mini as such a file holds them, each entry with where it is from."""
    return make_baselines(
        cases={case: msgspec.structs.replace(each, provenance=key_of(why)) for case, each, why in entries},
        provenance={key_of(why): why for _, _, why in entries},
    )


def as_text(baselines: Baselines, version: int = 2) -> str:
    return msgspec.json.encode({"format_version": version, **msgspec.to_builtins(baselines)}).decode()


def write_whole(root: Path, baselines: Baselines) -> Path:
    path = root / "cpu" / "flux-mini.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(as_text(baselines))
    return path


def test_a_rewrite_divides_a_file_and_loses_no_number(tmp_path: Path) -> None:
    entry = make_entry(
        samples=5, seconds={"load": 1.5}, first={"model_memory_mib": (1.0,)}, reference_processes=3
    )
    before = whole((INT8WO, entry, recorded("2026-11-01")), (BF16, make_entry(), recorded("2026-11-02")))
    path = write_whole(tmp_path, before)
    assert store.problems(tmp_path) == (
        f"{path} holds a whole pipeline, and there is one file a case: fix it with "
        "`python tools/rebaseline.py rewrite`",
    )

    store.rewrite(tmp_path)

    after = files.load(tmp_path, "cpu")["flux-mini"]
    assert not path.exists()
    assert after.provenance == before.provenance
    assert after.cases[INT8WO] == before.cases[INT8WO]
    assert after.cases[BF16].metrics == before.cases[BF16].metrics
    assert store.rewrite(tmp_path) == ()


@pytest.mark.parametrize(("at", "weight_bytes"), [("2026-11-03", 7.0), ("2026-11-01", 1.0)])
def test_of_a_case_in_both_layouts_the_later_recording_stands(
    tmp_path: Path, at: str, weight_bytes: float
) -> None:
    store_baselines(tmp_path, whole((INT8WO, make_entry(), recorded("2026-11-02"))))
    other = make_entry({"weight_bytes": [7.0]})
    write_whole(tmp_path, whole((INT8WO, other, recorded(at)), (BF16, make_entry(), recorded(at))))

    store.rewrite(tmp_path)

    cases = files.load(tmp_path, "cpu")["flux-mini"].cases
    assert cases[INT8WO].metrics["weight_bytes"] == (weight_bytes,)
    assert cases.keys() == {BF16, INT8WO}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("{", r"flux-mini\.json is not JSON", id="truncated"),
        pytest.param(
            as_text(make_baselines(), 1), "has format 1, and this checkout reads only 2", id="first"
        ),
        pytest.param(as_text(make_baselines(platform="h100")), "is for flux-mini on h100", id="platform"),
        pytest.param(
            as_text(make_baselines(cases={"a": make_entry(processes=0)})), "a has 0 processes", id="broken"
        ),
        pytest.param('{"format_version": 2}', "does not hold baselines", id="empty"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused(text: str, problem: str) -> None:
    with pytest.raises(BaselineError, match=problem):
        pipeline_file.loads(text, PATH)
