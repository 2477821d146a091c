"""Which nights and releases there are, from pages of a simple index and from history."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from packaging.tags import sys_tags

from perf_tests.harness.bisecting import listing
from perf_tests.harness.history import files
from perf_tests.harness.history.night import FORMAT_VERSION, METHODOLOGY, NightHeader
from perf_tests.protocol.errors import PerfError, UsageError

TAG = str(next(iter(sys_tags())))
NIGHTS = tuple(f"2.16.0.dev202611{day}+cu130" for day in (20, 21, 24))


def wheel(version: str, tag: str = TAG, package: str = "torch") -> str:
    return f"{package}-{version.replace('+', '%2B')}-{tag}.whl"


def html(*names: str) -> str:
    return "<!DOCTYPE html><html><body>" + "".join(
        f'<a href="/whl/nightly/{name}#sha256={"0" * 64}">{name}</a><br>' for name in names
    )


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "index.html"


def test_wheels_of_a_page_are_known_by_version_and_address(page: Path) -> None:
    page.write_text(html(*map(wheel, NIGHTS)))
    found = listing.on_page(str(page), "torch")
    assert tuple(found) == NIGHTS
    assert found[NIGHTS[0]] == f"file:///whl/nightly/{wheel(NIGHTS[0])}#sha256={'0' * 64}"


def test_wheels_of_other_interpreters_and_other_files_are_left_out(page: Path) -> None:
    others = (
        wheel(NIGHTS[1], "cp27-cp27m-win32"),
        "torch-2.16.0.tar.gz",
        "torch-x.whl",
        "../",
        wheel(NIGHTS[2], package="torchvision"),
    )
    page.write_text(html(wheel(NIGHTS[0]), *others))
    assert tuple(listing.on_page(str(page), "torch")) == NIGHTS[:1]


def test_a_yanked_wheel_is_left_out(page: Path) -> None:
    page.write_text(html(wheel(NIGHTS[0])) + f'<a data-yanked="" href="{wheel(NIGHTS[1])}">x</a>')
    assert tuple(listing.on_page(str(page), "torch")) == NIGHTS[:1]


def test_a_page_in_json_is_read_too(page: Path) -> None:
    entries = [
        {"filename": wheel(NIGHTS[0]), "url": f"https://x.org/{wheel(NIGHTS[0])}", "hashes": {}},
        {"filename": wheel(NIGHTS[1]), "url": f"https://x.org/{wheel(NIGHTS[1])}", "yanked": "broken"},
        {"filename": wheel(NIGHTS[2]), "url": wheel(NIGHTS[2]), "yanked": False},
    ]
    page.write_text(json.dumps({"meta": {"api-version": "1.1"}, "name": "torch", "files": entries}))
    assert listing.on_page(str(page), "torch") == {
        NIGHTS[0]: f"https://x.org/{wheel(NIGHTS[0])}",
        NIGHTS[2]: f"{page.parent.as_uri()}/{wheel(NIGHTS[2])}",
    }


def test_of_two_wheels_of_a_version_the_better_one_is_taken(page: Path) -> None:
    worst = str(list(sys_tags())[-1])
    page.write_text(html(wheel(NIGHTS[0], worst), wheel(NIGHTS[0])))
    assert TAG in listing.on_page(str(page), "torch")[NIGHTS[0]]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "names no wheel of torch for this interpreter"),
        ('{"files": 3}', "cannot be read"),
        ("{", "cannot be read"),
        (html(wheel(NIGHTS[0], package="torchao")), "names no wheel of torch"),
    ],
)
def test_a_page_without_wheels_is_refused(page: Path, content: str, why: str) -> None:
    page.write_text(content)
    with pytest.raises(PerfError, match=why):
        listing.on_page(str(page), "torch")


def test_a_page_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PerfError, match="cannot be read"):
        listing.on_page(str(tmp_path / "nothing"), "torch")


def test_nights_are_between_their_dates_and_missing_ones_are_passed_over() -> None:
    known = (*reversed(NIGHTS), "2.15.1", "2.15.0.dev20261119+cu130")
    assert listing.between(known, "2026-11-20", "20261124", listing.is_night) == NIGHTS
    assert listing.between(known, "2.15.0.dev20261119", NIGHTS[1], listing.is_night) == (
        "2.15.0.dev20261119+cu130",
        *NIGHTS[:2],
    )


def test_a_night_of_a_later_release_number_comes_after_an_earlier_date() -> None:
    # The number moves while nights go on: torch 2.15.0.dev20261122 is younger than 2.16.0.dev20261121.
    known = ("2.16.0.dev20261121", "2.15.0.dev20261122", "2.15.0.dev20261120")
    assert listing.between(known, "2026-11-20", "2026-11-22", listing.is_night) == (
        "2.15.0.dev20261120",
        "2.16.0.dev20261121",
        "2.15.0.dev20261122",
    )


def test_releases_are_neither_nights_nor_candidates() -> None:
    known = ("0.11.0", "0.9.0", "0.10.0", "0.10.0rc1", "0.11.0.dev20250101", "0.10.0.post1")
    assert listing.between(known, "0.9", "0.11.0", listing.is_release) == (
        "0.9.0",
        "0.10.0",
        "0.10.0.post1",
        "0.11.0",
    )


@pytest.mark.parametrize(
    ("good", "bad", "why"),
    [
        ("2026-11-22", NIGHTS[2], "2026-11-22 is not there; there are 3"),
        (NIGHTS[2], NIGHTS[0], "does not come after"),
        (NIGHTS[0], NIGHTS[0], "does not come after"),
    ],
)
def test_ends_that_are_not_there_or_turned_round_are_refused(good: str, bad: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        listing.between(NIGHTS, good, bad, listing.is_night)


def test_builds_for_several_devices_are_refused_by_name() -> None:
    known = (*NIGHTS, "2.16.0.dev20261120+cpu", "2.16.0.dev20261122+cpu")
    with pytest.raises(UsageError, match=r"may be .*narrow them down with --local"):
        listing.between(known, "2026-11-20", "2026-11-24", listing.is_night)
    with pytest.raises(UsageError, match="choose with --local: cpu, cu130"):
        listing.between(known, NIGHTS[0], NIGHTS[2], listing.is_night)


def test_history_knows_wheels_that_no_index_has_any_more(tmp_path: Path) -> None:
    for day, version in zip((20, 21, 24), NIGHTS, strict=True):
        night = NightHeader(
            format_version=FORMAT_VERSION,
            night=f"2026-11-{day}",
            run="1",
            platform="h100",
            methodology=METHODOLOGY,
            packages={"torch": f"{version} (git0123456789)"},
            wheels={"torch": f"https://x.org/{version}.whl"} if day != 21 else {},
        )
        files.append(tmp_path, night, ())
    assert listing.in_history(tmp_path, "torch") == {
        NIGHTS[0]: f"https://x.org/{NIGHTS[0]}.whl",
        NIGHTS[1]: "",
        NIGHTS[2]: f"https://x.org/{NIGHTS[2]}.whl",
    }
    with pytest.raises(UsageError, match="no night says which torchao it was measured with"):
        listing.in_history(tmp_path, "torchao")
    with pytest.raises(UsageError, match="no night says which torch"):
        listing.in_history(tmp_path / "nowhere", "torch")
