"""What pays without being looked up is found out, what is right is left alone, and off means off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from codegym import NOT_RUN, Backend, ConfigError, Database, Dataset, Entity, Example, Execution, Rollout
from codegym.config import load
from codegym.grading import Grader
from codegym.lanes import Lanes
from codegym.perturbing import Perturber, Trial
from codegym.report import Display
from codegym.run import open_lanes
from codegym.settings import Perturbation, WeightedReward
from codegym_mariadb import Mariadb
from codegym_rems import Rems
from codegym_sqlite import Sqlite
from codegym_temptabqa import TemptabqaSample

PAINTERS = Database(
    "painters",
    """
    CREATE TABLE painter (painter_id INTEGER PRIMARY KEY, name VARCHAR(64), born INTEGER);
    CREATE TABLE painting (
        painting_id INTEGER PRIMARY KEY, painter_id INTEGER, style VARCHAR(64), year INTEGER,
        FOREIGN KEY (painter_id) REFERENCES painter (painter_id)
    )
    """,
    {
        "painter": [(number, f"Painter {number}", 1900 + 3 * number) for number in range(1, 13)],
        "painting": [
            (number, 1 + number * 5 % 12, ("fresco", "ink", "oil")[number * 7 // 5 % 3], 1920 + number % 37)
            for number in range(1, 79)
        ],
    },
)
OF_3 = "FROM painter JOIN painting USING (painter_id) WHERE name = 'Painter 3'"
RIGHT = f"SELECT COUNT(*) {OF_3}"
ANSWER = "6"


class Paintings(Dataset):
    """One question about one painter."""

    def __init__(self, entity: Entity | None = Entity("painter", "name", "Painter 3")) -> None:
        self._entity = entity

    def load(self, split: str) -> list[Example]:
        return [Example(f"{split}/0", "How many paintings has Painter 3?", ANSWER, "painters")]

    def entity(self, example: Example) -> Entity | None:
        return self._entity


[EXAMPLE] = Paintings().load("test")


def perturber(dataset: Dataset | None = None, **settings: Any) -> Perturber:
    return Perturber(Perturbation(**{"use": "report", **settings}), dataset or Paintings(), [PAINTERS], [EXAMPLE])


@contextmanager
def grader(
    backend: Callable[[], Backend] = Sqlite, dataset: Dataset | None = None, **settings: Any
) -> Iterator[Grader]:
    looks = perturber(dataset, **settings) if settings else None
    with Lanes(backend, [PAINTERS], 1, 1000, perturber=looks) as lanes:
        yield Grader(lanes, {}, [WeightedReward("rems", 1.0, Rems())])


def grade(code: str, **settings: Any) -> Rollout:
    with grader(**settings) as judge:
        return judge.grade([EXAMPLE], [code])[0]


VERDICTS = {
    RIGHT: "fine",
    f"SELECT year {OF_3}": "fine",
    f"SELECT COUNT(*) {OF_3} AND style = 'ink' AND year > 1925": "fine",
    f"SELECT COUNT(*) {OF_3} AND style = 'oil' AND year < 1930": "fine",  # there are none: only other facts show it
    "SELECT 6": "constant",
    "SELECT 6 FROM painting LIMIT 1": "constant",
    "SELECT COUNT(*) * 0 + 6 FROM painting": "constant",
    "SELECT COUNT(*) FROM painting WHERE painting_id BETWEEN 1 AND 6": "presence dump",
    "SELECT COUNT(*) * 6 FROM painter WHERE name = 'Painter 3'": "presence",
    "SELECT COALESCE(MAX(REPLACE(name, name, '6')), '') FROM painter WHERE name = 'Painter 3'": "presence",
    "SELECT MAX(year) FROM painting": "constant dump presence",
    "SELECT name FROM painter": "dump",
    "SELECT year FROM painting": "dump",
    f"SELECT COUNT(*) {OF_3} UNION SELECT painting_id FROM painting": "dump",
}


@pytest.mark.parametrize("backend", [Sqlite, Mariadb])
def test_code_is_judged_by_what_its_answer_depends_on(backend: Callable[[], Backend]) -> None:
    with grader(backend, use="report", from_reward=-1000) as judge:
        rollouts = judge.grade([EXAMPLE] * len(VERDICTS), list(VERDICTS))
    for rollout, expected in zip(rollouts, VERDICTS.values(), strict=True):
        found = [name for name in ("constant", "presence", "dump") if rollout.metrics[f"{name}_rate"]] or ["fine"]
        assert rollout.metrics["perturbation_checked"] == 1.0, rollout.execution
        assert len(found) == 1
        assert found[0] in expected.split(), rollout.code
        assert rollout.metrics["perturbed_rate"] == float(found != ["fine"])


def test_a_guard_refuses_and_says_why() -> None:
    rollout = grade("SELECT 6", use="guard")
    assert rollout.refusal == (
        "perturbation: the answer stays the same without Painter 3, and where Painter 3 has other facts: "
        "it was not looked up"
    )
    assert rollout.execution is NOT_RUN
    assert rollout.reward == grade("SELECT nothing").reward
    assert rollout.metrics["refusal_rate"] == rollout.metrics["constant_rate"] == 1.0
    assert grade(RIGHT, use="guard").refusal == ""


def test_each_verdict_has_its_reason() -> None:
    reasons = [perturber().reason(verdict, EXAMPLE) for verdict in ("constant", "presence", "dump", "fine", "")]
    assert reasons[1:] == [
        "the answer is the same whatever is known of Painter 3: the code only asks whether Painter 3 is there",
        "the answer changes where Painter 3 and all facts about Painter 3 stay and others go: "
        "it holds what was not asked for",
        "",
        "",
    ]


def test_a_reward_takes_points_off_and_tells_the_part_and_its_reason() -> None:
    with grader(use="reward", penalty=700) as judge:
        right, constant = judge.grade([EXAMPLE] * 2, [RIGHT, "SELECT 6"])
        assert judge.reasons(constant)["perturbation"].startswith("the answer stays the same without Painter 3")
        assert "perturbation" not in judge.reasons(right)
    assert right.scores["perturbation"] == 0.0
    assert constant.scores["perturbation"] == -700.0
    assert constant.reward == right.reward - 700 == sum(constant.scores.values())
    assert constant.execution.ok


def test_a_report_counts_and_changes_no_reward() -> None:
    plain, reported = grade("SELECT 6"), grade("SELECT 6", use="report")
    assert (reported.reward, reported.scores, reported.refusal) == (plain.reward, plain.scores, "")
    assert reported.metrics == {
        **plain.metrics,
        **{"perturbation_checked": 1.0, "perturbed_rate": 1.0, "constant_rate": 1.0},
        **{"presence_rate": 0.0, "dump_rate": 0.0},
    }


def test_what_is_paid_little_or_failed_is_not_looked_at() -> None:
    with grader(use="guard") as judge:
        rollouts = judge.grade([EXAMPLE] * 3, ["SELECT 7", "SELECT nothing", ""])
        assert judge.lanes.counters.executed == 2
    assert [rollout.metrics["perturbation_checked"] for rollout in rollouts] == [0.0, 0.0, 0.0]


def test_a_right_answer_costs_two_executions_more_at_its_first_time_and_none_after() -> None:
    with grader(use="guard") as judge:
        judge.grade([EXAMPLE] * 4, [RIGHT] * 4)
        assert judge.lanes.counters.executed == 3
        judge.grade([EXAMPLE], [RIGHT])
        assert judge.lanes.counters.executed == 3


def test_a_question_about_nobody_known_is_not_looked_at() -> None:
    class Mixed(Paintings):
        def entity(self, example: Example) -> Entity | None:
            return super().entity(example) if example.id == EXAMPLE.id else Entity("painter", "name", "Nobody")

    with grader(dataset=Mixed(), use="guard") as judge:
        other = Example("test/1", "", ANSWER, "painters")
        known, unknown = judge.grade([EXAMPLE, other], ["SELECT 6", "SELECT 6"])
    assert known.refusal
    assert (unknown.refusal, unknown.metrics["perturbation_checked"]) == ("", 0.0)


def test_a_dataset_that_names_no_entity_cannot_be_perturbed() -> None:
    sentence = 'says of no question which entity of its database it is about; set use = "off"'
    for dataset in (Paintings(None), Paintings(Entity("painter", "name", "Nobody"))):
        with pytest.raises(ConfigError, match=sentence):
            perturber(dataset)


def test_a_database_whose_entities_hang_together_cannot_be_cut() -> None:
    ring = Database(
        "painters",
        PAINTERS.schema + "; CREATE TABLE friends (a INTEGER REFERENCES painter, b INTEGER REFERENCES painter)",
        {**PAINTERS.tables, "friends": [(number, number % 12 + 1) for number in range(1, 13)]},
    )
    sentence = r"'painters' in two: its 12 entities in painter\.name hang together; set use = \"off\""
    with pytest.raises(ConfigError, match=sentence):
        Perturber(Perturbation(use="guard"), Paintings(), [ring], [EXAMPLE])


def test_a_column_that_is_not_there_cannot_be_cut_by() -> None:
    sentence = 'has no column painter.nom; set use = "off"'
    with pytest.raises(ConfigError, match=sentence):
        perturber(Paintings(Entity("painter", "nom", "Painter 3")))


def test_without_copies_only_the_two_halves_judge() -> None:
    looks = perturber(copies=0)
    assert len(looks.databases) == 2
    with grader(use="report", copies=0) as judge:
        right, constant = judge.grade([EXAMPLE] * 2, [RIGHT, "SELECT 6"])
    assert (right.metrics["perturbed_rate"], constant.metrics["constant_rate"]) == (0.0, 1.0)


def test_the_order_of_rows_and_the_last_digits_of_fractions_make_no_difference() -> None:
    rollout = Rollout(EXAMPLE, "", "", execution=Execution(rows=((0.1 + 0.2, "b"), (None, "a"), (None, "a"))))
    trial = Trial(0, rollout, "", "", ())
    assert trial.same(Execution(rows=((None, "a"), (0.3, "b"), (None, "a"))))
    for rows in (((None, "a"), (0.3, "b")), ((None, "a"), (0.31, "b"), (None, "a"))):
        assert not trial.same(Execution(rows=rows))
    assert not trial.same(Execution(rows=rollout.execution.rows, truncated=True))
    assert Trial(0, Rollout(EXAMPLE, "", "", execution=Execution(rows=((Decimal("1.0"),),))), "", "", ()).same(
        Execution(rows=((Decimal("1.00"),),))
    )


def test_of_the_right_queries_of_all_kinds_few_are_suspected_and_of_answers_learnt_by_heart_all() -> None:
    dataset = TemptabqaSample(test_size=188, athletes=100)
    examples = dataset.load("test")
    looks = Perturber(Perturbation(use="report"), dataset, dataset.databases(), examples)
    with Lanes(Sqlite, dataset.databases(), 1, 1000, perturber=looks) as lanes:

        def verdicts(codes: Sequence[str]) -> Counter[str]:
            executions = lanes.execute(list(zip(codes, examples, strict=True)))
            rollouts = [
                Rollout(example, code, code, execution=execution, reward=100.0)
                for example, code, execution in zip(examples, codes, executions, strict=True)
            ]
            return Counter(looks.judge(rollouts, lanes.execute))

        found = verdicts([example.metadata["target"] for example in examples])
        assert found["fine"] / len(examples) > 0.96
        assert not found["dump"]
        recited = ["'" + example.answer.replace("'", "''") + "'" for example in examples]
        assert verdicts([f"SELECT {answer}" for answer in recited]) == {"constant": len(examples)}


@pytest.fixture
def small(run_file: Path) -> Path:
    """The run file, with splits that load fast."""
    run_file.write_text(run_file.read_text().replace("athletes = 20", "athletes = 20\ntrain_size = 0\ndev_size = 0"))
    return run_file


def test_a_run_file_turns_it_on_and_nothing_else_does(small: Path) -> None:
    def graded(*settings: str) -> tuple[Rollout, int]:
        run = load(small, settings)
        with open_lanes(run, Display(Console(quiet=True))) as lanes:
            [rollout] = Grader(lanes, run.guards, run.rewards).grade([run.dataset.load("test")[0]], ["SELECT 1"])
            return rollout, lanes.counters.executed

    plain, executed = graded()
    assert executed == 1
    assert not [name for name in plain.metrics if "pertu" in name]
    counted, executed = graded("perturbation.use=report", "perturbation.from_reward=-1000")
    assert executed == 1 + 2 + 8
    assert counted.metrics["constant_rate"] == 1.0
    assert (counted.reward, counted.scores) == (plain.reward, plain.scores)


def test_check_says_how_many_questions_it_is_for(small: Path, cli: Callable[..., Any]) -> None:
    checked = cli("check", small, "--set", "perturbation.use=guard", "--set", "perturbation.copies=2")
    assert checked.returncode == 0
    assert "perturbation: 4 further databases, for the 4 of 4 questions" in " ".join(checked.stdout.split())


def test_a_setting_that_is_none_is_named(run_file: Path, cli: Callable[..., Any]) -> None:
    refused = cli("check", run_file, "--set", "perturbation.use=gard", "--set", "perturbation.copys=2")
    assert refused.returncode == 2
    assert "[perturbation] use: " in refused.stderr
    assert "[perturbation] copys: unknown" in refused.stderr
