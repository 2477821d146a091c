"""The command line of a worker."""

from __future__ import annotations

import argparse

from perf_tests.unit.fake_worker.serving import serve


def main() -> None:
    """Read the command line, then `serve`."""
    parser = argparse.ArgumentParser(prog="python -m perf_tests.unit.fake_worker")
    parser.add_argument("--request-fd", type=int, required=True)
    parser.add_argument("--reply-fd", type=int, required=True)
    arguments = parser.parse_args()
    serve(arguments.request_fd, arguments.reply_fd)


if __name__ == "__main__":
    main()
