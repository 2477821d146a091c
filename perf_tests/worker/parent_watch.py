"""Ends a worker whose parent is gone, however the parent ended and whatever the worker is busy with."""

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
    """Tie this process to the other end of its request pipe; call it before the slow imports.

    When the pipe hangs up, the worker has `GRACE_S` to end by itself, then its whole group is killed. The
    kernel's parent-death signal backs that up, for a main thread that hangs and holds the interpreter lock.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_outlive, args=(request_fd,), name="parent watch", daemon=True).start()


def _outlive(request_fd: int) -> None:
    poller = select.poll()
    poller.register(request_fd, 0)  # hang-up is always reported; requests are the main thread's
    poller.poll()
    time.sleep(GRACE_S)
    # A worker started by hand shares the group of whatever started it.
    end = os.killpg if os.getpgrp() == os.getpid() else os.kill
    end(os.getpid(), signal.SIGKILL)
