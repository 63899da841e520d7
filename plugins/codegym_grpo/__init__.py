"""Bring the policies: `grpo` learns, `supervised` imitates, `transformers` answers, `replay` and `scripted` repeat."""

from __future__ import annotations

import codegym
from codegym_grpo.inference import Transformers
from codegym_grpo.policy import Grpo
from codegym_grpo.replay import Replay, Scripted
from codegym_grpo.supervised_policy import Supervised


@codegym.hookimpl
def codegym_policies() -> dict[str, type[codegym.Policy]]:
    """Return the policies of this plugin by name."""
    return {
        "grpo": Grpo,
        "supervised": Supervised,
        "replay": Replay,
        "scripted": Scripted,
        "transformers": Transformers,
    }
