"""Why the warm-up and the sampling of a process ended, as `run.json` says it."""

from __future__ import annotations

from enum import StrEnum


class WarmUpEnd(StrEnum):
    """Why the warm-up of a process ended."""

    FIXED = "fixed"
    """After the number of generations that every process is warmed up for."""
    STEADY = "steady"
    """Two generations took the same time per step."""
    MOST = "most"
    """After as many generations as are allowed: it did not become steady."""


class SamplingEnd(StrEnum):
    """Why the sampling of a process ended."""

    FIXED = "fixed"
    """After as many generations as its platform asks for."""
    PRECISE = "precise"
    """Its own error is small compared with the noise between processes."""
    MOST = "most"
    """After as many generations as are allowed: its error did not become small enough."""
