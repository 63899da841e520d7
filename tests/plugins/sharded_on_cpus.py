"""Train with FSDP or DeepSpeed on CPUs, in two processes, for the tests: `sharded_on_cpus.py KIND FOLDER`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import DistributedType
from accelerate.state import AcceleratorState, PartialState
from grpo_runs import FULL, SMALL, Run, grade_lateness, same
from test_grpo_resume import Session

from codegym import ConfigError
from codegym_grpo.policy import Grpo

BEAMS = {"candidates": "beam", "candidate_beams": 8, "threads": 1, "evaluations": 2}
ADAPTER = SMALL | BEAMS | {"learning_rate": 0.01, "lora_dropout": 0.0}
ALL_WEIGHTS = FULL | BEAMS | {"learning_rate": 0.001, "gradient_checkpointing": True}
RESAMPLED = SMALL | {"dtype": "bfloat16", "epochs": 2, "resample_rounds": 2, "temperature": 0.1, "learning_rate": 0.03}


def allow_fsdp_on_cpus() -> None:
    """Let accelerate take CPUs for the devices on which it knows FSDP."""
    original = AcceleratorState.__init__

    def made(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **more: Any) -> None:
        original(self, *args, fsdp_plugin=fsdp_plugin, **more)
        if fsdp_plugin is not None:
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = made


def refuse(folder: Path) -> None:
    """Write down what is said where accelerate has its way."""
    with pytest.raises(ConfigError) as error:
        Run(Grpo(str(folder / "base"), **ALL_WEIGHTS, distributed="fsdp"), folder / "refused")
    (folder / f"refused.{os.environ['RANK']}.txt").write_text(str(error.value))


def figures(run: Run) -> list[dict[str, float]]:
    return [{name: value for name, value in values.items() if "seconds" not in name} for *_, values in run.log]


def train(case: str, settings: dict[str, Any], folder: Path) -> None:
    """Train, and write down what was logged, what dev was answered, and the model."""
    run = Run(Grpo(str(folder / "base"), **settings), folder / case, scores=[0, 1, 2], grade=grade_lateness)
    if int(os.environ["RANK"]) == 0:
        run.policy.save(folder / case / "model")
        found = {"figures": figures(run), "completions": run.completions}
        (folder / f"{case}.json").write_text(json.dumps(found))


def stop_and_go_on(kind: str, folder: Path) -> None:
    """Write down in each process whether a training that one was asked to stop equals one that went through."""
    asked = 2 if os.environ["RANK"] == "1" else 1000
    recipe = RESAMPLED | {"distributed": kind}
    whole = Session(str(folder / "base"), folder / f"whole-{kind}", recipe).go()
    halves = Session(str(folder / "base"), folder / f"halves-{kind}", recipe).go(stop_after=asked)
    stopped_after = halves.step
    halves.go()
    found = {
        "stopped_after": stopped_after,
        "figures": whole.metrics == halves.metrics,
        "rollouts": whole.rollouts == halves.rollouts,
        "weights": same(whole.weights(), halves.weights()),
        "replaced": [record["groups_replaced"] for record in whole.metrics],
        "drawn": len(whole.rollouts),
    }
    (folder / f"resumed-{kind}.{os.environ['RANK']}.json").write_text(json.dumps(found))


def main(kind: str, folder: Path) -> None:
    """Run all of it in two processes, the second of which is forked: what is imported above takes longer."""
    torch.set_num_threads(1)
    second = os.fork()
    rank = "0" if second else "1"
    os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank}
    stop_and_go_on("ddp", folder)
    if kind == "fsdp":
        refuse(folder)
        allow_fsdp_on_cpus()
    train("adapter", ADAPTER | {"distributed": kind}, folder)
    train("full", ALL_WEIGHTS | {"distributed": kind}, folder)
    stop_and_go_on(kind, folder)
    if second:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
