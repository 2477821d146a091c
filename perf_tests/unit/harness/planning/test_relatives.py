"""planning/relatives.py: a case and records in, the nearest record out."""

from __future__ import annotations

from collections.abc import Sequence

from perf_tests.harness.planning.relatives import KnownCosts, RecordedCase, recorded_cases
from perf_tests.tables.cases import Case
from perf_tests.tables.pipelines.cogvideox import COGVIDEOX_5B
from perf_tests.tables.recipes import LEAF_OFFLOAD, CompileMode, Loader, QuantizedOn, Recipe
from perf_tests.tables.schemes.rows import BF16, FP8DQ, FP8DQROW, INT8DQ
from perf_tests.unit.builders import make_baselines, make_case, make_entry
from perf_tests.unit.harness.planning.records import case_of, record_of

REGIONAL = CompileMode.REGIONAL


def _nearest(case: Case, *records: RecordedCase, published: Sequence[Case] = ()) -> str:
    """The id of the nearest; all of `published` take 1 s on one GPU."""
    known = KnownCosts(records=records, published_s={each.id: {"H100": 1.0} for each in published})
    return known.nearest_first(case)[0].case.id


# What is near


def test_the_same_recipe_at_another_workload_is_nearest() -> None:
    records = (record_of(case_of(FP8DQ, batch=8)), record_of(case_of(INT8DQ)))
    assert (
        _nearest(case_of(FP8DQ), *records, published=[case_of(FP8DQ), case_of(INT8DQ)]) == records[0].case.id
    )


def test_a_published_ratio_comes_before_the_same_mode() -> None:
    records = (record_of(case_of(FP8DQ)), record_of(case_of(BF16, REGIONAL)))
    assert _nearest(case_of(), *records) == records[0].case.id
    assert _nearest(case_of(), *records, published=[case_of(), case_of(BF16, REGIONAL)]) == records[1].case.id


def test_the_compile_mode_comes_before_the_scheme() -> None:
    records = (record_of(case_of(FP8DQ)), record_of(case_of(INT8DQ, REGIONAL)))
    assert _nearest(case_of(FP8DQ, REGIONAL), *records) == records[1].case.id


def test_where_weights_wait_comes_before_the_scheme() -> None:
    resident, moved = record_of(case_of()), record_of(case_of(FP8DQ, offload=LEAF_OFFLOAD), step_ms=900.0)
    assert _nearest(case_of(FP8DQ), resident, moved) == resident.case.id
    assert _nearest(case_of(offload=LEAF_OFFLOAD), resident, moved) == moved.case.id


def test_where_weights_are_quantized_comes_before_the_most_expensive() -> None:
    host = case_of(INT8DQ).with_recipe(Recipe(scheme=INT8DQ, quantized_on=QuantizedOn.HOST))
    slow, fast = record_of(host, step_ms=900.0), record_of(case_of(INT8DQ))
    loaded = host.with_recipe(Recipe(scheme=INT8DQ, loader=Loader.TORCH_SAVE))

    assert _nearest(loaded, slow, fast) == fast.case.id


def test_the_same_scheme_comes_before_no_scheme_and_that_before_another() -> None:
    own, none = record_of(case_of(FP8DQ, fused=True)), record_of(case_of())
    dearer = record_of(case_of(INT8DQ), step_ms=300.0)
    assert _nearest(case_of(FP8DQ), dearer, none, own) == own.case.id
    assert _nearest(case_of(FP8DQ), dearer, none) == none.case.id


def test_the_nearest_size_comes_first_and_among_equals_the_most_expensive() -> None:
    small, large = case_of(batch=2), case_of(batch=16)
    assert _nearest(case_of(batch=12), record_of(small), record_of(large)) == large.id
    slow, fast = record_of(case_of(FP8DQ), step_ms=300.0), record_of(case_of(INT8DQ), step_ms=100.0)
    assert _nearest(case_of(FP8DQROW), slow, fast) == _nearest(case_of(FP8DQROW), fast, slow) == slow.case.id


def test_the_same_pipeline_comes_before_everything() -> None:
    own, other = record_of(case_of(FP8DQ, REGIONAL, batch=16)), record_of(case_of(pipeline=COGVIDEOX_5B))
    assert _nearest(case_of(), own, other) == own.case.id


# Records


def test_entries_are_joined_with_their_cases_unless_these_have_changed() -> None:
    case, changed = make_case(), make_case(fuse_qkv=True)
    entry, outdated = make_entry(case=case), make_entry(case=changed, digest="0" * 64)
    baselines = make_baselines(cases={case.id: entry, changed.id: outdated})
    found = recorded_cases({"flux-mini": baselines}, (case, changed, make_case(scheme=INT8DQ)))
    assert found == (RecordedCase(case=case, entry=entry),)
