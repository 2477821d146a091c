"""lanes/job_queue.py: which card takes which job, in which order."""

from __future__ import annotations

from dataclasses import replace

from perf_tests.harness.lanes.job_queue import Job, JobQueue

A, B = "GPU-a", "GPU-b"


def job(name: str, seconds: float, family: str = "f", home: str | None = None) -> Job:
    return Job(cases=(name,), family=family, home=home, seconds=seconds)


def taken(queue: JobQueue, unit: str) -> str | None:
    found = queue.take(unit)
    return None if found is None else found.cases[0]


def test_the_longest_job_is_taken_first() -> None:
    queue = JobQueue([job("short", 1.0), job("long", 9.0), job("middle", 5.0)], (A,))
    assert [taken(queue, A) for _ in range(4)] == ["long", "middle", "short", None]


def test_the_most_urgent_job_is_taken_before_the_longest() -> None:
    jobs = (
        replace(job("long", 9.0), urgency=2),
        replace(job("short", 1.0), urgency=0),
        replace(job("other", 20.0, family="g"), urgency=1),
    )
    queue = JobQueue(jobs, (A, B))
    assert [taken(queue, A), taken(queue, B), taken(queue, B)] == ["short", "other", "long"]


def test_a_job_is_measured_on_the_card_of_its_baseline_where_that_is_here() -> None:
    queue = JobQueue(
        [job("any", 9.0), job("at home", 1.0, home=B), job("strange", 5.0, home="GPU-x")], (A, B)
    )
    assert taken(queue, B) == "at home"
    assert [taken(queue, A), taken(queue, A), taken(queue, A)] == ["any", "strange", None]


def test_a_card_waits_rather_than_take_what_belongs_to_another() -> None:
    queue = JobQueue([job("at home", 1.0, home=B)], (A, B))
    assert taken(queue, A) is None
    assert taken(queue, B) == "at home"


def test_cards_begin_different_families_and_stay_with_theirs() -> None:
    jobs = [job("f1", 9.0), job("f2", 8.0), job("g1", 7.0, family="g"), job("g2", 1.0, family="g")]
    queue = JobQueue(jobs, (A, B))
    assert [taken(queue, A), taken(queue, B)] == ["f1", "g1"]
    assert [taken(queue, B), taken(queue, A)] == ["g2", "f2"]


def test_the_family_with_most_to_do_is_begun_first() -> None:
    jobs = [job("f1", 9.0), job("g1", 6.0, family="g"), job("g2", 6.0, family="g")]
    assert taken(JobQueue(jobs, (A,)), A) == "g1"


def test_a_card_without_work_helps_where_most_is_left() -> None:
    jobs = [job("f1", 9.0), job("f2", 8.0), job("f3", 2.0), job("g1", 1.0, family="g")]
    queue = JobQueue(jobs, (A, B))
    assert [taken(queue, A), taken(queue, B), taken(queue, B)] == ["f1", "g1", "f2"]


def test_a_reference_is_claimed_once_and_not_from_the_card_it_belongs_to() -> None:
    queue = JobQueue([job("bf16", 1.0), job("at home", 1.0, home=B)], (A, B))
    claimed = queue.claim("bf16", A)
    assert claimed is not None
    assert claimed.cases == ("bf16",)
    assert queue.claim("bf16", B) is None
    assert queue.claim("at home", A) is None


def test_what_a_broken_card_leaves_goes_to_the_others() -> None:
    queue = JobQueue([job("at home", 1.0, home=B), job("f1", 9.0)], (A, B))
    begun = queue.take(B)
    assert begun is not None
    queue.retire(B)
    queue.put(begun)
    assert taken(queue, B) is None
    assert {taken(queue, A), taken(queue, A)} == {"at home", "f1"}
