"""Tell the story of a run: load, evaluate, train, evaluate again, report; and go on with one that was stopped."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from codegym.baselines import baselines, full_marks
from codegym.curriculum import arranged
from codegym.errors import BackendError, ConfigError, Interrupted, PluginError
from codegym.grading import Grader
from codegym.plugins import nearest
from codegym.processes import processes
from codegym.report import (
    Display,
    RunFolder,
    by_kind,
    compare,
    manifest,
    model_card,
    rollout_record,
    stored_rollouts,
    summarise,
    worth,
    write_page,
)
from codegym.resume import Earlier
from codegym.roles import TrainingJob
from codegym.run import Examples, asked_of_policy, cut, known_examples, load_examples, open_lanes, stop_on_errors
from codegym.settings import Run
from codegym.stopping import GracefulStop
from codegym.types import Example, Rollout
from codegym.watching import Watch, cause, divergence_record, told_apart, watched

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
    return folder, _tell(_Story(run, display, folder, started, list(command)), train)


def resume_experiment(
    run: Run, display: Display, earlier: Earlier, *, command: Sequence[str]
) -> tuple[RunFolder, Report]:
    """Go on with a run that was stopped, from its last checkpoint; return as `run_experiment` does.

    What was finished is kept: splits that were evaluated, steps up to the checkpoint. Of a finished run the report is
    returned as it is. Raises `ConfigError` if the data, a plugin, a version or the settings are not what they were.
    """
    folder = earlier.folder
    if earlier.finished:
        display.say(f"{folder.path} is finished: there is nothing to go on with")
        return folder, earlier.report
    stop_on_errors(run)
    story = _Story(run, display, folder, datetime.now(UTC), list(command), earlier)
    return folder, _tell(story, train=bool(earlier.manifest["training"]))


def _tell(story: _Story, train: bool) -> Report:
    folder, command = story.folder, story.command
    with folder.locked():
        try:
            return story.tell(train)
        except KeyboardInterrupt:
            raise Interrupted(f"stopped; {_left(folder, command)}") from None
        except BackendError as error:
            raise BackendError(f"{error}\nthe machine failed, not the model; {_left(folder, command)}") from error


def _left(folder: RunFolder, command: Sequence[str]) -> str:
    """Say what a run that stopped leaves, and what to type."""
    begun = (folder.path / "report.json").is_file()
    again = ["codegym", "run", "--resume", str(folder.path)] if begun else ["codegym", *command[1:]]
    together = f", have your launcher start {processes()} processes with" if processes() > 1 else ""
    return (
        f"what was finished is in {folder.path}: evaluations in report.json, every rollout in rollouts/, "
        f"steps in metrics.jsonl, weights in checkpoints/. To {'go on' if begun else 'start anew'}{together}: "
        f"{shlex.join(again)}"
    )


@dataclass
class _Story:
    run: Run
    display: Display
    folder: RunFolder
    started: datetime
    command: list[str]
    earlier: Earlier | None = None
    report: Report = field(default_factory=dict)
    training: list[Example] = field(default_factory=list)
    step: int = 0

    def tell(self, train: bool) -> Report:
        run, folder = self.run, self.folder
        examples = self._load(train)
        record = self._begin(manifest(run, examples, self.training, run.databases(), self.command, self.started))
        try:
            with open_lanes(run, self.display) as lanes:
                grader = Grader(lanes, run.guards, run.rewards)
                if train:  # a misspelt metric must not come to light at the first evaluation on dev
                    self._chosen(summarise(grader.grade(examples[run.evaluation.dev][:1], [""])))
                before = self._evaluate_splits(examples, grader, "before") if run.evaluation.before or not train else {}
                if train:
                    self._train(examples, grader)
                    if folder.rank == 0:
                        with run.blaming("policy"), folder.whole_folder("model") as model:
                            run.policy.save(model)
                    after = self._evaluate_splits(examples, grader, "after")
                    self._compare(before, after)
                self.report["execution"] = lanes.counters.report()
                self._score_baselines(examples, grader)
                if train:
                    folder.write_text("model/README.md", model_card(self.report, record, run.resolved))
                with run.blaming("policy"):
                    if figures := dict(run.policy.figures()):
                        self.report["policy"] = figures
        finally:
            run.policy.close()
        write_page(folder, self.report)
        self._write_report(finished=True)
        return self.report

    def _begin(self, record: dict[str, Any]) -> dict[str, Any]:
        """Write the manifest down and return it, and begin the report, or take up what an earlier session left."""
        if self.earlier is None:
            self.folder.write_toml("run.toml", self.run.resolved)
            run, started = self.run, record["started"]
            self.report = {"name": run.name, "started": started, "note": run.note, "seed": run.seed, "splits": {}}
            self.report["comparators"] = {}
            for each in run.rewards:
                with run.blaming(f"rewards.{each.label}"):
                    if comparator := each.reward.compares_by():
                        self.report["comparators"][each.label] = comparator
        else:
            self.earlier.refuse_changes(record)
            session = {"started": record["started"], "command": record["command"]}
            record = self.earlier.manifest
            record = {**record, "resumed": [*record.get("resumed", []), session]}
            self.report = self.earlier.report
        self.folder.write_json("manifest.json", record)
        self._write_report()
        return record

    def _load(self, train: bool) -> Examples:
        """Return the examples to evaluate, and keep those to train on."""
        run = self.run
        splits = [*run.evaluation.splits, *([run.evaluation.dev, run.training.split] if train else [])]
        with self.display.phase("load examples", len(set(splits)), "splits") as bar:
            loaded: Examples = {}
            for split in dict.fromkeys(splits):
                loaded |= load_examples(run, [split])
                bar.advance(1)
        examples, training = cut(run, loaded, train)
        self.training, findings = arranged(run, training)
        for finding in findings:
            self.display.say(f"{finding.level}: {finding.text}" if finding.level == "warning" else finding.text)
        with run.blaming("policy"):
            run.policy.prepare(asked_of_policy(run, examples, self.training))
        return examples

    def _evaluate_splits(self, examples: Examples, grader: Grader, moment: str) -> dict[str, list[Rollout]]:
        rollouts = {}
        for split in self.run.evaluation.splits:
            file = f"rollouts/{split}.{moment}.jsonl"
            if moment in self.report["splits"].get(split, {}):  # by an earlier session
                rollouts[split] = stored_rollouts(self.folder.path / file, examples[split])
                continue
            self.folder.remove(file)
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
        dev = examples[run.evaluation.dev]
        watch = Watch(watched(run.evaluation.metric, dev, grader), full_marks(grader, dev))
        self.report["watched"] = {"metric": watch.metric, "full_marks": watch.full_marks}
        self.step, seconds_before = self._rewind(watch)
        started = time.perf_counter() - seconds_before
        with (
            GracefulStop("stopping after this step; once more to stop at once", run.policy.resumable) as stop,
            self.folder.lines("metrics.jsonl") as metrics,
            self.folder.lines("rollouts/train.jsonl") as lines,
            self.display.phase("train", 0, "steps") as bar,
        ):

            def grade(batch: Sequence[Example], completions: Sequence[str]) -> list[Rollout]:
                graded = told_apart(self._execute(grader, batch, completions), run.rewards)
                lines.write(rollout_record(rollout, moment="train", step=self.step + 1) for rollout in graded)
                return graded

            def log(step: int, steps: int, values: Mapping[str, float]) -> None:
                self.step = step
                seconds = round(time.perf_counter() - started, 3)
                metrics.write([{"step": step, "seconds": seconds, **values, **watch.stepped(step, values)}])
                shown = [name for name in ("reward", "ems") if name in values]
                bar.move(step, steps, " ".join(f"{name} {values[name]:.3g}" for name in shown))

            def dev_score() -> float:
                title = f"evaluate {run.evaluation.dev} at step {self.step}"
                rollouts = self._evaluate(title, dev, grader, "during")
                summary = summarise(rollouts)
                score = self._chosen(summary)
                seconds = round(time.perf_counter() - started, 3)
                metrics.write([{"step": self.step, "seconds": seconds, "dev": summary, "dev_score": score}])
                self.report["dev"].append({"step": self.step, **summary})
                if watch.evaluated(self.step, [watch.value(each.metrics, each.reward) for each in rollouts]):
                    self.display.say(self._keep_divergence(watch))
                return score

            ordered = run.training.order != "shuffled"
            job = TrainingJob(self._checkpoints, run.seed, dev_score, log, self.step, lambda: stop.asked, ordered)
            with run.blaming("policy"):
                run.policy.train(self.training, grade, job)
            if stop.asked:
                raise KeyboardInterrupt

    @property
    def _checkpoints(self) -> Path:
        return self.folder.path / "checkpoints"

    def _rewind(self, watch: Watch) -> tuple[int, float]:
        """Forget what was recorded after the last checkpoint, and tell `watch` the rest.

        Return the checkpoint's step, and the seconds of training until then. Both are 0 at the beginning of a run.
        """
        step = self.run.policy.last_checkpoint(self._checkpoints) if self.earlier else 0
        if self.earlier:
            self.display.say(
                f"training goes on after step {step}" if step else "no checkpoint yet: training begins anew"
            )
        if not step:
            self.folder.remove("checkpoints")
        last = step or -1  # what was recorded of step 0 comes again too
        self.folder.rewind("rollouts/train.jsonl", last)
        dev = self.folder.rewind(f"rollouts/{self.run.evaluation.dev}.during.jsonl", last)
        metrics = self.folder.rewind("metrics.jsonl", last)
        self.report["dev"] = [{"step": record["step"], **record["dev"]} for record in metrics if "dev" in record]
        self.report.pop("divergence", None)
        if watch.replay(metrics, dev):
            self._keep_divergence(watch)
        return step, metrics[-1]["seconds"] if metrics else 0.0

    def _chosen(self, summary: Mapping[str, Any]) -> float:
        """Return the metric that chooses the best model; error and refusal rates count downwards."""
        metric = self.run.evaluation.metric
        measured = [name for name, value in summary.items() if isinstance(value, float)]
        if metric not in measured:
            raise ConfigError(
                f"{self.run.file}: [evaluation] metric: no reward measures {metric}{nearest(metric, measured)}"
            )
        return float(worth(metric, summary, summary["reward"]))

    def _compare(self, before: Mapping[str, list[Rollout]], after: Mapping[str, list[Rollout]]) -> None:
        for split in before:
            if "ems" in after[split][0].metrics:
                self.report["splits"][split]["paired"] = compare(before[split], after[split], "ems")

    def _score_baselines(self, examples: Examples, grader: Grader) -> None:
        """Add to each split what no model at all would score."""
        run = self.run
        if self.folder.rank or not run.evaluation.baselines:
            return
        known = self.training or known_examples(run, run.training.split)
        metric = watched(run.evaluation.metric, examples[run.evaluation.splits[0]], grader)
        with self.display.phase("score baselines", len(run.evaluation.splits), "splits") as bar:
            for split in run.evaluation.splits:
                try:
                    self.report["splits"][split]["baselines"] = baselines(grader, examples[split], known, metric)
                except PluginError as error:  # it has scored every rollout; the run must not end on what is no rollout
                    self.display.say(f"warning: {split} has no baselines, for they are answers without code: {error}")
                bar.advance(1)

    def _keep_divergence(self, watch: Watch) -> str:
        """Add to the report that reward and dev part and what is behind it; return the warning, where one is due."""
        if watch.divergence is None or self.folder.rank:
            return ""
        found = cause(self.folder.path, watch.divergence, self.training, self.run.rewards)
        self.report["divergence"] = divergence_record(watch.divergence, found)
        return str(self.report["divergence"]["warning"])

    def _write_report(self, finished: bool = False) -> None:
        self.report["finished"] = datetime.now(UTC).isoformat(timespec="seconds") if finished else ""
        self.folder.write_json("report.json", self.report)
