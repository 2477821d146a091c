"""tools/rebaseline.py review, driven through a pseudo-terminal as somebody types."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perf_tests.unit.conftest import rebaseline
from perf_tests.unit.forked import Forked
from perf_tests.unit.harness.review.reviews import FIVE, LARGEST_FIRST, record, stored, weights, write_run

QUESTION = "accept? [y,n,s,a,q,?] "
WHY = "(empty: back) "
TIMEOUT_S = 60.0
SILENT_S = 2.0


class Terminal:
    """A review in a process of its own, with a terminal that a test types into."""

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = Forked(lambda: review_in(theirs, arguments))
        os.close(theirs)
        self.seen = ""

    def until(self, text: str) -> str:
        """What is printed up to `text`; fails where it does not come."""
        deadline, begins = time.monotonic() + TIMEOUT_S, len(self.seen)
        while text not in self.seen[begins:]:
            assert time.monotonic() < deadline, f"{text!r} did not come: {self.seen[begins:]!r}"
            ready, _, _ = select.select([self._ours], [], [], 0.5)
            if ready and not self._read():
                break
        found = self.seen[begins:]
        assert text in found, f"{text!r} did not come: {found!r}"
        return found

    def type(self, text: str) -> None:
        """Type `text` and Enter."""
        os.write(self._ours, f"{text}\n".encode())

    def press(self, byte: bytes) -> None:
        """Press a key of which the terminal makes something."""
        os.write(self._ours, byte)

    def end(self, again: bytes = b"") -> tuple[int, str]:
        """The exit code, and everything that was printed.

        The key `again` is pressed once more where nothing follows: of a Ctrl-C that comes just before it
        waits for a line, Python hears only with the next key.
        """
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self._ours], [], [], SILENT_S)
            if ready and not self._read():
                break
            if not ready and again:
                self.press(again)
        return self.process.wait(), self.seen

    def close(self) -> None:
        """End it, whatever became of it."""
        self.process.kill()
        os.close(self._ours)

    def _read(self) -> bool:
        try:
            chunk = os.read(self._ours, 4096)
        except OSError:  # nobody holds the other end any more
            return False
        self.seen += chunk.decode(errors="replace").replace("\r\n", "\n")
        return bool(chunk)


def review_in(terminal: int, arguments: tuple[str, ...]) -> int:
    """The exit code of the tool, with its input as the terminal that Ctrl-C is pressed on."""
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (0, 1, 2):
        os.dup2(terminal, number)
    # What pytest has put in their place goes into its own files.
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115 - until it ends
    os.environ["TERM"] = "dumb"
    return rebaseline(["review", *arguments])


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    """Those of a test, which are ended after it."""
    started: list[Terminal] = []
    yield started
    for terminal in started:
        terminal.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store that holds five cases."""
    return stored(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run in which their weights have grown by 1 to 5 %."""
    return write_run(tmp_path / "run", record(1, 2, 3, 4, 5))


def grown(root: Path) -> list[str]:
    """The cases that were accepted."""
    return [case for case in LARGEST_FIRST if weights(root)[case] != 1000.0]


def test_two_of_five_are_accepted_one_rejected_and_the_rest_is_asked_again_later(
    terminals: list[Terminal], root: Path, run: Path
) -> None:
    first = Terminal(str(run), "--baselines", str(root))
    terminals.append(first)

    shown = first.until(QUESTION)
    assert "(1 of 5) flux-mini-b1-int4dq-eager on cpu: weight_bytes up" in shown
    assert re.search(r"weight_bytes +1,000 B +1,050 B +\+5.00 %", shown)
    assert 'replaces   1 process of 2026-08-03: "first numbers"' in shown
    first.type("y")
    first.until(WHY)
    first.type("int4 has larger scales")
    assert "(2 of 5) flux-mini-b1-fp8wo-eager" in first.until(QUESTION)
    first.type("n")
    assert "(3 of 5)" in first.until(QUESTION)
    first.type("y")  # of the same kind: the reason was given
    assert "accepted: int4 has larger scales" in first.until(QUESTION)
    first.type("q")
    code, said = first.end()

    assert code == 0
    assert "2 accepted, 1 rejected, 2 left" in said
    assert (
        "baseline(cpu): int4 has larger scales\n\n- flux-mini-b1-int4dq-eager: 1 process (provisional)\n"
        in said
    )
    assert grown(root) == [LARGEST_FIRST[0], LARGEST_FIRST[2]]

    again = Terminal(str(run), "--baselines", str(root))
    terminals.append(again)
    shown = again.until(QUESTION)
    assert f"1 rejected before; to be asked again, remove {run}/review.json" in shown
    assert "(1 of 2) flux-mini-b1-int8wo-eager" in shown
    again.type("a")
    again.until(WHY)
    again.type("the same")
    code, said = again.end()

    assert code == 0
    assert "2 accepted" in said
    assert grown(root) == [case for case in LARGEST_FIRST if case != LARGEST_FIRST[1]]
    assert rebaseline(["check", "--baselines", str(root)]) == 0


def test_wrong_keys_explain_themselves_and_ctrl_c_writes_nothing(
    terminals: list[Terminal], root: Path, run: Path
) -> None:
    before = weights(root)
    terminal = Terminal(str(run), "--baselines", str(root))
    terminals.append(terminal)

    terminal.until(QUESTION)
    terminal.type("yes please")
    assert "y - accept: write these numbers as the baseline of the case" in terminal.until(QUESTION)
    terminal.type("")
    assert "q - quit" in terminal.until(QUESTION)
    terminal.type("y")
    terminal.until(WHY)
    terminal.type("")  # back to the question: nothing is accepted without a reason
    terminal.until(QUESTION)
    terminal.press(b"\x03")
    code, said = terminal.end(again=b"\x03")

    assert code == 0
    assert "5 left" in said
    assert "Traceback" not in said
    assert weights(root) == before


def test_end_of_input_quits(terminals: list[Terminal], root: Path, run: Path) -> None:
    terminal = Terminal(str(run), "--baselines", str(root), "--only", FIVE[0].id)
    terminals.append(terminal)

    terminal.until(QUESTION)
    terminal.press(b"\x04")
    code, said = terminal.end()

    assert (code, "1 left" in said) == (0, True)
    assert grown(root) == []


def test_store_that_changed_meanwhile_is_not_written_over(
    terminals: list[Terminal], root: Path, run: Path, tmp_path: Path
) -> None:
    other = write_run(tmp_path / "other", record(0, 0, 0, 0, 9))
    terminal = Terminal(str(run), "--baselines", str(root), "--only", LARGEST_FIRST[0])
    terminals.append(terminal)

    terminal.until(QUESTION)
    accept = ["apply", str(other), "--only", LARGEST_FIRST[0], "--reason", "by somebody else", "--write"]
    assert rebaseline([*accept, "--baselines", str(root)]) == 0
    terminal.type("y")
    terminal.until(WHY)
    terminal.type("mine")
    code, said = terminal.end()

    assert code == 0
    assert "not accepted: the baseline has changed since it was shown: review the run again" in said
    assert "1 could not be accepted" in said
    assert weights(root)[LARGEST_FIRST[0]] == 1090.0


def test_without_a_terminal_it_says_what_to_use_instead(
    root: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rebaseline(["review", str(run), "--baselines", str(root)]) == 2

    said = capsys.readouterr().err
    assert said.startswith("rebaseline: review asks questions, and this is no terminal: `diff RUN` shows")
    assert "apply RUN --only GLOB --reason TEXT --write" in said
