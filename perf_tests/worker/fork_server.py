"""Forks workers from one process that has imported the stack under test, and computed nothing.

    python -m perf_tests.worker.fork_server --socket-fd N

Importing takes eight seconds of a processor, a fork a few milliseconds. A forked worker is a process like any
other: it leads its own session, and its parent is the process that asked for it. It shares the addresses of
libraries and the seed of hashes with the other workers of its server.
"""

from __future__ import annotations

import argparse
import gc
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import msgspec

from perf_tests.protocol.messages import MAX_FORK_BYTES, Fork
from perf_tests.worker import __main__ as worker
from perf_tests.worker import parent_watch

LOOK_S = 0.001
OF_EVERY_WORKER = (
    "accelerate:init_empty_weights",
    "tokenizers:Tokenizer",
    "torchao.quantization:quantize_",
    "transformers:PreTrainedTokenizerFast",
    "perf_tests.worker.session:WorkerSession",
)
"""What every worker imports for itself, as `"package.module:Name"`."""


def main() -> None:
    """Fork a worker for each order, until whoever orders them hangs up or ends."""
    parser = argparse.ArgumentParser(prog="python -m perf_tests.worker.fork_server")
    parser.add_argument("--socket-fd", type=int, required=True)
    parent_watch.end_with_parent()
    worker.set_variables()
    serve(socket.socket(fileno=parser.parse_args().socket_fd), prepare, worker.answer)


def serve(orders: socket.socket, prepare: Callable[[Fork], None], answer: Callable[[int, int], None]) -> None:
    """Fork a worker for each of `orders` until they end; `prepare` sees each of them before.

    A worker calls `answer` with its ends of the pipes for requests and for replies, and ends with it.
    """
    while True:
        message, fds, *_ = socket.recv_fds(orders, MAX_FORK_BYTES, 3)
        if not message:
            return
        order = msgspec.json.decode(message, type=Fork)
        prepare(order)
        between = os.fork()
        if not between:
            _fork_orphan()
            request_fd, reply_fd, output = fds
            _become_worker(order, output)
            orders.send(str(os.getpid()).encode())
            orders.close()
            _answer_and_exit(answer, request_fd, reply_fd)
        os.waitpid(between, 0)
        for fd in fds:
            os.close(fd)


def prepare(order: Fork) -> None:
    """Import what the worker will need, and exempt it from garbage collection."""
    from perf_tests.worker.model.lazy import resolve

    for target in (*OF_EVERY_WORKER, *order.imports):
        # What cannot be imported fails again in the worker, which reports it.
        with suppress(Exception):
            resolve(target)
    gc.collect()
    gc.freeze()


def _fork_orphan() -> None:
    """Continue in a child whose parent has exited: the process that asked for a worker adopts it."""
    parent = os.getpid()
    if os.fork():
        os._exit(0)
    while os.getppid() == parent:
        time.sleep(LOOK_S)


def _become_worker(order: Fork, output: int) -> None:
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.environ.clear()
    os.environ.update(order.variables)


def _answer_and_exit(answer: Callable[[int, int], None], request_fd: int, reply_fd: int) -> NoReturn:
    code = 0
    try:
        answer(request_fd, reply_fd)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - an interpreter of its own would print it, and exit with 1
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # an orderly exit would first copy most of the memory that it shares


if __name__ == "__main__":
    main()
