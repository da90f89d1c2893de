"""Runs between fork and exec of OpenBao, as a script of its own: `python -I -S launch.py PARENT_PID BAO ARG...`.

A `preexec_fn` would run Python in a forked copy of a process with threads (gRPC has many), which may deadlock; an exec
of this file may not. Imports the standard library only: it runs without site-packages.
"""

import ctypes
import os
import resource
import signal
import sys

# Source: prctl(2).
PR_SET_PDEATHSIG = 1
_PARENT_GONE = 75


def main() -> None:
    """Die with the parent, write no core dump, make private files; then become OpenBao."""
    parent = int(sys.argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the signal was asked for
        raise SystemExit(_PARENT_GONE)
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606


if __name__ == "__main__":
    main()
