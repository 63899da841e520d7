"""Tell the story of a run: load, evaluate, train, evaluate again, report."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from codegym.errors import BackendError, ConfigError, Interrupted, PluginError
from codegym.grading import Grader
from codegym.lanes import Lanes
from codegym.plugins import nearest
from codegym.report import (
    Display,
    RunFolder,
    by_kind,
    compare,
    manifest,
    model_card,
    rollout_record,
    summarise,
)
from codegym.roles import TrainingJob
from codegym.settings import Run
from codegym.types import Example, Rollout

Examples = dict[str, list[Example]]
Report = dict[str, Any]


def run_experiment(
    run: Run, display: Display, *, train: bool, out: Path | None, command: Sequence[str]
) -> tuple[RunFolder, Report]:
    """Evaluate the policy and, if `train`, train it, evaluate it again and save it. Return the folder and the report.

    Everything lands in the folder as soon as it is known. Raises `Interrupted` on Ctrl-C, saying where that is.
    """
    started = datetime.now(UTC)
    if train and not run.policy.trainable:
        policy = run.resolved["policy"]["plugin"]
        raise ConfigError(f'{run.file}: [policy] plugin: "{policy}" cannot be trained; evaluate it with codegym eval')
    stop_on_errors(run)
    folder = RunFolder.create(out, run.name, started)
    try:
        return folder, _Story(run, display, folder, started, list(command)).tell(train)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; {_left(folder, command)}") from None
    except BackendError as error:
        raise BackendError(f"{error}\nthe machine failed, not the model; {_left(folder, command)}") from error


def _left(folder: RunFolder, command: Sequence[str]) -> str:
    """Say what a run that stopped leaves, and what to type."""
    again = shlex.join(["codegym", *command[1:]])
    return (
        f"what was finished is in {folder.path}: evaluations in report.json, every rollout in rollouts/, "
        f"steps in metrics.jsonl, weights in checkpoints/. It cannot be continued yet; to start anew: {again}"
    )


def stop_on_errors(run: Run) -> None:
    """Raise one `ConfigError` with every error that the plugins find in their own settings."""
    errors = [f"{run.file}: [{table}] {finding.text}" for table, finding in run.findings() if finding.level == "error"]
    if errors:
        raise ConfigError(errors)


def load_examples(run: Run, splits: Sequence[str]) -> Examples:
    """Load splits; raise `ConfigError` for one without examples or with two of one id."""
    examples: Examples = {}
    for split in dict.fromkeys(splits):
        with run.blaming("dataset"):
            members = examples[split] = list(run.dataset.load(split))
            ids = [example.id for example in members]
        if strange := [name for name in ids if name.rpartition("/")[0] != split]:
            raise PluginError(f"[dataset], {run.sources['dataset']}: an id is {split}/<row>, not {strange[0]}")
        if len(set(ids)) < len(ids):
            twice = next(name for name in ids if ids.count(name) > 1)
            raise ConfigError(f"{run.file}: [dataset] split {split} has two examples with the id {twice}")
        if not members:
            raise ConfigError(f"{run.file}: [dataset] split {split} has no examples")
    return examples


def cut(run: Run, loaded: Examples, train: bool) -> tuple[Examples, list[Example]]:
    """Return the examples to evaluate by split, and those to train on, each cut to its limit."""
    splits = [*run.evaluation.splits, *([run.evaluation.dev] if train else [])]
    evaluated = {split: loaded[split][: run.evaluation.limit or None] for split in splits if split in loaded}
    return evaluated, loaded.get(run.training.split, [])[: run.training.limit or None] if train else []


def asked_of_policy(run: Run, evaluated: Examples, training: Sequence[Example]) -> list[Example]:
    """Return every example that the policy will be asked for, once for each sample."""
    distinct = {example.id: example for members in (*evaluated.values(), training) for example in members}
    return [example for example in distinct.values() for _ in range(run.evaluation.samples)]


@contextmanager
def open_lanes(run: Run, display: Display) -> Iterator[Lanes]:
    """Open the run's backends on its databases, showing the phase, and close them at the end."""
    settings = run.execution
    with ExitStack() as stack:
        with display.phase(f"open {run.lanes} x {run.resolved['backend']['plugin']}", 1, "backends") as bar:
            lanes = Lanes(run.new_backend, run.databases(), run.lanes, settings.cache, settings.attempts)
            stack.enter_context(lanes)
            bar.advance(1)
        yield lanes


def grade_one(run: Run, display: Display, example: Example, completion: str) -> tuple[Rollout, dict[str, str]]:
    """Grade one completion as the run would; return the rollout and the reasons for the parts of its reward."""
    with open_lanes(run, display) as lanes:
        grader = Grader(lanes, run.guards, run.rewards)
        [rollout] = grader.grade([example], [completion])
        return rollout, grader.reasons(rollout)


@dataclass
class _Story:
    run: Run
    display: Display
    folder: RunFolder
    started: datetime
    command: list[str]
    report: Report = field(default_factory=dict)
    training: list[Example] = field(default_factory=list)
    step: int = 0

    def tell(self, train: bool) -> Report:
        run, folder = self.run, self.folder
        folder.write_toml("run.toml", run.resolved)
        examples = self._load(train)
        record = manifest(run, examples, self.training, run.databases(), self.command, self.started)
        folder.write_json("manifest.json", record)
        self.report = {"name": run.name, "started": record["started"], "note": run.note, "seed": run.seed, "splits": {}}
        try:
            with open_lanes(run, self.display) as lanes:
                grader = Grader(lanes, run.guards, run.rewards)
                if train:  # a misspelt metric must not come to light at the first evaluation on dev
                    self._chosen(summarise(grader.grade(examples[run.evaluation.dev][:1], [""])))
                before = self._evaluate_splits(examples, grader, "before") if run.evaluation.before or not train else {}
                if train:
                    self._train(examples, grader)
                    with run.blaming("policy"), folder.whole_folder("model") as model:
                        run.policy.save(model)
                    after = self._evaluate_splits(examples, grader, "after")
                    self._compare(before, after)
                    folder.write_text("model/README.md", model_card(self.report, record, run.resolved))
                self.report["execution"] = lanes.counters.report()
                with run.blaming("policy"):
                    if figures := dict(run.policy.figures()):
                        self.report["policy"] = figures
        finally:
            run.policy.close()
        self._write_report(finished=True)
        return self.report

    def _load(self, train: bool) -> Examples:
        """Return the examples to evaluate, and keep those to train on."""
        run = self.run
        splits = [*run.evaluation.splits, *([run.evaluation.dev, run.training.split] if train else [])]
        with self.display.phase("load examples", len(set(splits)), "splits") as bar:
            loaded: Examples = {}
            for split in dict.fromkeys(splits):
                loaded |= load_examples(run, [split])
                bar.advance(1)
        examples, self.training = cut(run, loaded, train)
        with run.blaming("policy"):
            run.policy.prepare(asked_of_policy(run, examples, self.training))
        return examples

    def _evaluate_splits(self, examples: Examples, grader: Grader, moment: str) -> dict[str, list[Rollout]]:
        rollouts = {}
        for split in self.run.evaluation.splits:
            rollouts[split] = self._evaluate(f"evaluate {split} {moment}", examples[split], grader, moment=moment)
            summary = summarise(rollouts[split]) | {"kinds": by_kind(rollouts[split])}
            self.report["splits"].setdefault(split, {})[moment] = summary
            self._write_report()
        return rollouts

    def _evaluate(self, title: str, examples: list[Example], grader: Grader, moment: str) -> list[Rollout]:
        """Generate and grade every example, `samples` times each, and record the rollouts."""
        settings = self.run.evaluation
        repeated = [example for example in examples for _ in range(settings.samples)]
        # Whole groups to a batch, so that a policy sees the samples of one example together.
        size = max(1, settings.batch_size // settings.samples) * settings.samples
        split = examples[0].id.rpartition("/")[0] or "examples"
        rollouts: list[Rollout] = []
        with (
            self.folder.lines(f"rollouts/{split}.{moment}.jsonl") as lines,
            self.display.phase(title, len(repeated), "rollouts") as bar,
        ):
            for start in range(0, len(repeated), size):
                batch = repeated[start : start + size]
                with self.run.blaming("policy"):
                    completions = self.run.policy.generate(batch)
                graded = self._execute(grader, batch, completions)
                lines.write(rollout_record(rollout, moment=moment, step=self.step) for rollout in graded)
                rollouts += graded
                bar.advance(len(batch))
        return rollouts

    def _execute(self, grader: Grader, batch: Sequence[Example], completions: Sequence[str]) -> list[Rollout]:
        """Grade a batch, with a bar of its own below that of the evaluation or training."""
        with self.display.phase("execute", len(batch), "rollouts") as bar:
            graded = grader.grade(batch, completions)
            bar.advance(len(batch))
        return graded

    def _train(self, examples: Examples, grader: Grader) -> None:
        run = self.run
        started = time.perf_counter()
        with (
            self.folder.lines("metrics.jsonl") as metrics,
            self.folder.lines("rollouts/train.jsonl") as lines,
            self.display.phase("train", 0, "steps") as bar,
        ):

            def grade(batch: Sequence[Example], completions: Sequence[str]) -> list[Rollout]:
                graded = self._execute(grader, batch, completions)
                lines.write(rollout_record(rollout, moment="train", step=self.step + 1) for rollout in graded)
                return graded

            def log(step: int, steps: int, values: Mapping[str, float]) -> None:
                self.step = step
                metrics.write([{"step": step, "seconds": round(time.perf_counter() - started, 3), **values}])
                shown = [name for name in ("reward", "ems") if name in values]
                bar.move(step, steps, " ".join(f"{name} {values[name]:.3g}" for name in shown))

            def dev_score() -> float:
                title = f"evaluate {run.evaluation.dev} at step {self.step}"
                summary = summarise(self._evaluate(title, examples[run.evaluation.dev], grader, "during"))
                score = self._chosen(summary)
                seconds = round(time.perf_counter() - started, 3)
                metrics.write([{"step": self.step, "seconds": seconds, "dev": summary, "dev_score": score}])
                self.report.setdefault("dev", []).append({"step": self.step, **summary})
                return score

            job = TrainingJob(self.folder.path / "checkpoints", run.seed, dev_score, log)
            with run.blaming("policy"):
                run.policy.train(self.training, grade, job)

    def _chosen(self, summary: Mapping[str, Any]) -> float:
        """Return the metric that chooses the best model; error and refusal rates count downwards."""
        metric = self.run.evaluation.metric
        measured = [name for name, value in summary.items() if isinstance(value, float)]
        if metric not in measured:
            raise ConfigError(
                f"{self.run.file}: [evaluation] metric: no reward measures {metric}{nearest(metric, measured)}"
            )
        return -float(summary[metric]) if metric.endswith("_rate") else float(summary[metric])

    def _compare(self, before: Mapping[str, list[Rollout]], after: Mapping[str, list[Rollout]]) -> None:
        for split in before:
            if "ems" in after[split][0].metrics:
                self.report["splits"][split]["paired"] = compare(before[split], after[split], "ems")

    def _write_report(self, finished: bool = False) -> None:
        self.report["finished"] = datetime.now(UTC).isoformat(timespec="seconds") if finished else ""
        self.folder.write_json("report.json", self.report)
