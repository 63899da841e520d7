"""Know which of several processes this is, as a launcher (torchrun, accelerate) tells each of them."""

from __future__ import annotations

import os


def processes() -> int:
    """Return how many processes work on the run together, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process among them; the one with 0 writes what all have in common."""
    return int(os.environ.get("RANK", "0"))


def local_processes() -> int:
    """Return how many of them share this machine."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))
