"""Measure a step of the policy `grpo` against a step of TRL's GRPOTrainer as it comes: same model, settings and reward.

python benchmarks/bench_step.py --rounds 5 --steps 8 --out bench
python benchmarks/bench_step.py --set policy.threads=2

All in one process, one training after the other from the same weights and seed, the rounds interleaved. A step is the
time from one step's report to the next one's, so the first step of each training, which is slower, does not count.
The reward is of the text alone and costs nothing; what execution takes is in the report of a run.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import io
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import torch
import transformers
import trl
from datasets import Dataset
from rich.console import Console
from rich.table import Table

from codegym import CodegymError, Example, Rollout, TrainingJob
from codegym.config import load
from codegym.settings import Run
from codegym_grpo import pinning, trainer
from codegym_grpo.policy import Grpo

TARGET = 1.05
BARE = "TRL's GRPOTrainer"
OURS = {"generate": 'codegym, decode = "generate"', "auto": 'codegym, decode = "auto"'}
PHASES = ("generate", "execute", "train")


class Clock(transformers.TrainerCallback):
    """Notes when each step was reported, in wall and in CPU seconds, and the phases and figures that came with it."""

    def __init__(self) -> None:
        self.reports: list[tuple[float, float]] = []
        self.values: list[Mapping[str, float]] = []

    def report(self, _step: int, _steps: int, values: Mapping[str, float]) -> None:
        """Note one step of ours."""
        self.reports.append((time.perf_counter(), time.process_time()))
        self.values.append(values)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """Note one step of TRL's."""
        if "reward" in logs:
            self.report(state.global_step, state.max_steps, {"completion_tokens": logs["completions/mean_length"]})

    def steps(self) -> list[dict[str, float]]:
        """Return the seconds of each step but the first."""
        found = []
        for before, after, values in zip(self.reports, self.reports[1:], self.values[1:], strict=False):
            phases = {phase: values[f"seconds.{phase}"] for phase in PHASES if f"seconds.{phase}" in values}
            tokens = values["completion_tokens"]
            found.append({"wall": after[0] - before[0], "cpu": after[1] - before[1], "tokens": tokens, **phases})
        return found


def worth(completion: str) -> float:
    """Return a reward that differs between completions: how many characters there are of different kinds."""
    return float(len(set(completion)))


def train_ours(settings: Grpo, decode: str, examples: Sequence[Example], seed: int, folder: Path) -> Clock:
    """Train as a run does, without the database."""

    def grade(asked: Sequence[Example], completions: Sequence[str]) -> list[Rollout]:
        pairs = zip(asked, completions, strict=True)
        return [Rollout(example, text, text, reward=worth(text)) for example, text in pairs]

    clock = Clock()
    policy = dataclasses.replace(settings, decode=decode)
    policy.train(examples, grade, TrainingJob(folder, seed, float, clock.report))
    policy.close()
    return clock


def train_bare(settings: Grpo, examples: Sequence[Example], seed: int, folder: Path) -> Clock:
    """Train as somebody does who uses TRL alone, on the same prompts in the same order."""

    def reward(completions: list[str], **_: Any) -> list[float]:
        return [worth(text) for text in completions]

    clock = Clock()
    laid_out = trainer.lay_out(examples, settings, seed)
    job = TrainingJob(folder, seed, float, clock.report)
    steps = len(laid_out) // settings.prompts_per_step
    transformers.set_seed(seed)
    trl.GRPOTrainer(
        model=settings.model,
        args=trl.GRPOConfig(**pinning.trl_settings(settings, job, steps)),
        reward_funcs=[reward],
        train_dataset=Dataset.from_list([{"prompt": example.prompt} for example in laid_out]),
        peft_config=None if settings.full_finetune else trainer.lora(settings),
        callbacks=[clock],
    ).train()
    return clock


def measure(run: Run, options: argparse.Namespace, console: Console) -> dict[str, list[list[dict[str, float]]]]:
    """Return the steps of each contender, round after round."""
    assert isinstance(run.policy, Grpo)
    settings = dataclasses.replace(run.policy, evaluations=0)
    examples = list(run.dataset.load(run.training.split))[: (options.steps + 1) * settings.prompts_per_step]
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    contenders: dict[str, Callable[[Path], Clock]] = {
        BARE: lambda folder: train_bare(settings, examples, run.seed, folder),
        **{
            name: lambda folder, decode=decode: train_ours(settings, decode, examples, run.seed, folder)
            for decode, name in OURS.items()
        },
    }
    rounds: dict[str, list[list[dict[str, float]]]] = {name: [] for name in contenders}
    for number in range(options.rounds):
        order = list(contenders)[number % len(contenders) :] + list(contenders)[: number % len(contenders)]
        for name in order:
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
                rounds[name].append(contenders[name](Path(folder)).steps())
            gc.collect()
            console.print(f"round {number + 1}, {name}: {_median(rounds[name][-1], 'wall'):.2f} s a step")
    return rounds


def summary(rounds: Mapping[str, Sequence[Sequence[Mapping[str, float]]]]) -> dict[str, dict[str, Any]]:
    """Return each contender's median step, its phases, and its ratio to TRL's step in each round."""
    found = {}
    for name, steps_of_rounds in rounds.items():
        steps = [step for steps in steps_of_rounds for step in steps]
        ratios = {
            clock: [
                _median(ours, clock) / _median(bare, clock)
                for ours, bare in zip(steps_of_rounds, rounds[BARE], strict=True)
            ]
            for clock in ("wall", "cpu")
        }
        medians = {kind: _median(steps, kind) for kind in ("wall", "cpu", "tokens", *PHASES) if kind in steps[0]}
        found[name] = {"seconds": medians, "ratios": ratios}
    return found


def show(found: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """Print the table, and whether the target is met."""
    table = Table("a step", "wall s", "CPU s", "generate", "train", "tokens", "of TRL, wall", "of TRL, CPU", box=None)
    for name, one in found.items():
        seconds, ratios = one["seconds"], one["ratios"]
        phases = [f"{seconds[phase]:.2f}" if phase in seconds else "" for phase in ("generate", "train")]
        spread = [
            f"{statistics.median(ratios[clock]):.3f} ({min(ratios[clock]):.2f}-{max(ratios[clock]):.2f})"
            for clock in ("wall", "cpu")
        ]
        times = [f"{seconds['wall']:.2f}", f"{seconds['cpu']:.2f}"]
        table.add_row(name, *times, *phases, f"{seconds['tokens']:.1f}", *spread)
    console.print(table)
    ratio = statistics.median(found[OURS["generate"]]["ratios"]["wall"])
    console.print(f'{"met   " if ratio <= TARGET else "MISSED"} decode = "generate": {ratio:.3f}, at most {TARGET:g}')


def main(arguments: Sequence[str]) -> None:
    """Measure, print a table, and write step.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path(__file__).with_name("temptabqa.toml"), help="the run file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="steps that count, of each training in each round")
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder for step.json")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore", FutureWarning)  # TRL's own use of transformers
    transformers.logging.disable_progress_bar()
    console = Console(width=120)
    rounds = measure(load(options.run, options.set), options, console)
    found = summary(rounds)
    show(found, console)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__}
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "load": os.getloadavg()[0], **versions}
    options.out.mkdir(parents=True, exist_ok=True)
    result = {"run": options.run.name, "set": options.set, "machine": machine, "summary": found, "rounds": rounds}
    (options.out / "step.json").write_text(json.dumps(result, indent=2))


def _median(steps: Sequence[Mapping[str, float]], kind: str) -> float:
    return statistics.median(step[kind] for step in steps)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except CodegymError as error:
        sys.exit(f"error: {error}")
