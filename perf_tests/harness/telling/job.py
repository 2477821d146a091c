"""What a job of a workflow knows: whose issues, by which token, of which run; from its environment alone."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from perf_tests.harness.telling import findings
from perf_tests.harness.telling.findings import NightFindings
from perf_tests.harness.telling.github import REPOSITORY, GitHub
from perf_tests.harness.telling.plan import NightToTell
from perf_tests.protocol.errors import UsageError
from perf_tests.tables.platforms import PLATFORM_BY_ID

LATE_DAYS = 3
"""After a night, it is told no more; nor is one of a day to come, after which none would be told."""
SERVER = re.compile(r"https://[A-Za-z0-9.-]+(:[0-9]+)?")
RUN = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True, kw_only=True, slots=True)
class HostedJob:
    """The environment of a job, and its clock."""

    environ: Mapping[str, str]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] = time.sleep

    @property
    def today(self) -> date:
        """The day, UTC."""
        return self.now().date()

    def github(self, *, writes: bool) -> GitHub:
        """The issues of this repository. Raises UsageError for an environment that names none."""
        token = self.environ.get("GITHUB_TOKEN", "")
        if writes and not token:
            raise UsageError("--write needs a token: set GITHUB_TOKEN to that of a job with `issues: write`")
        return GitHub(
            repository=self.environ.get("GITHUB_REPOSITORY", ""),
            token=token,
            api_url=self.environ.get("GITHUB_API_URL", "https://api.github.com").rstrip("/"),
            sleep=self.sleep,
        )

    def night(self, path: Path, controls: tuple[Path, ...] = (), platform: str | None = None) -> NightToTell:
        """The night whose findings are in `path`: of `platform` alone, where that is given, and without the
        file one that did not measure.

        Raises UsageError for a platform that there is not, and RecordError for findings that are not exactly
        what the suite writes.
        """
        if platform is not None and platform not in PLATFORM_BY_ID:
            raise UsageError(f"--platform {platform!r}: there is no such platform")
        is_lost = platform is not None and not path.exists()
        found = self._nothing() if is_lost else findings.read(path)
        night = NightToTell(
            findings=found,
            controls=tuple(map(findings.read, controls)),
            platform=platform,
            run_url=self._run_url,
        )
        strange = {each for each in night.platforms if platform not in (None, each)}
        if strange:
            raise UsageError(f"{path} is of {', '.join(sorted(strange))}, not of {platform}: nothing is told")
        return night

    def check_is_own(self, night: NightToTell) -> None:
        """Raise UsageError for findings of another run, and for a night long past or yet to come."""
        run = self.environ.get("GITHUB_RUN_ID", "")
        for each in (night.findings, *night.controls):
            if each.run.partition("-")[0] != run:
                raise UsageError(f"findings are of run {each.run}, and this is run {run}: nothing is told")
            age = self.today - date.fromisoformat(each.night)
            if not timedelta(days=-1) <= age <= timedelta(days=LATE_DAYS):
                raise UsageError(
                    f"findings are of the night of {each.night}, and today is {self.today}: nothing is told "
                    f"more than {LATE_DAYS} days later"
                )

    def _nothing(self) -> NightFindings:
        run = self.environ.get("GITHUB_RUN_ID", "")
        return NightFindings(
            format_version=findings.FORMAT_VERSION,
            night=self.today.isoformat(),
            run=run if RUN.fullmatch(run) else "0",
            counts=True,
            packages={},
            commits={},
            causes=(),
            outcomes=(),
        )

    @property
    def _run_url(self) -> str:
        """Where this run is shown; empty outside of one."""
        named = (self.environ.get(f"GITHUB_{each}", "") for each in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
        server, repository, run = named
        if SERVER.fullmatch(server) and REPOSITORY.fullmatch(repository) and RUN.fullmatch(run):
            return f"{server}/{repository}/actions/runs/{run}"
        return ""
