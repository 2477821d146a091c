"""Issues over GitHub's REST API: all pages, bounded retries, and one clear error for what stays refused."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from http import HTTPStatus
from http.client import HTTPException
from typing import Final, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from perf_tests.harness.processes.plain_text import harmless
from perf_tests.harness.telling.http import HttpAnswer, Transport, over_http
from perf_tests.harness.telling.issues import LABEL, ApiIssue, ApiLabel
from perf_tests.protocol.errors import PerfError, UsageError

T = TypeVar("T")

PAUSES_S: Final = (1.0, 4.0, 16.0)
"""Before each further try of a request that got no answer, or one of a server in trouble."""
MAX_WAIT_S: Final = 120.0
"""The longest wait that GitHub may ask for; a longer one ends the job instead of holding its runner."""
SECONDARY_LIMIT_S: Final = 60.0
"""Its documentation's advice where an answer about too many requests names no time."""
WRITE_PAUSE_S: Final = 1.0
"""Between two requests that change something, as its documentation asks for."""
MAX_PAGES: Final = 50
PER_PAGE: Final = 100
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}")
NEXT = re.compile(r'<([^>]+)>; rel="next"')
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ADVICE: Final[Mapping[int, str]] = {
    HTTPStatus.UNAUTHORIZED: "the token is not accepted: is GITHUB_TOKEN that of this job?",
    HTTPStatus.FORBIDDEN: "the token may not do this: the job needs `permissions: issues: write`",
    HTTPStatus.NOT_FOUND: "for this token there is no such thing: check GITHUB_REPOSITORY",
    HTTPStatus.GONE: "it was deleted, or issues are switched off in this repository",
    HTTPStatus.UNPROCESSABLE_ENTITY: "the content is refused: this is a defect of the suite",
}
OTHERWISE: Final = "nothing else answers so: check GITHUB_API_URL"


class GitHubError(PerfError):
    """GitHub cannot be asked, or refuses."""


class NotFoundError(GitHubError):
    """There is no such thing, or not for this token."""


class _Unanswered(Exception):
    """A request to try again; `wait_s` where GitHub says when."""

    def __init__(self, why: str, *, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class _Refusal(msgspec.Struct):
    message: str = ""


class _Comment(msgspec.Struct):
    body: str | None = None


class _Ignored(msgspec.Struct):
    """An answer of which only its status counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GitHub:
    """The issues of one repository. Every method raises GitHubError."""

    repository: str
    """`owner/name`."""
    token: str = field(repr=False)
    """Empty to read what is public."""
    api_url: str = "https://api.github.com"
    transport: Transport = over_http
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        if not REPOSITORY.fullmatch(self.repository):
            raise UsageError(f"GITHUB_REPOSITORY is {harmless(self.repository)!r}: set it to owner/name")
        address = urlsplit(self.api_url)
        is_here = address.scheme == "http" and address.hostname in LOOPBACK
        if address.scheme != "https" and not is_here:
            raise UsageError(f"GITHUB_API_URL is {harmless(self.api_url)!r}: a token is sent over https only")

    def issues(self, closed_since: date) -> tuple[ApiIssue, ...]:
        """The open issues with our label, and those that were closed since then."""
        asked = ({"state": "open"}, {"state": "closed", "since": f"{closed_since}T00:00:00Z"})
        found = (
            each
            for query in asked
            for each in self._listed(f"{self._issues}?{_query(labels=LABEL, **query)}", ApiIssue)
        )
        return tuple({each.number: each for each in found if each.pull_request is None}.values())

    def create(self, mark: str, title: str, body: str) -> int:
        """Open an issue with our label, once, even where an answer is lost. Returns its number."""
        content = {"title": title, "body": body, "labels": [LABEL]}

        def done_already() -> ApiIssue | None:
            listed = self._listed(f"{self._issues}?{_query(labels=LABEL, state='open')}", ApiIssue)
            return next((each for each in listed if each.fingerprint == mark), None)

        made = self._write("POST", self._issues, content, ApiIssue, done_already)
        if not any(label.name == LABEL for label in made.labels):
            raise GitHubError(
                f"issue {made.number} was opened without the label {LABEL}, by which it is found again: "
                "give it that label, or it is opened anew every night"
            )
        return made.number

    def comment(self, number: int, text: str, since: date) -> None:
        """Comment on an issue, unless somebody has said exactly that since then."""
        url = f"{self._issues}/{number}/comments"

        def said_already() -> _Comment | None:
            listed = self._listed(f"{url}?{_query(since=f'{since}T00:00:00Z')}", _Comment)
            return next((each for each in listed if each.body == text), None)

        if said_already() is None:
            self._write("POST", url, {"body": text}, _Comment, said_already)

    def update(self, number: int, body: str, state: str | None) -> None:
        """Replace the body of an issue, unless `body` is empty, and its state, unless that is None."""
        content = {"body": body, "state": state}
        named = {name: value for name, value in content.items() if value}
        self._write("PATCH", f"{self._issues}/{number}", named, _Ignored)

    def ensure_label(self) -> None:
        """Make our label where the repository has none: without it no issue would be found again."""
        labels = f"{self._root}/labels"

        def known() -> ApiLabel | None:
            try:
                return self._read(f"{labels}/{LABEL}", ApiLabel)[0]
            except NotFoundError:
                return None

        if known() is None:
            content = {"name": LABEL, "color": "d93f0b", "description": "Kept by the nightly"}
            self._write("POST", labels, content, ApiLabel, known)

    # Requests

    @property
    def _root(self) -> str:
        return f"{self.api_url}/repos/{self.repository}"

    @property
    def _issues(self) -> str:
        return f"{self._root}/issues"

    def _listed(self, url: str, item: type[T]) -> Iterator[T]:
        """What all pages from `url` on list."""
        for _ in range(MAX_PAGES):
            found, answer = self._read(url, list[item])  # type: ignore[valid-type]  # of a variable
            yield from found
            following = NEXT.search(answer.header("Link"))
            if following is None:
                return
            url = following[1]
            if not url.startswith(f"{self.api_url}/"):
                raise GitHubError(f"GitHub names a next page elsewhere, {harmless(url)[:200]}: not asked")
        raise GitHubError(f"more than {MAX_PAGES} pages of {PER_PAGE}: close what is done with by hand")

    def _read(self, url: str, expected: type[T]) -> tuple[T, HttpAnswer]:
        return self._again(lambda: self._ask("GET", url, None, expected))

    def _write(
        self,
        method: str,
        url: str,
        content: object,
        expected: type[T],
        done_already: Callable[[], T | None] = lambda: None,
    ) -> T:
        self.sleep(WRITE_PAUSE_S)
        return self._again(lambda: self._ask(method, url, content, expected)[0], done_already)

    def _again(self, ask: Callable[[], T], done_already: Callable[[], T | None] = lambda: None) -> T:
        """The answer of `ask`, a few times over; a request that got none may have been carried out."""
        for pause_s in PAUSES_S:
            try:
                return ask()
            except _Unanswered as error:
                self.sleep(pause_s if error.wait_s is None else error.wait_s)
                if (found := done_already()) is not None:
                    return found
        try:
            return ask()
        except _Unanswered as error:
            raise GitHubError(f"{error}, asked {len(PAUSES_S) + 1} times: run this job again") from None

    def _ask(self, method: str, url: str, content: object, expected: type[T]) -> tuple[T, HttpAnswer]:
        what = f"{method} {urlsplit(url).path}"
        headers = {
            "Accept": "application/vnd.github+json",
            "User-Agent": "diffusion-perf-tests",
            "X-GitHub-Api-Version": "2022-11-28",
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {self.token}"} if self.token else {}),
        }
        payload = None if content is None else msgspec.json.encode(content)
        try:
            answer = self.transport(method, url, payload, headers)
        except (OSError, HTTPException) as error:
            raise _Unanswered(f"{what}: no answer ({harmless(str(error) or type(error).__name__)})") from None
        self._check(what, answer)
        try:
            return msgspec.json.decode(answer.content, type=expected), answer
        except msgspec.DecodeError as error:
            raise _Unanswered(f"{what}: an answer that cannot be read ({error})") from None

    def _check(self, what: str, answer: HttpAnswer) -> None:
        if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
            return
        said = f"{what}: {answer.status}{_message(answer)}"
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _Unanswered(said)
        if (wait_s := self._wait_s(answer)) is not None:
            if wait_s > MAX_WAIT_S:
                raise GitHubError(f"{said}; it asks for {wait_s:.0f} s of patience: run this job later")
            raise _Unanswered(said, wait_s=wait_s)
        refused = NotFoundError if answer.status == HTTPStatus.NOT_FOUND else GitHubError
        raise refused(f"{said}; {ADVICE.get(answer.status, OTHERWISE)}")

    def _wait_s(self, answer: HttpAnswer) -> float | None:
        """How long to wait before asking again; None where the number of requests is not to blame."""
        if answer.status not in (HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS):
            return None
        after, reset = answer.header("Retry-After"), answer.header("X-RateLimit-Reset")
        if after.isdecimal():
            return float(after)
        if answer.header("X-RateLimit-Remaining") == "0" and reset.isdecimal():
            return max(1.0, float(reset) - self.clock())
        limited = answer.status == HTTPStatus.TOO_MANY_REQUESTS or "rate limit" in _message(answer)
        return SECONDARY_LIMIT_S if limited else None


def _query(**parameters: str) -> str:
    return urlencode({**parameters, "per_page": PER_PAGE}, quote_via=quote)


def _message(answer: HttpAnswer) -> str:
    """What GitHub says of a refusal, as a clause."""
    try:
        said = msgspec.json.decode(answer.content, type=_Refusal).message
    except msgspec.DecodeError:
        return ""
    return f" ({harmless(said)[:200]})" if said else ""
