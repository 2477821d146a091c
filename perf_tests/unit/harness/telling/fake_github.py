"""A server on this machine that answers as GitHub's REST API does for issues, with recorded faults."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

ISSUE = re.compile(r"/repos/octo/perf/issues(?:/(\d+))?(/comments)?")
LABEL = re.compile(r"/repos/octo/perf/labels(?:/([\w-]+))?")
BY = {"login": "github-actions[bot]", "id": 41898282, "type": "Bot"}

Answer = tuple[int, dict[str, str], bytes]

RATE_LIMITED: Answer = (
    403,
    {"X-RateLimit-Remaining": "0"},
    b'{"message": "API rate limit exceeded for installation."}',
)
FORBIDDEN: Answer = (403, {}, b'{"message": "Resource not accessible by integration", "status": "403"}')
BAD_GATEWAY: Answer = (502, {}, b"<html><head><title>502 Bad Gateway</title></head></html>")
INVALID: Answer = (
    422,
    {},
    b'{"message": "Validation Failed", "errors": [{"code": "invalid", "field": "body"}]}',
)
NOT_FOUND: Answer = (404, {}, b'{"message": "Not Found", "status": "404"}')
MOVED: Answer = (301, {"Location": "http://127.0.0.1:9/elsewhere"}, b'{"message": "Moved Permanently"}')
TRUNCATED: Answer = (200, {"Content-Length": "4096"}, b'[{"number": 1, "state": "op')


@dataclass
class Fault:
    """One answer that is not what the request asked for."""

    method: str
    answer: Answer
    is_carried_out: bool = False
    """Whether the request was carried out all the same."""


@dataclass
class FakeGitHub:
    """What the repository holds, and what was asked of it."""

    page_size: int = 100
    issues: list[dict[str, Any]] = field(default_factory=list)
    comments: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    labels: set[str] = field(default_factory=lambda: {"bug"})
    faults: list[Fault] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    drops_labels: bool = False
    day: str = "2026-11-01"
    url: str = ""

    @property
    def changes(self) -> list[str]:
        """The requests that change something."""
        return [each for each in self.asked if not each.startswith("GET ")]

    @property
    def states(self) -> list[str]:
        return [issue["state"] for issue in self.issues]

    def said(self, number: int) -> list[str]:
        """The comments on an issue."""
        return [each["body"] for each in self.comments.get(number, [])]

    def seed(self, title: str, *, pull_request: bool = False, labels: tuple[str, ...] = ()) -> dict[str, Any]:
        """An issue that somebody has opened."""
        issue = {
            "number": len(self.issues) + 1,
            "state": "open",
            "title": title,
            "body": None,
            "user": {"login": "octocat"},
            "closed_at": None,
            "updated_at": f"{self.day}T10:00:00Z",
            "labels": [{"id": 1, "name": name, "color": "d93f0b"} for name in labels],
            **(
                {"pull_request": {"url": "https://api.github.com/repos/octo/perf/pulls/1"}}
                if pull_request
                else {}
            ),
        }
        self.issues.append(issue)
        return issue

    def answer(self, method: str, url: str, content: dict[str, Any]) -> Answer:
        """The answer to a request, after what it asks for was done."""
        path = urlsplit(url).path
        query = {name: each[0] for name, each in parse_qs(urlsplit(url).query).items()}
        if found := LABEL.fullmatch(path):
            return self._label(method, found[1], content)
        found = ISSUE.fullmatch(path)
        if not found or int(found[1] or 0) > len(self.issues):
            return NOT_FOUND
        number = int(found[1] or 0)
        if method == "GET":
            listed = self.comments.get(number, []) if found[2] else self._chosen(query)
            return self._page(path, query, listed)
        if found[2]:
            return self._commented(number, content)
        return self._changed(number, content) if number else self._opened(content)

    def _opened(self, content: dict[str, Any]) -> Answer:
        issue = self.seed(content["title"], labels=() if self.drops_labels else tuple(content["labels"]))
        issue.update(body=content["body"], user=BY)
        return answered(201, issue)

    def _commented(self, number: int, content: dict[str, Any]) -> Answer:
        comment = {"id": 7, "body": content["body"], "user": BY, "created_at": f"{self.day}T12:00:00Z"}
        self.comments.setdefault(number, []).append(comment)
        return answered(201, comment)

    def _changed(self, number: int, content: dict[str, Any]) -> Answer:
        issue = self.issues[number - 1]
        issue.update(content)
        if "state" in content:
            issue["closed_at"] = f"{self.day}T12:00:00Z" if content["state"] == "closed" else None
        return answered(200, issue)

    def _label(self, method: str, name: str | None, content: dict[str, Any]) -> Answer:
        if method == "POST":
            self.labels.add(content["name"])
            return answered(201, content)
        return answered(200, {"name": name}) if name in self.labels else NOT_FOUND

    def _chosen(self, query: dict[str, str]) -> list[dict[str, Any]]:
        return [
            issue
            for issue in reversed(self.issues)
            if query.get("labels") in [label["name"] for label in issue["labels"]]
            and query.get("state") in (issue["state"], "all")
            and (issue["closed_at"] or issue["updated_at"]) >= query.get("since", "")
        ]

    def _page(self, path: str, query: dict[str, str], items: list[dict[str, Any]]) -> Answer:
        size, page = min(int(query["per_page"]), self.page_size), int(query.get("page", 1))
        more = {**query, "page": str(page + 1)}
        address = f"{self.url}{path}?" + "&".join(f"{name}={value}" for name, value in more.items())
        last = f'<{address}>; rel="last"'
        link = {"Link": f'<{address}>; rel="next", {last}'} if len(items) > page * size else {}
        return answered(200, items[(page - 1) * size : page * size], link)


def answered(status: int, content: object, headers: dict[str, str] | None = None) -> Answer:
    return status, headers or {}, json.dumps(content).encode()


def _handler(fake: FakeGitHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            content = json.loads(self.rfile.read(length) or b"{}")
            fake.asked.append(f"{self.command} {urlsplit(self.path).path}")
            fake.tokens.add(self.headers.get("Authorization", ""))
            fault = next((each for each in fake.faults if each.method == self.command), None)
            if fault is None or fault.is_carried_out:
                answer = fake.answer(self.command, self.path, content)
            if fault is not None:
                fake.faults.remove(fault)
                answer = fault.answer
            status, headers, body = answer
            if not status:  # hung up
                return
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = _answer

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


@contextmanager
def serving(fake: FakeGitHub) -> Iterator[FakeGitHub]:
    """`fake`, at its `url` for as long as the context lasts."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        fake.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
