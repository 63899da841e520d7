"""Hold the 47 kinds of question that the release asks, in wordings of this project."""

from __future__ import annotations

from codegym_temptabqa.kinds import ages, counting, listing, sequences
from codegym_temptabqa.kinds.kind import Kind, Slots, query, write

KINDS: dict[int, Kind] = {
    kind.number: kind
    for kind in sorted((*counting.KINDS, *listing.KINDS, *ages.KINDS, *sequences.KINDS), key=lambda kind: kind.number)
}
"""The kinds by their number in the release."""

__all__ = ["KINDS", "Kind", "Slots", "query", "write"]
