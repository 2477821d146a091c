"""One request over HTTP, without following anybody elsewhere: a token goes along."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

TIMEOUT_S: Final = 30.0
MAX_BYTES: Final = 16 << 20
"""Of an answer: a page of a hundred issues with the longest bodies that GitHub takes is 6.5 MB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpAnswer:
    """What a server answered, whatever its status."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def header(self, name: str) -> str:
        """The header, by its name in any case; empty where there is none."""
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), "")


Transport = Callable[[str, str, bytes | None, Mapping[str, str]], HttpAnswer]
"""Method, address, content and headers of a request -> the answer; OSError or HTTPException without one."""


class _StayHere(HTTPRedirectHandler):
    def redirect_request(self, *_asked: object) -> None:
        """Leave an answer that points elsewhere as it is."""


def over_http(method: str, url: str, content: bytes | None, headers: Mapping[str, str]) -> HttpAnswer:
    """Send a request. Raises OSError or HTTPException where no whole answer comes in time."""
    request = Request(url, data=content, headers=dict(headers), method=method)
    try:
        with build_opener(_StayHere).open(request, timeout=TIMEOUT_S) as response:
            if int(response.headers.get("Content-Length") or 0) > MAX_BYTES:
                raise OSError(f"the answer is larger than {MAX_BYTES} bytes")
            return HttpAnswer(status=response.status, headers=dict(response.headers), content=response.read())
    except HTTPError as error:
        with error:
            return HttpAnswer(status=error.code, headers=dict(error.headers), content=error.read())
