"""Workers from a process that has imported the stack under test, and computed nothing.

    python -m perf_tests.worker.fork_server --socket-fd N [--once]

Importing takes eight seconds of a processor, a fork a few milliseconds. A forked worker is a process like any
other: it leads its own session, and its parent is the process that asked for it. It shares the addresses of
libraries and the seed of hashes with the other workers of its server.

With `--once` the process is a spare: it becomes the worker itself, and shares nothing.
"""

from __future__ import annotations

import argparse
import gc
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
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
COMPILER = "torch._inductor.compile_fx"
"""The module that only a build which compiles has imported."""


def main() -> None:
    """Fork a worker for each order, until whoever orders them hangs up or ends."""
    parser = argparse.ArgumentParser(prog="python -m perf_tests.worker.fork_server")
    parser.add_argument("--socket-fd", type=int, required=True)
    parser.add_argument("--once", action="store_true")
    arguments = parser.parse_args()
    parent_watch.end_with_parent()
    worker.set_variables()
    orders = socket.socket(fileno=arguments.socket_fd)
    if arguments.once:
        serve_once(orders, prepare, worker.answer)
    else:
        serve(orders, prepare_to_fork, worker.answer)


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
            _require_adopted(order, orders)
            os.setsid()
            _become_worker(order, fds, orders, answer)
        os.waitpid(between, 0)
        for fd in fds:
            os.close(fd)


def serve_once(
    orders: socket.socket, prepare: Callable[[Fork], None], answer: Callable[[int, int], None]
) -> None:
    """Prepare for the first of `orders`, then become the worker that the second asks for."""
    message = orders.recv(MAX_FORK_BYTES)
    if not message:
        return
    prepare(msgspec.json.decode(message, type=Fork))
    message, fds, *_ = socket.recv_fds(orders, MAX_FORK_BYTES, 3)
    if not message:
        return
    order = msgspec.json.decode(message, type=Fork)
    prepare(order)
    _become_worker(order, fds, orders, answer)


def prepare(order: Fork) -> None:
    """Import what the worker will need, and exempt it from garbage collection.

    Exits where importing has done more than that: a worker would have a CUDA context before it holds the
    card, or children with the variables of this process and not its own.
    """
    import torch

    from perf_tests.worker.model import contextless
    from perf_tests.worker.model.lazy import resolve

    with contextless.answered(order.capability):
        for target in (*OF_EVERY_WORKER, *order.imports):
            # What cannot be imported fails again in the worker, which reports it.
            with suppress(Exception):
                resolve(target)
    if torch.cuda.is_initialized():
        sys.exit("importing the stack has initialised CUDA")
    if _has_children():
        sys.exit("importing the stack has started a process")
    gc.collect()
    gc.freeze()


def prepare_to_fork(order: Fork) -> None:
    """Prepare, and find out once for all workers with which vector instructions inductor can compile.

    To tell, it compiles a library and loads it in another process, which takes four seconds of a processor.
    """
    prepare(order)
    if COMPILER in sys.modules:
        from torch._inductor import cpu_vec_isa

        with suppress(AttributeError):  # private: each worker asks where a torch is without it
            cpu_vec_isa.valid_vec_isa_list()


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _fork_orphan() -> None:
    """Continue in a child whose parent has exited: the process that asked for a worker adopts it."""
    parent = os.getpid()
    if os.fork():
        os._exit(0)
    while os.getppid() == parent:
        time.sleep(LOOK_S)


def _require_adopted(order: Fork, orders: socket.socket) -> None:
    """End an orphan that another process has adopted: nobody would wait for it, and its pipes are another
    worker's from now on."""
    if os.getppid() != order.parent:
        orders.send(b"0")
        os._exit(1)


def _become_worker(
    order: Fork, fds: Sequence[int], orders: socket.socket, answer: Callable[[int, int], None]
) -> NoReturn:
    request_fd, reply_fd, output = fds
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.environ.clear()
    os.environ.update(order.variables)
    orders.send(str(os.getpid()).encode())
    orders.close()
    _answer_and_exit(answer, request_fd, reply_fd)


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
