"""Ends a worker once its parent has ended, no matter how, and no matter what the worker is doing."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import threading
import time

PR_SET_PDEATHSIG = 1  # linux/prctl.h
GRACE_S = 1.0


def hold(request_fd: int) -> None:
    """Watch the parent through the request pipe; call it before the slow imports.

    When the pipe hangs up, the worker has `GRACE_S` to end by itself; then its whole process group is killed.
    The kernel's parent-death signal backs this up, for a main thread that hangs holding the interpreter lock.
    """
    end_with_parent()
    threading.Thread(target=_kill_after_parent, args=(request_fd,), name="parent watch", daemon=True).start()


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread of its parent that has started it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _kill_after_parent(request_fd: int) -> None:
    poller = select.poll()
    poller.register(request_fd, 0)  # hang-ups are always reported; requests belong to the main thread
    poller.poll()
    time.sleep(GRACE_S)
    # A worker that was started by hand shares the group of its shell.
    end = os.killpg if os.getpgrp() == os.getpid() else os.kill
    end(os.getpid(), signal.SIGKILL)
