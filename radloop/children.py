"""What the supervisor's child processes have in common."""

import ctypes
import signal

PR_SET_PDEATHSIG = 1
KILL = signal.SIGKILL


def die_with_parent(with_signal: int = signal.SIGTERM) -> None:
    """Run in a child: Linux then sends it the signal when its parent is gone, even by kill -9."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(with_signal))
