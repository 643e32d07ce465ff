"""What the supervisor's child processes have in common."""

import ctypes
import resource
import signal

PR_SET_PDEATHSIG = 1
KILL = signal.SIGKILL
MAX_FILES = 262_144


def as_child() -> None:
    """Run in a child before exec."""
    die_with_parent()
    raise_file_limit()


def die_with_parent(with_signal: int = signal.SIGTERM) -> None:
    """Run in a child: Linux then sends it the signal when its parent is gone, even by kill -9."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(with_signal))


def raise_file_limit() -> None:
    """As many open files as this user may have: mongod keeps some for each type and index, and aborts without; the
    usual limit of a shell, 1024, is less than that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
