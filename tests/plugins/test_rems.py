"""The reward `rems`, with what people try on it."""

import csv
import datetime
import doctest
import os
import random
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from codegym import Example, Execution, Rollout
from codegym_rems import ExactMatch, Rems
from codegym_rems.answers import compare, predicted_parts

REPOSITORY = Path(__file__).parents[2]
RELEASE = Path(os.environ.get("CODEGYM_DATA", REPOSITORY.parent / "shared")) / "temptabqa-c"
EXAMPLE = Example("sample/0", "Who?", "2012, 2016", "sample")
DUMP = [(number,) for number in range(2030)] + [("Yes",), ("No",)]


def rollout(answer, *rows, **execution):
    return Rollout(Example("sample/0", "Who?", answer), "", "SELECT 1", execution=Execution(rows=rows, **execution))


# What an answer is


@pytest.mark.parametrize(
    ("answer", "rows"),
    [
        ("2012, 2016", [(2016,), (2012,)]),
        ("2012, 2016", [("2012",), (2016.0,), (2012,), (None,)]),
        ("2", [(2,)]),
        ("2", [(2.0,)]),
        ("2", [(Decimal("2.0000"),)]),
        ("2.0", [("2",)]),
        ("-2", [(-2,)]),
        ("0", [(Decimal("-0.00"),)]),
        ("100000000000000000000", [(1e20,)]),
        ("0.3", [(0.1 + 0.2,)]),
        ("3", [(2.9999999999999996,)]),
        ("2.33", [(7 / 3,)]),
        ("2.33", [(Decimal("2.3333"),)]),
        ("2.33, 5", [(5,), (7 / 3,)]),
        ("Olympic Games 2012", [("Olympic Games", 2012)]),
        ("Olympic  Games", [("Olympic Games ",)]),
        ("Relay, Relay , 100 m", [("100 m",), ("Relay",)]),
        ("Łódź", [("Łódź".encode(),)]),
        ("2012-08-01", [(datetime.date(2012, 8, 1),)]),
        (" 2012,", [(2012, None)]),
    ],
)
def test_an_exact_answer_earns_everything(answer, rows):
    scores = Rems().score(rollout(answer, *rows))
    assert scores == {"executes": 1.0, "partial": 100.0, "exact": 1000.0}
    assert sum(Rems(overlap="recall").score(rollout(answer, *rows)).values()) == 1101
    assert ExactMatch().score(rollout(answer, *rows)) == 1.0


@pytest.mark.parametrize(
    ("answer", "rows"),
    [
        ("2", [(2.4,)]),
        ("2", [(Decimal("2.0001"),)]),
        ("2.33", [(2.3,)]),
        ("2.33", [(2.34,)]),
        ("2.33", [(2.331,), (2.332,)]),
        ("2", [(20,)]),
        ("2, 3", [(2,)]),
        ("2", [(2,), (3,)]),
        ("2", [(2, 2)]),
        ("2", [("2 2",)]),
        ("yes", [("Yes",)]),
        ("2012, 2016", [("2012, 2016",)]),
        ("2012, 2016", [("2012 2016",)]),
        ("1", [("True",)]),
        ("2", [("٢",)]),
        ("None", [(None,)]),
        ("2", []),
        ("", []),
        ("", [("",)]),
        (" , ", [(" ",)]),
        ("", [(1,)]),
    ],
)
def test_other_answers_are_not_exact(answer, rows):
    assert not compare(answer, rows).exact
    assert ExactMatch().score(rollout(answer, *rows)) == 0.0


def test_parts_are_rows_without_null_in_one_text_for_every_engine():
    rows = [("Rio", None, 2016), (None, None), ("",), (1.5,), (Decimal("1.50"),), (1e-7,), (float("inf"),), (True,)]
    assert predicted_parts(rows) == ["Rio 2016", "1.5", "1.5", "0.0000001", "Infinity", "True"]


@pytest.mark.parametrize(
    ("answer", "numbers"), [("2.3, 2.33", (2.333, 2.31)), ("2.33, 2.34", (2.335, 2.333)), ("0.5, 0.50", (0.5, 0.52))]
)
def test_decimals_find_their_numbers_in_whatever_order_the_rows_come(answer, numbers):
    one, other = ((number,) for number in numbers)
    assert compare(answer, [one, other]) == compare(answer, [other, one])
    assert compare(answer, [one, other]).exact == (answer != "0.5, 0.50")  # these two are one part


def test_a_number_with_a_million_digits_is_text():
    assert not compare("2.33", [("9" * 1_100_000,)]).exact


# What overlap is worth


@pytest.mark.parametrize(
    ("trick", "answer", "rows", "recall", "at_most"),
    [
        ("both answers in two rows", "Yes", [("Yes",), ("No",)], 1.0, 0.67),
        ("both answers in one row", "Yes", [("Yes", "No")], 1.0, 0.67),
        ("repeated columns", "2012", [(2012, 2012, 2012, 2012)], 1.0, 0.4),
        ("repeated columns, right and wrong", "2012", [(2012, 2016, 2012, 2016)], 1.0, 0.4),
        ("repeated rows", "2012", [(2012,)] * 99 + [(1,)], 1.0, 0.67),
        ("all answers in one cell", "2012, 2016, 2020", [("2012 2016 2020",)], 1.0, 0.5),
        ("everything in one cell", "2012", [(" ".join(map(str, range(2030))),)], 1.0, 0.001),
        ("everything in one cell, commas", "2012", [(",".join(map(str, range(2030))),)], 0.0, 0.0),
        ("the gold part in each of many rows", "Gold", [("Gold", year) for year in range(99)], 1.0, 0.011),
        ("a dump of constants", "7, Yes", DUMP, 1.0, 0.002),
        ("a dump of constants in one row", "7, Yes", [tuple(cell for (cell,) in DUMP)], 1.0, 0.002),
        ("whole rows of a table", "Rio", [(i, "Gold", 2000 + i, "Rio") for i in range(30)], 1.0, 0.02),
        ("nested gold parts", "m, 100 m, Rio 100 m", [("Rio 100 m",)], 1.0, 1.0),
        ("letters of a word", "1", [("2012",)], 0.0, 0.0),
        ("another case", "yes", [("YES",)], 0.0, 0.0),
    ],
)
def test_f1_does_not_pay_for_tricks_that_recall_pays_for(trick, answer, rows, recall, at_most):
    found = compare(answer, rows)
    assert found.recall == recall
    assert found.f1 <= at_most
    assert not found.exact


def test_f1_pays_a_near_answer_in_proportion():
    assert compare("2012, 2016", [(2012,)]).f1 == pytest.approx(2 / 3)
    assert compare("Olympic Games", [("Olympic Games", 2012)]).f1 == pytest.approx(0.8)
    assert compare("2.33, 5", [(7 / 3,)]).f1 == pytest.approx(2 / 3)


def words(chance):
    return [chance.choice(["a", "b", "a b", "b a", "c", "1", "1.0", "2", "", " ", "ab", "x a y"]) for _ in range(4)]


def test_recall_is_the_definition_of_the_release_on_random_answers():
    chance = random.Random(7)
    for _ in range(5000):
        answer = chance.choice([",", ", ", " ,  "]).join(words(chance)[: chance.randint(0, 4)])
        rows = [tuple(words(chance)[: chance.randint(1, 2)]) for _ in range(chance.randint(0, 3))]
        gold = [part.strip() for part in answer.split(",") if part.strip()]
        predicted = [" ".join(row).strip() for row in rows]
        matched = sum(any(g == p or f" {g} " in f" {p} " for p in predicted) for g in gold)
        assert compare(answer, rows).recall == (matched / len(gold) if gold else 0.0)


def test_f1_is_bounded_symmetric_in_rows_and_1_for_exact_answers():
    chance = random.Random(8)
    for _ in range(5000):
        answer = ",".join(words(chance)[: chance.randint(1, 4)])
        rows = [tuple(words(chance)[: chance.randint(1, 2)]) for _ in range(chance.randint(0, 4))]
        found = compare(answer, rows)
        gold, predicted = (len(compare_set) for compare_set in (normal_set(answer.split(",")), normal_set(rows)))
        assert 0.0 <= found.f1 <= (2 * gold / (gold + predicted) if predicted else 0.0)
        assert found.f1 == 1.0 or not found.exact
        assert compare(answer, chance.sample(rows, len(rows))) == found
        assert compare(answer, rows + rows).f1 == found.f1


def normal_set(parts):
    texts = {" ".join((part if isinstance(part, str) else " ".join(part)).split()) for part in parts}
    return {"1" if text == "1.0" else text for text in texts if text}


def test_a_dump_of_constants_pays_under_recall_and_not_under_f1():
    chance = random.Random(9)
    answers = [str(chance.choice([chance.randint(0, 12), chance.randint(1960, 2024), "Yes", "No"])) for _ in range(50)]
    recall, f1 = measured(answers)
    assert recall == 1.0
    assert f1 < 0.001


@pytest.mark.skipif(
    not (RELEASE / "Test_Dataset_with_Splits/Original.tsv").exists(),
    reason="the release is not there: set CODEGYM_DATA to the folder that holds temptabqa-c",
)
def test_a_dump_of_constants_pays_77_percent_of_the_releases_metric():
    csv.field_size_limit(sys.maxsize)
    with open(RELEASE / "Test_Dataset_with_Splits/Original.tsv", newline="", encoding="utf-8") as file:
        answers = [row["Answers"] for row in csv.DictReader(file, delimiter="\t")]
    recall, f1 = measured(answers)
    assert len(answers) == 578
    assert recall == pytest.approx(0.77, abs=0.005)
    assert f1 < 0.002


def measured(answers):
    found = [compare(answer, DUMP) for answer in answers]
    return sum(one.recall for one in found) / len(found), sum(one.f1 for one in found) / len(found)


# No answer


@pytest.mark.parametrize(
    "nothing",
    [
        Rollout(EXAMPLE, "", ""),
        Rollout(EXAMPLE, "", "SELECT *", refusal="SELECT * is refused"),
        Rollout(EXAMPLE, "", "SELECT x", execution=Execution(error="OperationalError", message="no such column: x")),
        rollout("2012", (2012,), truncated=True),
    ],
)
@pytest.mark.parametrize("reward", [Rems(), Rems(overlap="recall"), Rems(error=1, executes=1), ExactMatch()])
def test_refusal_is_never_better_than_the_worst_answer(nothing, reward):
    worst = rollout("2012", ("wrong",))
    assert total(reward.score(nothing)) <= total(reward.score(worst))


def total(score):
    return sum(score.values()) if isinstance(score, dict) else score


def test_without_an_answer_there_is_only_the_error():
    assert Rems().score(Rollout(EXAMPLE, "", "SELECT *", refusal="SELECT * is refused")) == {"error": -100.0}
    assert Rems().score(rollout("2012", (2012,), truncated=True)) == {"error": -100.0}
    assert Rems().score(rollout("2012")) == {"executes": 1.0, "partial": 0.0, "exact": 0.0}


@pytest.mark.parametrize("reward", [Rems(), ExactMatch()])
def test_metrics_are_fractions_of_all_kinds_of_outcome(reward):
    attempts = [
        rollout("2012, 2016", (2012,), (2016,)),
        rollout("2012", (2012,), (2016,)),
        Rollout(EXAMPLE, "", "SELECT *", refusal="SELECT * is refused"),
        rollout("2012", (2012,), truncated=True),
    ]
    names = ("ems", "rems", "f1", "ems_release")
    right, buried, refused, cut_off = ({name: reward.metrics(each)[name] for name in names} for each in attempts)
    assert right == {"ems": 1, "rems": 1, "f1": 1, "ems_release": 1}
    assert buried == {"ems": 0, "rems": 1, "f1": pytest.approx(2 / 3), "ems_release": 1}
    assert refused == cut_off == {"ems": 0, "rems": 0, "f1": 0, "ems_release": 0}


def test_ems_of_the_release_is_not_rounded_up():
    answer = ",".join(map(str, range(400)))
    metrics = Rems().metrics(rollout(answer, *((number,) for number in range(1, 400))))
    assert round(metrics["rems"], 2) == 1.0
    assert metrics["ems_release"] == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"error": 5}, "error = 5 is more than executes = 1: a query that fails would be paid better"),
        ({"exact": -1}, "greater than or equal to 0"),
        ({"error": float("nan")}, "finite number"),
        ({"overlap": "precision"}, "'f1' or 'recall'"),
        ({"exakt": 1}, "exakt"),
    ],
)
def test_settings_that_make_no_sense_are_told(settings, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(Rems).validate_python(settings)


def test_ten_thousand_rows_are_compared_in_linear_time():
    answer = ", ".join(str(year) for year in range(2000, 2016))
    rows = [(number, "Gold", 2000 + number % 20, "Rio de Janeiro") for number in range(10_000)]
    started = datetime.datetime.now()
    compare(answer, rows)
    assert datetime.datetime.now() - started < datetime.timedelta(seconds=0.5)  # 15 ms on an idle machine


def test_the_entry_module_does_not_import_sqlglot():
    code = "import sys, codegym_rems; sys.exit(bool({'sqlglot', 'torch', 'scipy'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_worked_example_of_the_docs_prints_what_it_says():
    result = doctest.testfile(str(REPOSITORY / "docs/rewards.md"), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0


# What `codegym score` says


def test_every_part_of_a_reward_is_explained():
    wrong = rollout("2012, 2016", (2012,), ("Rio",))
    assert Rems().explain(wrong) == {
        "executes": "the query ran to its end",
        "partial": "F1 0.5 of 2 predicted against 2 gold parts",
        "exact": "missing: '2016'; too much: 'Rio'",
    }
    assert Rems().explain(rollout("2012", (2012,)))["exact"] == "the same set of parts"
    assert Rems().explain(rollout("2012", error="OperationalError", message="no such table: x")) == {
        "error": "OperationalError: no such table: x"
    }
    assert Rems().explain(wrong).keys() == Rems().score(wrong).keys()
