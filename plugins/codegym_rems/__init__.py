"""Offer the rewards `rems` and `exact_match` and the guard `no_select_star`."""

from __future__ import annotations

import codegym
from codegym_rems.guard import NoSelectStar
from codegym_rems.rewards import ExactMatch, Rems


@codegym.hookimpl
def codegym_rewards() -> dict[str, type[codegym.Reward]]:
    """Return the paper's composite and the plain exact match."""
    return {"rems": Rems, "exact_match": ExactMatch}


@codegym.hookimpl
def codegym_guards() -> dict[str, type[codegym.Guard]]:
    """Return the guard against queries that return everything."""
    return {"no_select_star": NoSelectStar}
