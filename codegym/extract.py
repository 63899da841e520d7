"""Take the code out of a completion."""

from __future__ import annotations

import re

_FENCE = re.compile(r"```(?:[ \t]*[\w+-]*[ \t]*\r?\n)?(.*?)(?:```|\Z)", re.DOTALL)


def extract(completion: str) -> str:
    """Return the code of a completion: its last fenced block, else all of it, without reasoning and outer blanks.

    A `<think>` section is dropped, also if its first tag stood in the prompt. A fence that was never closed, as in a
    completion that was cut off, runs to the end; one that holds nothing does not count.
    """
    answer = completion.rpartition("</think>")[2].strip()
    if answer.startswith("<think>"):
        return ""
    if "```" not in answer:
        return answer
    blocks = [block.strip() for block in _FENCE.findall(answer)]
    return next((block for block in reversed(blocks) if block), "")
