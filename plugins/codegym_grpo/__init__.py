"""Bring the policies: `grpo` learns, `sft` and `supervised` imitate, the others answer or repeat."""

from __future__ import annotations

import logging

import codegym
from codegym_grpo.inference import Transformers
from codegym_grpo.policy import Grpo
from codegym_grpo.replay import Replay, Scripted
from codegym_grpo.sft_policy import Sft
from codegym_grpo.supervised_policy import Supervised

# While it is imported, which other libraries do, it tells of a kernel for CPUs that nobody asked for.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


@codegym.hookimpl
def codegym_policies() -> dict[str, type[codegym.Policy]]:
    """Return the policies of this plugin by name."""
    return {
        "grpo": Grpo,
        "sft": Sft,
        "supervised": Supervised,
        "replay": Replay,
        "scripted": Scripted,
        "transformers": Transformers,
    }
