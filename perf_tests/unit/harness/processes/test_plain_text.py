"""Text of a worker: what a terminal would obey is spelled out, all else stays as it is."""

from __future__ import annotations

import pytest

from perf_tests.harness.processes.plain_text import COMMANDS, harmless


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("35.2 dB \N{MULTIPLICATION SIGN} 2", "35.2 dB \N{MULTIPLICATION SIGN} 2"),
        ("two\n\tlines", "two\n\tlines"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\u202eb", "a\\u202eb"),
    ],
)
def test_commands_are_spelled_out_and_nothing_else_changes(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_no_command_counts_as_printable() -> None:
    commands = [chr(code) for code in range(0x1_0000) if COMMANDS.match(chr(code))]

    assert len(commands) > 80
    assert [command for command in commands if command.isprintable()] == []
