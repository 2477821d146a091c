"""A worker: it holds one build, then ends.

    python -m perf_tests.worker --request-fd N --reply-fd M

Requests and replies are JSON lines on two inherited pipes; stdout and stderr are for people.
"""

from __future__ import annotations

import argparse
import os
import traceback
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any

import msgspec

from perf_tests.protocol import messages
from perf_tests.protocol.base import Struct
from perf_tests.protocol.errors import WorkerError
from perf_tests.protocol.profiles import Profile, Snapshot
from perf_tests.tables.recipes import Activity
from perf_tests.worker import parent_watch

if TYPE_CHECKING:
    from perf_tests.worker.quantizing_session import QuantizingSession
    from perf_tests.worker.training.session import TrainingSession


def main() -> None:
    """Answer on the pipes that the command line names."""
    arguments = _arguments()
    answer(arguments.request_fd, arguments.reply_fd)


def set_variables() -> None:
    """Set the environment variables of this process that packages read while they are imported."""
    # A measuring process reads only the local cache; set before diffusers is imported.
    os.environ["HF_HUB_OFFLINE"] = "1"
    # Otherwise the profiler stays attached after counting kernels, and slows the next workload by 0.3 %.
    os.environ["TEARDOWN_CUPTI"] = "1"


def answer(request_fd: int, reply_fd: int) -> None:
    """Send Ready, then answer one request after another until the parent closes the pipe."""
    parent_watch.hold(request_fd)
    set_variables()
    with (
        os.fdopen(request_fd, "rb") as requests,
        os.fdopen(reply_fd, "wb", buffering=0) as replies,
    ):
        ready, sessions = _start()
        _send(replies, ready)
        handlers: Handlers = {}
        for line in requests:
            request = msgspec.json.decode(line, type=messages.Request)
            if isinstance(request, messages.Load):
                handlers = sessions[request.case.build.activity]
            reply = _answer(request, handlers)
            _send(replies, reply)
            if isinstance(reply, messages.Failure):
                return


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m perf_tests.worker")
    parser.add_argument("--request-fd", type=int, required=True)
    parser.add_argument("--reply-fd", type=int, required=True)
    return parser.parse_args()


Handlers = Mapping[type[Struct], Callable[[Any], messages.Reply]]
"""Type of a request -> what answers it."""


def _start() -> tuple[messages.Ready, Mapping[Activity, Handlers]]:
    # Imported here, once the parent is watched: these imports take seconds, and the parent may end meanwhile.
    # The whole stack, so that no later phase pays for it.
    import torch

    from perf_tests.worker.measure import environment
    from perf_tests.worker.measure.telemetry import GpuMonitor
    from perf_tests.worker.quantizing_session import QuantizingSession
    from perf_tests.worker.session import WorkerSession
    from perf_tests.worker.training.session import TrainingSession

    environment.pin()
    monitor = GpuMonitor() if torch.cuda.is_available() else None
    session = WorkerSession(monitor)
    ready = messages.Ready(
        protocol_version=messages.PROTOCOL_VERSION,
        environment=environment.describe(monitor.describe() if monitor else None),
    )
    generating: Handlers = {
        messages.Load: session.load,
        messages.Quantize: session.quantize,
        messages.Save: session.save,
        messages.Package: session.package,
        messages.Compile: session.compile,
        messages.Generate: session.generate,
        messages.SwitchWorkload: session.switch_workload,
        messages.Inspect: session.inspect,
        Profile: session.profile,
        Snapshot: session.snapshot,
    }
    return ready, {
        Activity.GENERATING: generating,
        Activity.TRAINING: _without_pictures(TrainingSession(monitor)),
        Activity.QUANTIZING: _without_pictures(QuantizingSession(monitor)),
    }


def _without_pictures(session: TrainingSession | QuantizingSession) -> Handlers:
    """Nobody saves, packages or profiles what generates nothing, and no other case shares its worker."""
    return {
        messages.Load: session.load,
        messages.Quantize: session.quantize,
        messages.Compile: session.compile,
        messages.Generate: session.generate,
        messages.Inspect: session.inspect,
    }


def _answer(request: messages.Request, handlers: Handlers) -> messages.Reply:
    try:
        return handlers[type(request)](request)
    except WorkerError as error:
        return error.failure
    except Exception as error:  # noqa: BLE001 - anything that the stack under test raises is a result here
        traceback.print_exc()
        return _failure(error, messages.PHASE_OF_REQUEST[type(request)])


def _failure(error: Exception, phase: messages.Phase) -> messages.Failure:
    text = f"{type(error).__name__}: {error}".strip()
    return messages.Failure(
        kind=_kind(error, phase),
        phase=phase,
        message=text.splitlines()[0][:500],
        details=traceback.format_exc(),
    )


def _kind(error: Exception, phase: messages.Phase) -> messages.FailureKind:
    import torch

    # torch's CPU allocator raises a bare RuntimeError.
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error):
        return messages.FailureKind.OOM
    building = phase in (messages.Phase.LOAD, messages.Phase.QUANTIZE, messages.Phase.COMPILE)
    return messages.FailureKind.LOAD if building else messages.FailureKind.CRASH


def _send(replies: IO[bytes], reply: messages.Reply) -> None:
    data = memoryview(msgspec.json.encode(reply) + b"\n")
    while data:
        data = data[replies.write(data) :]


if __name__ == "__main__":
    main()
