"""Give every item of the corpus to the guards, in a process of its own: it may refuse, but not raise, die or hang."""

from __future__ import annotations

import json
import subprocess
import sys

from codegym.testing import corpus, engines

GUARD = """
import json, signal, sys
from codegym import Example
from codegym_rems import AllowedSql, Grounded, NoSelectStar
guards = [NoSelectStar(), Grounded(), AllowedSql()]
for guard in guards:
    guard.check("SELECT 1 + 1 -- read, not known", Example("hostile/0", "", ""))
for line in sys.stdin:
    # CPU seconds, counted by the kernel, which kills the process: compiled code hears no signal handler of Python.
    signal.setitimer(signal.ITIMER_PROF, 2.0)
    reason, *_ = [guard.check(json.loads(line), Example("hostile/0", "", "")) for guard in guards]
    signal.setitimer(signal.ITIMER_PROF, 0.0)
    print(json.dumps(reason), flush=True)
"""


def checked(codes: list[str]) -> tuple[list[str | None], str]:
    """Return what the guard said of each code, up to the one that it died of, and its last words."""
    lines = "".join(json.dumps(code) + "\n" for code in codes)
    done = subprocess.run([sys.executable, "-c", GUARD], input=lines, capture_output=True, text=True, check=False)
    last_words = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    return [json.loads(line) for line in done.stdout.splitlines()], last_words[0]


def test_the_guard_survives_every_item_within_two_seconds() -> None:
    items = [*corpus(), *(item for engine in engines() for item in corpus(engine) if item.engine == engine)]
    killers = []
    while items:
        reasons, last_words = checked([item.text for item in items])
        if len(reasons) < len(items):
            killers.append(f"{items[len(reasons)].name}: {last_words}")
        items = items[len(reasons) + 1 :]
    assert killers == []


def test_a_guard_that_dies_is_told_from_one_that_refuses() -> None:
    assert checked(["SELECT name FROM athlete"])[0] == [None]
    reasons, _ = checked(["SELECT * FROM athlete", "SELECT 1"])
    assert [bool(reason) for reason in reasons] == [True, False]
