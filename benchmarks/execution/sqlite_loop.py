"""Run the queries of a file over and over on a copy of a SQLite file in memory, and print how many a second.

Started by `engines.py`: it says when its copy is ready, and begins when it is told.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from pathlib import Path


def main(database: str, queries: str, seconds: float) -> None:
    """Print "ready", wait for a line, then print queries a second."""
    codes = Path(queries).read_text(encoding="utf-8").split("\0")
    connection = sqlite3.connect(":memory:", isolation_level=None)
    with sqlite3.connect(database) as file:
        file.backup(connection)
    print("ready", flush=True)
    sys.stdin.readline()
    execute = connection.execute
    began, done = time.perf_counter(), 0
    while time.perf_counter() < began + seconds:
        for code in codes:
            execute(code).fetchall()
        done += len(codes)
    print(done / (time.perf_counter() - began))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
