"""Be the command line: arguments in, one call, result out."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from codegym.errors import CodegymError, ConfigError
from codegym.processes import rank

if TYPE_CHECKING:
    from codegym.experiment import Report
    from codegym.report import Display, RunFolder
    from codegym.settings import Run

app = typer.Typer(
    name="codegym",
    help="Reinforcement learning of code with execution feedback.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out_console = Console(quiet=rank() > 0)
error_console = Console(stderr=True)
MOST_LISTED = 12
"""How many exploits of one package `codegym plugins` lists by name."""

File = Annotated[Path, typer.Argument(help="The run file, TOML.", show_default=False)]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: policy.learning_rate=1e-5.")
]
Out = Annotated[Path | None, typer.Option(help="The run's folder; else runs/<name>/<time>.", show_default=False)]


@app.callback()
def _options(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False) -> None:
    # Declared for --help; `main` reads it, because an error may come before this is called.
    del debug


@app.command("run")
def run_command(
    file: Annotated[Path | None, typer.Argument(help="The run file, TOML.", show_default=False)] = None,
    sets: Sets = None,
    out: Out = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with a run that was stopped: its folder.")
    ] = None,
) -> None:
    """Train, keep the best model on dev, and evaluate before and after; or go on with a run that was stopped."""
    if resume is None:
        if file is None:
            raise ConfigError("name a run file (codegym run FILE), or a run to go on with (codegym run --resume RUN)")
        _experiment(file, sets, out, train=True)
    elif file or sets or out:
        raise ConfigError("--resume RUN goes on with the settings of that run, and takes no FILE, --set or --out")
    else:
        _resume(resume)


@app.command("eval")
def eval_command(file: File, sets: Sets = None, out: Out = None) -> None:
    """Evaluate the policy as it is, without training."""
    _experiment(file, sets, out, train=False)


@app.command("check")
def check_command(
    file: File,
    sets: Sets = None,
    hostile: Annotated[bool, typer.Option("--hostile", help="Also try what a model might do to the backend.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before trying it on a server of yours.")] = False,
    gold: Annotated[bool, typer.Option("--gold", help="Also look for reference answers that are in doubt.")] = False,
    write_exclude: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write their ids down, to exclude them.", show_default=False)
    ] = None,
) -> None:
    """Check everything that can be known without a model: names, settings, data, backend, answers."""
    from codegym.check import check
    from codegym.report import Display

    if write_exclude and write_exclude.exists():
        raise ConfigError(f"--write-exclude {write_exclude}: is there already; name a new file")
    run, display = _load(file, sets), Display(out_console)
    styles = {"error": "bold red", "warning": "yellow", "note": "green"}
    errors = 0
    for table, finding in check(run, display):
        errors += finding.level == "error"
        out_console.print(
            Text(f"{finding.level:<8}", styles[finding.level]) + Text(f"[{table}] {finding.text}"), soft_wrap=True
        )
    if errors:
        raise ConfigError(f"{file}: {errors} {'error' if errors == 1 else 'errors'}, see above")
    if hostile:
        _try_hostile(run, display, yes)
    if gold or write_exclude:
        _check_gold(run, display, write_exclude)
    display.say(f"{file}: ready to run")


def _try_hostile(run: Run, display: Display, yes: bool) -> None:
    """Try the hostile corpus on the run's backend; a protection that does not hold is an error of the user's set-up."""
    from codegym.testing.probing import Probes, counts, failures_table

    probes = Probes(run)
    if probes.server and not yes:
        typer.confirm(probes.question, abort=True)
    outcomes = probes.outcomes(display)
    display.say(f"hostile items that came out as they should: {counts(outcomes)}")
    if failed := sum(bool(outcome.complaint) for outcome in outcomes):
        out_console.print(failures_table(outcomes))
        raise ConfigError(f"{run.file}: {failed} of {len(outcomes)} hostile items did not, see above")


@app.command("audit")
def audit_command(
    file: File,
    sets: Sets = None,
    limit: Annotated[int, typer.Option(min=1, help="Examples, spread over the first split of evaluation.")] = 200,
    rollouts: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Take honest queries from the rollouts of this run.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Try this exploit; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Try to cheat the reward without a model; exit with 1 if that pays better than honest queries."""
    from codegym.audit import Plan, audit
    from codegym.report import Display, audit_advice, audit_record, audit_table

    run = _load(file, sets)
    found = audit(run, Display(error_console if as_json else out_console), Plan(limit, rollouts, tuple(only or ())))
    if as_json:
        typer.echo(json.dumps(audit_record(found), indent=2))
    else:
        out_console.print(audit_table(found))
        for line in audit_advice(found):
            out_console.print(line, soft_wrap=True)
    if not found.passed:
        raise typer.Exit(1)


def _check_gold(run: Run, display: Display, write_to: Path | None) -> None:
    """Show the reference answers in doubt. They are no error: who compares with published counts keeps them."""
    from codegym.gold import REASONS, check_gold, write_exclusion
    from codegym.report import gold_table

    gold = check_gold(run, display)
    out_console.print(
        gold_table(gold.sizes, [(doubt.example.id, doubt.reason) for doubt in gold.doubts], list(REASONS))
    )
    for reason, meaning in REASONS.items():
        found = [doubt for doubt in gold.doubts if doubt.reason == reason]
        if found:
            display.say(f"{reason}: {meaning}")
        for doubt in found[:3]:
            display.say(f"    {doubt.example.id}: {doubt.detail}")
    if write_to:
        write_exclusion(gold, write_to)
        display.say(f'their ids are in {write_to}; to leave them out: exclude = "./{write_to.name}"')


@app.command("profile")
def profile_command(
    file: File,
    sets: Sets = None,
    samples: Annotated[int, typer.Option(min=1, help="Completions of each question.")] = 8,
    split: Annotated[
        str | None, typer.Option(help="What is profiled; if not named, that of training.", show_default=False)
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Solved if it is 1; if not named, that of evaluation, or ems.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The profile, which is gone on with; if not named, <name>.profile.jsonl.")
    ] = None,
) -> None:
    """Measure how often samples solve each training question, to choose and order them by."""
    from codegym.profile import Plan, profile
    from codegym.report import Display, profile_table

    run, display = _load(file, sets), Display(out_console)
    _show_logs(run)
    plan = Plan.of(run, samples, split, metric, out)
    measured = profile(run, display, plan, sys.argv)
    display.say(f"{run.name}: {plan.samples} samples of each question, solved if {plan.metric} is 1; in %")
    out_console.print(profile_table(measured))
    if plan.samples > 1 and all(each.distinct_completions == 1 for each in measured):
        display.say("warning: the samples of each question are all the same: set a temperature above 0 in [policy]")
    where = plan.out if plan.out.is_absolute() else f"./{plan.out}"
    display.say(f"Everything is in {plan.out}; to train by it: codegym run {file} --set training.profile={where}")


@app.command("score")
def score_command(
    file: File,
    example: Annotated[str, typer.Option(help="Id of the example, <split>/<row>.")],
    code: Annotated[str, typer.Option(help="The completion to grade.")],
    sets: Sets = None,
) -> None:
    """Grade one completion and explain it: extraction, guards, rows, each part of the reward."""
    from codegym.plugins import nearest
    from codegym.report import Display, explain
    from codegym.run import grade_one, load_examples

    run = _load(file, sets)
    split = example.rpartition("/")[0]
    known = run.dataset.splits()
    if known and split not in known:
        raise ConfigError(f"--example {example}: there is no split {split}{nearest(split, known)}")
    found = [candidate for candidate in load_examples(run, [split])[split] if candidate.id == example]
    if not found:
        raise ConfigError(f"--example {example}: the split {split} has no such example")
    out_console.print(explain(*grade_one(run, Display(error_console), found[0], code)))


@app.command("rescore")
def rescore_command(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)],
    file: Annotated[
        Path | None, typer.Option("--with", metavar="FILE", help="A run file; if not named, that of the run.")
    ] = None,
    sets: Sets = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write the rollouts as they are graded now.", show_default=False)
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Execute everything again.")] = False,
) -> None:
    """Grade a run's stored rollouts again under another reward, guard or backend, without the model."""
    from codegym.report import Display, rescore_tables
    from codegym.rescore import rescore

    run, display = _load(file or path / "run.toml", sets), Display(out_console)
    report = rescore(run, display, path, out, sys.argv, fresh)
    how = " --set ".join([report["with"], *(sets or [])])
    display.say(f"{run.name}: {path} as it was graded → by {how}; in %; ρ and τ: rank correlations of the rewards")
    out_console.print(*rescore_tables(report), sep="\n")
    if run.note:
        display.say(run.note)
    reused, executed = report["reused"], report["executed"]
    display.say(f"{reused} stored answers reused, {executed} queries executed, {report['seconds']} s")
    if out:
        display.say(f"Everything is in {out}")


@app.command("compare-metrics")
def compare_metrics_command(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)],
    split: Annotated[
        list[str] | None, typer.Option(help="Answers of this split only; may be repeated.", show_default=False)
    ] = None,
    sets: Sets = None,
) -> None:
    """Show how often comparators disagree on a run's stored answers, with an example of each disagreement."""
    from codegym.disagreements import disagreements
    from codegym.report import Display, disagreements_examples, disagreements_tables

    if not (path / "run.toml").is_file():
        raise ConfigError(f"{path}: is no folder of a run: it has no run.toml; make one: codegym eval FILE --out RUN")
    run, display = _load(path / "run.toml", sets), Display(out_console)
    found = disagreements(run, display, path, split or [])
    left_out = f"; {found.left_out} that were not stored as they were are left out" if found.left_out else ""
    display.say(f"{path}: what is right of {found.n} answers{left_out}")
    out_console.print(*disagreements_tables(found), sep="\n\n")
    for line in disagreements_examples(found):
        display.say(line)


@app.command("plugins")
def plugins_command() -> None:
    """List what is installed, from where, and what failed to load and why."""
    from codegym.plugins import Plugins

    plugins = Plugins()
    table = Table("role", "name", "class", "from", box=None, header_style="bold")
    exploits = Counter(str(offer.source) for offer in plugins.offers if offer.role == "exploit")
    for offer in sorted(plugins.offers, key=lambda offer: (offer.role, offer.name)):
        if exploits[str(offer.source)] > MOST_LISTED and offer.role == "exploit":
            continue
        contested = sum((other.role, other.name) == (offer.role, offer.name) for other in plugins.offers) > 1
        source = Text(str(offer.source)) + Text(" contested: using it is an error" if contested else "", "red")
        table.add_row(offer.role, offer.name, offer.plugin_class.__name__, source)
    for origin, count in exploits.items():
        if count > MOST_LISTED:
            table.add_row("exploit", f"{count} of them", "see codegym audit", origin)
    out_console.print(table)
    for failure in plugins.failures:
        out_console.print(Text(f"failed: {failure.source}: {failure.reason}", "red"))


@app.command("fetch")
def fetch_command(dataset: Annotated[str, typer.Argument(help="Name of a dataset, such as temptabqa.")]) -> None:
    """Bring the data of a dataset to this machine."""
    from codegym.plugins import Plugins
    from codegym.roles import Dataset

    plugin_class, _ = Plugins().find(Dataset, dataset)
    out_console.print(plugin_class().fetch(), highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    """Run the command line; print an error without a traceback and exit with its code."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt)
    sys.unraisablehook = _interrupt_again
    debug = "--debug" in sys.argv
    try:
        app()
    except KeyboardInterrupt:
        _fail("stopped", 130)
    except CodegymError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _interrupt_again(dropped: sys.UnraisableHookArgs) -> None:
    """Deliver Ctrl-C once more if it came while an object was destroyed, where Python drops every exception."""
    if issubclass(dropped.exc_type, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, 0.05)
    else:
        sys.__unraisablehook__(dropped)


def _fail(text: str, exit_code: int) -> None:
    for line in text.splitlines():
        error_console.print(Text("error: ", "bold red") + Text(line), soft_wrap=True)
    sys.exit(exit_code)


def _load(file: Path, sets: list[str] | None) -> Run:
    from codegym.config import load

    return load(file, sets or [])


def _show_logs(run: Run) -> None:
    """Show what the run's plugins log, and the warnings of everybody else, between the bars."""
    packages = {type(plugin).__module__.partition(".")[0] for _, plugin in run.roles()}
    handler = RichHandler(console=out_console, show_time=False, show_path=False, show_level=False, highlighter=None)
    logging.basicConfig(format="%(message)s", handlers=[handler])
    for package in packages:
        logging.getLogger(package).setLevel(logging.INFO)


def _experiment(file: Path, sets: list[str] | None, out: Path | None, *, train: bool) -> None:
    from codegym.experiment import run_experiment
    from codegym.report import Display

    run, display = _load(file, sets), Display(out_console)
    _show_logs(run)
    _show_results(run, display, *run_experiment(run, display, train=train, out=out, command=sys.argv))


def _resume(path: Path) -> None:
    from codegym.experiment import resume_experiment
    from codegym.report import Display
    from codegym.resume import Earlier

    earlier, display = Earlier.read(path), Display(out_console)
    run = _load(path / "run.toml", None)
    _show_logs(run)
    _show_results(run, display, *resume_experiment(run, display, earlier, command=sys.argv))


def _show_results(run: Run, display: Display, folder: RunFolder, report: Report) -> None:
    from codegym.report import results_table

    display.say(f"{run.name}: results in %, with the 95 % interval of the last figure below it")
    out_console.print(results_table(report))
    if run.note:
        display.say(run.note)
    display.say(f"Everything is in {folder.path}")
