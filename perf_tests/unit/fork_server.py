"""Forks fake workers, and imports nothing that only their parent needs.

python -m perf_tests.unit.fork_server --socket-fd N [--once] [--dies-after COUNT] [--hangs-after COUNT]
"""

from __future__ import annotations

import argparse
import gc
import os
import socket
import sys
import threading
from collections.abc import Sequence

from perf_tests.protocol.messages import Fork
from perf_tests.unit.fake_worker import pictures, serving
from perf_tests.worker import fork_server, parent_watch

SWITCHES = "PERF_FAKE_FORKING"
"""The variable that makes a server of what is forked: its further switches."""


class Misbehaving:
    """A server, or a spare, that obeys so many orders, and then does not."""

    def __init__(self, dies_after: int, hangs_after: int) -> None:
        self._dies_after = dies_after
        self._hangs_after = hangs_after
        self._orders = 0

    def prepare(self, _order: Fork) -> None:
        """Before each fork."""
        self._orders += 1
        if self._orders > self._dies_after:
            sys.stderr.write("it says why\n")
            sys.stderr.flush()
            os._exit(3)
        if self._orders > self._hangs_after:
            threading.Event().wait()


def main() -> None:
    """Import once, then fork one worker per order until the tests hang up."""
    pictures.warm_up()
    gc.collect()
    gc.freeze()  # else the first collection in a worker copies all the memory that it shares
    supply(sys.argv[1:])


def supply(argv: Sequence[str]) -> None:
    """Fork one worker per order, or become one."""
    parser = argparse.ArgumentParser(prog="python -m perf_tests.unit.fork_server")
    parser.add_argument("--socket-fd", type=int, required=True)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--dies-after", type=int, default=sys.maxsize)
    parser.add_argument("--hangs-after", type=int, default=sys.maxsize)
    arguments = parser.parse_args(argv)
    parent_watch.end_with_parent()
    server = Misbehaving(arguments.dies_after, arguments.hangs_after)
    obey = fork_server.serve_once if arguments.once else fork_server.serve
    obey(socket.socket(fileno=arguments.socket_fd), server.prepare, serve)


def serve(request_fd: int, reply_fd: int) -> None:
    """Be a fake worker, or, where a test asked for that, a server that gets its orders by `request_fd`."""
    switches = os.environ.pop(SWITCHES, None)
    if switches is None:
        serving.serve(request_fd, reply_fd)
    else:
        os.close(reply_fd)  # of the same socket, which must be closed once the server has ended
        supply(["--socket-fd", str(request_fd), *switches.split()])


if __name__ == "__main__":
    main()
