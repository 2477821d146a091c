"""Defects that recipes go around are watched, so that nobody goes around them for longer than needed."""

from __future__ import annotations

from perf_tests.harness.plugin.fixtures import Watched


def test_known_issue(watched: Watched) -> None:
    watched.check()
