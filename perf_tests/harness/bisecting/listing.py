"""Which versions of a package there are: on a page of a simple index (PEP 503, PEP 691), and in history."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import msgspec
from packaging.tags import Tag, sys_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from perf_tests.harness.history import files
from perf_tests.protocol.errors import PerfError, UsageError
from perf_tests.protocol.files import read_regular

TIMEOUT_S = 60.0
MAX_BYTES = 64 << 20
JSON_TYPE = "application/vnd.pypi.simple.v1+json"
ACCEPTED = f"{JSON_TYPE}, text/html;q=0.1"


class _File(msgspec.Struct):
    filename: str
    url: str
    yanked: bool | str = False


class _Page(msgspec.Struct):
    """What PEP 691 answers, as far as it is needed here."""

    files: tuple[_File, ...]


class _Anchors(HTMLParser):
    """The links of what PEP 503 answers, without yanked files."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the address of a link."""
        found = dict(attrs)
        if tag == "a" and found.get("href") and "data-yanked" not in found:
            self.links.append(str(found["href"]))


def on_page(address: str, package: str) -> dict[str, str]:
    """Version -> address of the wheel for this interpreter, from the page of a package in a simple index.

    `address` is that of the page, or a file that holds it. Raises PerfError where it cannot be read, or names
    no wheel of the package for this interpreter.
    """
    base, content = _fetched(address)
    tags = {tag: rank for rank, tag in enumerate(sys_tags())}
    best: dict[str, tuple[int, str]] = {}
    for link in _links(content, address):
        name = unquote(urlsplit(link).path).rpartition("/")[2]
        if (wheel := _wheel(name, package, tags)) is not None:
            version, rank = wheel
            best[version] = min((rank, urljoin(base, link)), best.get(version, (rank, urljoin(base, link))))
    if not best:
        raise UsageError(
            f"{address} names no wheel of {package} for this interpreter: give the page of the package "
            "itself, such as .../simple/torch/"
        )
    return {version: found for version, (_, found) in best.items()}


def in_history(folder: Path, package: str) -> dict[str, str]:
    """Version -> address of the wheel, or nothing where none was noted, of each night on record.

    Raises PerfError for a night that cannot be read.
    """
    platforms = sorted(each.name for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []
    found: dict[str, str] = {}
    for stored in (night for platform in platforms for night in files.nights(folder, platform)):
        version = stored.night.packages.get(package, "").partition(" ")[0]
        if version:
            found[version] = stored.night.wheels.get(package, "") or found.get(version, "")
    if not found:
        raise UsageError(f"--history {folder}: no night says which {package} it was measured with")
    return found


def between(
    versions: Iterable[str], good: str, bad: str, wanted: Callable[[Version], bool]
) -> tuple[str, ...]:
    """The `wanted` ones from `good` to `bad`, both included, in order. A date names its night.

    Raises UsageError where an end is not among them, or they are in the wrong order.
    """
    known = sorted({each for each in map(_version, versions) if each is not None and wanted(each)}, key=_age)
    if not known:
        raise UsageError("there is no version to choose from")
    first, last = _named(good, known), _named(bad, known)
    if first >= last:
        raise UsageError(f"{bad} does not come after {good}: the good end is the older one")
    found = known[first : last + 1]
    if len(builds := {each.local or "none" for each in found}) > 1:
        raise UsageError(
            f"there are several builds of a version, choose with --local: {', '.join(sorted(builds))}"
        )
    return tuple(map(str, found))


def parsed(version: str) -> Version:
    """A version, which may then name a folder. Raises UsageError for what is none."""
    found = _version(version)
    if found is None:
        raise UsageError(f"{version!r} is no version")
    return found


def is_night(version: Version) -> bool:
    """Whether the version is that of a nightly build."""
    return version.dev is not None


def is_release(version: Version) -> bool:
    """Whether the version is neither a night nor a candidate."""
    return not version.is_prerelease


def _age(version: Version) -> tuple[int, Version]:
    # The night counts, not the release that it comes before: that moves while nights go on.
    return version.dev or 0, version


def _named(end: str, known: list[Version]) -> int:
    """Where the end is. Of a date it is that night, written 2026-11-20 or 20261120."""
    date = end.replace("-", "")
    asked = _version(end)
    found = [
        index
        for index, each in enumerate(known)
        if each == asked or (asked is not None and str(asked) == each.public) or str(each.dev) == date
    ]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(str(known[index]) for index in found)
        raise UsageError(f"{end} may be {several}: narrow them down with --local")
    nearest = ", ".join(str(known[index]) for index in sorted({0, len(known) // 2, len(known) - 1}))
    raise UsageError(f"{end} is not there; there are {len(known)}, such as {nearest}")


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _fetched(address: str) -> tuple[str, bytes]:
    """What links are relative to, and the content."""
    try:
        if urlsplit(address).scheme not in ("http", "https"):
            path = Path(address)
            return path.absolute().as_uri(), read_regular(path)
        request = urllib.request.Request(address, headers={"Accept": ACCEPTED})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            content = answer.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                raise PerfError(f"{address} is larger than {MAX_BYTES} bytes: it is no page of one package")
            return answer.geturl(), content
    except (OSError, ValueError) as error:
        raise PerfError(f"the page {address} cannot be read: {error}") from error


def _links(content: bytes, address: str) -> Iterator[str]:
    if content.lstrip().startswith(b"{"):
        try:
            page = msgspec.json.decode(content, type=_Page)
        except msgspec.DecodeError as error:
            raise PerfError(f"the page {address} cannot be read: {error}") from error
        yield from (f"{each.url}" for each in page.files if not each.yanked)
        return
    parser = _Anchors()
    parser.feed(content.decode("utf-8", "replace"))
    yield from parser.links


def _wheel(name: str, package: str, tags: Mapping[Tag, int]) -> tuple[str, int] | None:
    """Version and rank of a wheel of the package that this interpreter can install; None for other files."""
    try:
        project, version, _, of_wheel = parse_wheel_filename(name)
    except InvalidWheelFilename:
        return None
    ranks = [tags[tag] for tag in of_wheel if tag in tags]
    if project != canonicalize_name(package) or not ranks:
        return None
    return str(version), min(ranks)
