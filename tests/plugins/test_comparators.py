"""What "equal" means is a setting with a name, and each preset does what the evaluation does that it is named after."""

import itertools
import json
import random
import time
from collections import Counter
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from codegym import ConfigError, Example, Execution, Rollout
from codegym.config import load
from codegym.disagreements import disagreements
from codegym.report import Display, RunFolder, disagreements_examples, disagreements_tables, rollout_record
from codegym_rems import ExactMatch, Rems
from codegym_rems.answers import compare
from codegym_rems.columns import same_table
from codegym_rems.comparators import Comparator
from codegym_rems.comparing import ByRules, comparing

FROM_ROWS = {"reference": "rows"}


def example(answer, **metadata):
    return Example("sample/0", "Who?", answer, "sample", metadata)


def compared(comparator, answer, rows, **metadata):
    return comparing(comparator).compare(example(answer, **metadata), rows)


def exact(comparator, gold, rows, **metadata):
    """Compare with reference rows, or with a reference text."""
    answer = gold if isinstance(gold, str) else json.dumps(gold)
    return compared(comparator, answer, rows, **metadata).exact


def comparator(**settings):
    return TypeAdapter(Rems).validate_python({"comparator": settings}).comparator


# The release's scripts


def script(generated, gold):
    """REMS, unrounded: a gold part matches an equal part, or one that holds it between spaces."""
    parts = [part.strip() for part in generated.split(",")]
    wanted = [part.strip() for part in gold.split(",")]
    return sum(any(g == p or f" {g} " in f" {p} " for p in parts) for g in wanted) / len(wanted)


NASTY = [
    "a",
    "b",
    "a b",
    "b  a",
    " a",
    "",
    " ",
    ",",
    ", ,",
    "1",
    "1.0",
    "A",
    "ab",
    "a,b",
    "\0",
    "a \0 b",
    "é",
    "'",
    "\n",
]


def nasty_text(chance):
    return chance.choice([",", ", ", " ", " ,  "]).join(chance.choices(NASTY, k=chance.randint(0, 6)))


def test_the_releases_presets_are_its_scripts_to_the_digit():
    chance = random.Random(1)
    for _ in range(6000):
        gold, generated = nasty_text(chance), nasty_text(chance)
        rows = [tuple(row.split("\t")) for row in generated.split(",")]  # text in one cell or in rows, all the same
        rows = chance.choice([rows, [(generated,)]])
        rems, ems = (Rems(comparator=Comparator(preset)) for preset in ("release_rems", "release_ems"))
        rollout = answered(gold, *rows)
        expected = script(generated, gold)
        assert rems.metrics(rollout)["rems"] == round(expected, 2), (gold, generated)
        assert ems.metrics(rollout)["ems"] == (1 if expected == 1 else 0)
        assert ems.metrics(rollout)["rems"] == expected


def test_399_of_400_parts_are_a_printed_rems_of_1_and_no_exact_match():
    gold = ", ".join(map(str, range(400)))
    rows = [(number,) for number in range(1, 400)]
    assert compared(Comparator("release_rems"), gold, rows).exact
    assert not compared(Comparator("release_ems"), gold, rows).exact


def answered(answer, *rows, **metadata):
    return Rollout(example(answer, **metadata), "", "SELECT 1", execution=Execution(rows=rows))


# BIRD and Spider


CELLS = [0, 1, 2, 1.0, 0.5, "1", "a", "A", "a ", "", None]


def table(chance, width):
    return [tuple(chance.choices(CELLS, k=width)) for _ in range(chance.randint(0, 4))]


def relative(chance, gold, width):
    """Return a table that is often the same one in another order, or nearly."""
    rows = [tuple(row) for row in chance.sample(gold, len(gold))]
    if chance.random() < 0.6:
        order = chance.sample(range(width), width)
        rows = [tuple(row[index] for index in order) for row in rows]
    if rows and chance.random() < 0.3:
        rows.append(chance.choice(rows))
    if rows and chance.random() < 0.3:
        rows[0] = (*rows[0][:-1], chance.choice(CELLS))
    return rows if chance.random() < 0.9 else table(chance, chance.randint(1, 4))


def pairs(seed, count):
    chance = random.Random(seed)
    for _ in range(count):
        width = chance.randint(1, 4)
        gold = table(chance, width)
        yield gold, relative(chance, gold, width)


def test_bird_ex_is_equality_of_two_python_sets():
    bird = Comparator("bird_ex", "rows")
    verdicts = Counter()
    for gold, rows in pairs(2, 4000):
        expected = set(gold) == set(rows)
        verdicts[expected] += 1
        assert exact(bird, gold, rows) == expected, (gold, rows)
    assert min(verdicts.values()) > 500


def every_order(gold, rows, ordered):
    """Say whether any order of the columns makes the bags, or the lists, the same; as slow as it looks."""
    if not gold or not rows or len(gold[0]) != len(rows[0]):
        return gold == rows
    orders = itertools.permutations(range(len(rows[0])))
    tables = ([tuple(row[index] for index in order) for row in rows] for order in orders)
    return any(gold == other if ordered else Counter(gold) == Counter(other) for other in tables)


@pytest.mark.parametrize("target", ["SELECT a FROM t", "SELECT a FROM t Order By a"])
def test_spider_exec_is_equality_under_some_order_of_the_columns(target):
    spider = Comparator("spider_exec", "rows")
    verdicts = Counter()
    for gold, rows in pairs(3, 3000):
        expected = every_order(gold, rows, ordered="Order" in target)
        verdicts[expected] += 1
        assert exact(spider, gold, rows, target=target) == expected, (gold, rows)
    assert min(verdicts.values()) > 500


def shuffled(chance, rows):
    order = chance.sample(range(len(rows[0])), len(rows[0]))
    return [tuple(row[index] for index in order) for row in chance.sample(rows, len(rows))]


@pytest.mark.parametrize("cells", [2, 3, 100])
@pytest.mark.parametrize("width", [12, 40])
def test_twelve_columns_in_any_order_take_milliseconds(width, cells):
    chance = random.Random(4)
    gold = [tuple(chance.randrange(cells) for _ in range(width)) for _ in range(60)]
    other = shuffled(chance, gold)
    row, low, high = next(
        (row, low, high)
        for row in range(60)
        for low, high in itertools.combinations(range(width), 2)
        if other[row][low] != other[row][high]
    )
    cells_of_row = list(other[row])
    cells_of_row[low], cells_of_row[high] = cells_of_row[high], cells_of_row[low]
    swapped = [*other[:row], tuple(cells_of_row), *other[row + 1 :]]
    started = time.process_time()
    assert same_table(gold, other, ordered=False)
    assert not same_table(gold, swapped, ordered=False)
    assert time.process_time() - started < 0.2  # 12! orders are 479 million


def latin(add):
    """Return a table of a group: every row and every column holds every cell once."""
    return [tuple(add(row, column) for column in range(12)) for row in range(12)]


def cycles(length):
    """Return 24 rows of two ones each, that hang together in cycles."""
    steps = [(row, row - row % length + (row + 1) % length) for row in range(24)]
    return [tuple(int(column in step) for column in range(24)) for step in steps]


@pytest.mark.parametrize(
    ("gold", "other"),
    [
        (latin(lambda row, column: (row + column) % 12), latin(lambda a, b: (a // 6 + b // 6) % 2 * 6 + (a + b) % 6)),
        (cycles(24), cycles(12)),
        ([(1,) * 12 for _ in range(50)], [(1,) * 12 for _ in range(49)] + [(1,) * 11 + (2,)]),
    ],
    ids=["groups", "cycles", "all the same"],
)
def test_tables_whose_rows_and_columns_look_alike_are_told_apart_in_time(gold, other):
    chance = random.Random(5)
    started = time.process_time()
    assert same_table(gold, shuffled(chance, gold), ordered=False)
    assert not same_table(gold, shuffled(chance, other), ordered=False)
    assert time.process_time() - started < 0.5


def test_a_search_that_takes_too_long_gives_up(monkeypatch):
    other = shuffled(random.Random(5), cycles(24))
    monkeypatch.setattr("codegym_rems.columns.CELLS", 10_000)
    assert same_table(cycles(24), cycles(24), ordered=False)  # nothing to search
    assert not same_table(cycles(24), other, ordered=False)


# Rules


def test_the_rules_of_strict_say_what_the_default_says():
    by_rules, chance = ByRules(Comparator()), random.Random(6)
    words = ["a", "b", "a b", "b a", "1", "1.0", "2.33", "7.5", "", " ", "-0", "x a y", None, 7 / 3, 1, Decimal("1.00")]
    for _ in range(6000):
        answer = chance.choice([",", ", "]).join(str(chance.choice(words)) for _ in range(chance.randint(0, 4)))
        rows = [tuple(chance.choices(words, k=chance.randint(1, 2))) for _ in range(chance.randint(0, 4))]
        ours, default = by_rules.compare(example(answer), rows), compare(answer, rows)
        assert (ours.exact, ours.f1) == (default.exact, pytest.approx(default.f1)), (answer, rows)


@pytest.mark.parametrize(
    ("settings", "gold", "rows", "equal"),
    [
        ({"columns": "joined"}, "Rio 2016", [("Rio", 2016)], True),
        ({"columns": "joined"}, [["a , b"]], [("a",), ("b",)], False),
        ({"columns": "cells"}, "Rio, 2016", [("Rio", 2016)], True),
        ({"columns": "cells", "rows": "bag"}, "Rio, 2016", [("Rio", 2016), ("Rio", 2016)], False),
        ({"columns": "position"}, [["Rio", 2016]], [("Rio", 2016)], True),
        ({"columns": "position"}, [["Rio", 2016]], [(2016, "Rio")], False),
        ({"columns": "permuted"}, [["Rio", 2016]], [(2016, "Rio")], True),
        ({"columns": "permuted"}, [["Rio", 2016], ["Oslo", 2]], [(2016, "Rio"), ("Oslo", 2)], False),
        ({"rows": "set"}, "1", [(1,), (1,)], True),
        ({"rows": "bag"}, "1", [(1,), (1,)], False),
        ({"rows": "bag"}, "2, 1, 1", [(1,), (1,), (2,)], True),
        ({"rows": "list"}, "2, 1", [(1,), (2,)], False),
        ({"rows": "list"}, "2, 1", [(2,), (1,)], True),
        ({"rows": "as_target"}, "2, 1", [(1,), (2,)], True),
        ({"columns": "position", "values": "typed"}, [[1]], [("1",)], False),
        ({"columns": "position", "values": "text"}, [[1]], [("1",)], True),
        ({"columns": "position", "values": "typed"}, [[1, 0.5]], [(Decimal("1.00"), Decimal("0.50"))], True),
        ({"columns": "position", "values": "typed"}, [["2030-01-02"]], [(date(2030, 1, 2),)], True),
        ({"columns": "position", "values": "typed"}, "1, 0.5", [("1",), (0.5,)], True),  # a text has no types
        ({"numbers": "digits"}, "2.33", [(7 / 3,)], True),
        ({"numbers": "value"}, "2.33", [(7 / 3,)], False),
        ({"numbers": "value", "number_tolerance": 0.01}, "2.33", [(7 / 3,)], True),
        ({"number_tolerance": 0.5}, "10, 20", [(10.5,), (19.6,)], True),
        ({"number_tolerance": 0.5}, "10, 20", [(10.5,), (20.6,)], False),
        ({"number_tolerance": 0.5}, "10", [(10.5,), (9.5,)], False),  # two numbers never share one of the reference
        ({"number_tolerance": 5, "rows": "bag"}, "10, 10", [(11,), (9,)], True),
        ({"number_tolerance": 1, "columns": "permuted", "rows": "bag"}, [[1, "a"]], [("a", 1.5)], True),
        ({"number_tolerance": 1, "columns": "position", "values": "typed"}, [["1", 1]], [("1.5", 1.5)], False),
        ({"null": "skip", "columns": "position"}, [[1]], [(None, 1), (None,)], True),
        ({"null": "value", "columns": "position"}, [[1]], [(None, 1)], False),
        ({"null": "value", "columns": "position"}, [[None, 1]], [(None, 1)], True),
        ({"null": "value"}, "NULL 1", [(None, 1)], True),
        ({"null": "skip", "columns": "permuted"}, [["a", None], [1, "b"]], [("b", 1), (None, "a"), (None, None)], True),
        ({"null": "skip", "columns": "permuted"}, [["a", None], [1, "b"]], [("b", 1), ("a", None)], False),
        ({"null": "skip", "columns": "permuted"}, [[1], [2]], [(None, 1), (2, None)], True),
        ({"case": "exact"}, "yes", [("YES",)], False),
        ({"case": "fold"}, "Straße", [("STRASSE",)], True),
        ({"space": "collapse"}, "a  b", [(" a b ",)], True),
        ({"space": "strip"}, "a  b", [(" a b ",)], False),
        ({"space": "strip"}, "a", [(" a ",)], True),
        ({"space": "exact"}, "a", [(" a",)], False),
        ({"empty": "unequal"}, "", [], False),
        ({"empty": "equal"}, "", [], True),
        ({"empty": "equal"}, "", [(None,)], True),
        ({"empty": "equal"}, "", [(1,)], False),
        ({"empty": "equal"}, "1", [], False),
    ],
)
def test_a_rule_decides(settings, gold, rows, equal):
    reference = {} if isinstance(gold, str) else FROM_ROWS
    assert exact(comparator(**reference, **settings), gold, rows) is equal


def test_recall_and_f1_count_rows_as_often_as_the_rule_has_it():
    gold = [["Rio", 1], ["Oslo", 2]]
    once = compared(comparator(preset="bird_ex", **FROM_ROWS), json.dumps(gold), [("Rio", 1), ("Rio", 1)])
    often = compared(comparator(preset="spider_exec", **FROM_ROWS), json.dumps(gold), [(1, "Rio"), (1, "Rio")])
    assert (once.recall, once.f1) == (0.5, pytest.approx(2 / 3))
    assert (often.recall, often.f1) == (0.5, 0.5)


# Settings, figures, words


@pytest.mark.parametrize("reward", [Rems, ExactMatch])
def test_a_preset_is_named_or_is_a_table_with_rules_that_differ(reward):
    adapter = TypeAdapter(reward)
    assert adapter.validate_json("{}").compares_by() == "strict"
    assert adapter.validate_json('{"comparator": "bird_ex"}', strict=True).comparator == Comparator("bird_ex")
    table = '{"comparator": {"preset": "bird_ex", "reference": "rows", "rows": "bag"}}'
    assert adapter.validate_json(table, strict=True).compares_by() == "bird_ex (reference = rows, rows = bag)"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("bird", "Input should be 'strict', 'release_rems', 'release_ems', 'bird_ex' or 'spider_exec'"),
        ({"rows": "tuple"}, "Input should be 'set', 'bag', 'list' or 'as_target'"),
        ({"rowz": "set"}, "rowz"),
        ({"number_tolerance": -1}, "greater than or equal to 0"),
        ({"preset": "release_ems", "rows": "set", "case": "fold"}, '"release_ems" is a script .*leave out rows, case'),
    ],
)
def test_a_comparator_that_makes_no_sense_is_told(setting, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(Rems).validate_python({"comparator": setting})


@pytest.mark.parametrize("answer", ["2012", "[2012]", '{"a": 1}', "[[1]"])
def test_a_reference_that_is_no_list_of_rows_is_told(answer):
    with pytest.raises(ConfigError, match=r'reference = "rows" needs answers such as \[\["Rio", 2016\]\]'):
        compared(Comparator("bird_ex", "rows"), answer, [(1,)])


def test_figures_keep_the_releases_names_only_where_they_are_the_releases():
    found = answered("Rio, 2016", ("Rio",), (2016,), ("Oslo",))
    names = {"ems": 0.0, "rems": 1.0, "ems_release": 1.0, "f1": pytest.approx(0.8)}
    assert Rems().metrics(found).items() >= names.items()
    assert Rems(comparator=Comparator("release_ems")).metrics(found).items() >= {**names, "ems": 1.0}.items()
    bird = Rems(comparator=Comparator("bird_ex")).metrics(found)
    assert bird.items() >= {"ems": 0.0, "recall": 1.0, "f1": pytest.approx(0.8)}.items()
    assert not {"rems", "ems_release"} & bird.keys()


def test_a_reward_pays_by_its_comparator_and_says_so():
    twice = answered("[[2012]]", (2012,), (2012,))
    by_set, by_bag = (Rems(comparator=comparator(**FROM_ROWS, preset=name)) for name in ("bird_ex", "spider_exec"))
    assert sum(by_set.score(twice).values()) == 1101
    assert by_bag.score(twice) == {"executes": 1.0, "partial": pytest.approx(200 / 3), "exact": 0.0}
    assert by_set.explain(twice)["exact"] == "equal, as bird_ex (reference = rows) compares"
    assert ExactMatch(comparator=comparator(**FROM_ROWS, preset="bird_ex")).score(twice) == 1.0


def test_a_reward_judges_by_its_own_comparator_first_and_by_every_preset():
    own = Rems(comparator=comparator(case="fold"))
    judged = own.comparisons(answered("yes", ("YES",), ("yes",)))
    assert list(judged) == ["strict (case = fold)", "strict", "release_rems", "release_ems", "bird_ex", "spider_exec"]
    assert list(judged.values()) == [True, False, True, True, False, False]
    assert own.comparisons(Rollout(example("yes"), "", "", refusal="no code")) == {}


def test_ten_thousand_rows_are_compared_in_linear_time():
    gold = json.dumps([[2000 + index, index / 3] for index in range(16)])
    rows = [(2000 + number % 20, number / 3, "Rio") for number in range(10_000)]
    for preset in ("release_rems", "bird_ex", "spider_exec"):
        started = time.process_time()
        compared(Comparator(preset, "rows"), gold, rows)
        assert time.process_time() - started < 0.5  # 30 ms on an idle machine
    started = time.process_time()
    compared(comparator(**FROM_ROWS, columns="position", number_tolerance=0.01), gold, rows)
    assert time.process_time() - started < 1


# codegym compare-metrics


RUN_FILE = """
name = "mine"
dataset = { plugin = "temptabqa_sample", athletes = 20, test_size = 3 }
policy = { plugin = "scripted", completions = ["SELECT 1"] }
backend = { plugin = "sqlite" }
rewards.rems.comparator.preset = "bird_ex"
"""


@pytest.fixture
def stored_run(tmp_path):
    """A folder of a run with four answers to one question: right, twice, in other case, and beside another."""
    (tmp_path / "run.toml").write_text(RUN_FILE)
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "rollouts").mkdir()
    run = load(tmp_path / "run.toml")
    asked = next(iter(run.dataset.load("test")))
    parts = [part.strip() for part in asked.answer.split(",")]
    answers = [parts, parts * 2, [part.upper() + "X" for part in parts], [*parts, "more"], parts * 101]
    lines = []
    for answer in answers:
        rows = tuple((part,) for part in answer)
        lines.append(json.dumps(rollout_record(Rollout(asked, "", "SELECT 1", execution=Execution(("a",), rows)))))
    lines.append(json.dumps(rollout_record(Rollout(asked, "", "", refusal="there is no code"))))
    (tmp_path / "rollouts" / "test.before.jsonl").write_text("\n".join(lines) + "\n")
    return run, tmp_path, asked


def test_comparators_are_set_against_each_other_on_the_answers_of_a_run(stored_run, capsys):
    run, path, asked = stored_run
    found = disagreements(run, Display(Console(quiet=True)), path, [])
    assert (found.n, found.left_out) == (4, 1)
    assert found.right == {"bird_ex": 2, "strict": 2, "release_rems": 3, "release_ems": 3, "spider_exec": 1}
    counts = {pair: each.count for pair, each in found.found.items()}
    assert counts[("bird_ex", "spider_exec")] == 1
    assert counts[("release_ems", "spider_exec")] == 2
    assert ("strict", "bird_ex") not in counts
    Console(width=120).print(*disagreements_tables(found))
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["bird_ex", "2", "50.00"] in printed
    assert ["bird_ex", "spider_exec", "1", "25.00", "1", "0"] in printed
    assert ["bird_ex", "strict", "0", "0.00", "0", "0"] in printed
    [twice] = [line for line in disagreements_examples(found) if "bird_ex, not spider_exec" in line]
    assert twice.startswith(f"{asked.id}: reference")


def test_a_run_file_keeps_its_comparator_when_it_is_written_out(stored_run):
    run, path, _ = stored_run
    RunFolder(path).write_toml("run.toml", run.resolved)
    again = load(path / "run.toml")
    assert again.rewards[0].reward.comparator == Comparator("bird_ex")
    assert again.resolved == run.resolved
    assert load(path / "run.toml", ["rewards.rems.comparator.rows=bag"]).rewards[0].reward.comparator.rows == "bag"


def test_a_mistake_in_a_comparator_is_told_with_its_place(stored_run):
    _, path, _ = stored_run
    settings = {"preset": "bird", "rows": "tuple", "tolerance": 1}
    with pytest.raises(ConfigError) as caught:
        load(path / "run.toml", [f"rewards.rems.comparator.{name}={value}" for name, value in settings.items()])
    problems = "\n".join(caught.value.problems)
    assert "[rewards.rems.comparator] preset: must be 'strict', 'release_rems'" in problems
    assert "[rewards.rems.comparator] rows: must be 'set', 'bag', 'list' or 'as_target', got \"tuple\"" in problems
    assert '[rewards.rems.comparator] tolerance: unknown setting of reward "rems"' in problems


def test_compare_metrics_says_what_is_missing(stored_run):
    run, path, _ = stored_run
    display = Display(Console(quiet=True))
    with pytest.raises(ConfigError, match=r"--split tset: .* has no rollouts of it; did you mean test\?"):
        disagreements(run, display, path, ["tset"])
    with pytest.raises(ConfigError, match=r"no answer that a comparator judges: .* such as \[rewards.rems\]"):
        disagreements(replace(run, rewards=[]), display, path, [])


def test_the_command_shows_both_tables_and_the_examples(stored_run, cli):
    _, path, asked = stored_run
    printed = cli("compare-metrics", path, "--split", "test")
    assert printed.returncode == 0, printed.stderr
    assert "what is right of 4 answers; 1 that were not stored as they were are left out" in printed.stdout
    assert f"{asked.id}: reference" in printed.stdout
    own = cli("compare-metrics", path, "--set", "rewards.rems.comparator.rows=bag")
    assert "bird_ex (rows = bag)" in own.stdout


def test_a_report_names_the_comparator_of_each_reward(run_file, cli, tmp_path):
    settings = ["--set", "rewards.rems.comparator=bird_ex", "--set", "evaluation.limit=1"]
    printed = cli("eval", run_file, "--out", tmp_path / "out", *settings)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["comparators"] == {"rems": "bird_ex"}
    assert "bird_ex (rems)" in printed.stdout


def test_what_is_no_run_has_nothing_to_compare(cli, tmp_path):
    refused = cli("compare-metrics", tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        f"error: {tmp_path}: is no folder of a run: it has no run.toml; make one: codegym eval"
    )
