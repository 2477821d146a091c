"""What dynamo says about itself."""

from __future__ import annotations

import torch

from perf_tests.worker.measure import counters


def test_guard_that_fails_is_told_in_the_words_of_dynamo() -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
    compiled(torch.ones(2))
    before = counters.guard_failures()
    compiled(torch.ones(3))

    (guard,) = counters.guard_failures() - before
    assert "size mismatch at index 0. expected 2, actual 3" in guard


def test_no_guard_has_failed_where_nothing_was_compiled_again() -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
    before = counters.guard_failures()
    compiled(torch.ones(2))
    compiled(torch.ones(2))
    assert not counters.guard_failures() - before
