"""Become mariadbd: drop root, bound its memory, die with the owner; run as a script, it imports nothing of codegym."""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(owner: int, user: str, memory_bytes: int, command: list[str]) -> None:
    """Replace this process by `command`, under `user` if one is named; stop if `owner` is no longer the parent."""
    if user:
        account = pwd.getpwnam(user)
        os.initgroups(user, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    if sys.platform == "linux":
        # After the change of user, because that clears the signal.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == owner:
        os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:])
