"""Take the code out of a completion."""

from __future__ import annotations

import re

_REASONING = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_FENCE = re.compile(r"```[ \t]*[\w+-]*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


def extract(completion: str) -> str:
    """Return the code of a completion: its last fenced block, else all of it, without reasoning and outer blanks.

    A `<think>` section is dropped. A fence that was never closed, as in a completion that was cut off, runs to the end.
    """
    answer = _REASONING.sub("", completion)
    blocks = _FENCE.findall(answer)
    return (blocks[-1] if blocks else answer).strip()
