"""The sample dataset, the kinds of question and the supervised pairs."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing

import pytest

from codegym import ConfigError
from codegym_temptabqa import mistakes
from codegym_temptabqa.kinds import KINDS, query, write
from codegym_temptabqa.pairs import TemptabqaPairs
from codegym_temptabqa.sample import Invention, TemptabqaSample, answer

SLOTS = {
    "name": "Mira O'Vanterpol",
    "medal": "Gold",
    "other": "Bronze",
    "tournament": "Gulf Games (SC)",
    "format": "Women's pairs",
    "year": "2011",
}


@pytest.fixture(scope="module")
def invention() -> Invention:
    return Invention(seed=3, athletes=20)


def test_there_are_the_47_kinds_of_the_release():
    assert len(KINDS) == 47
    assert {1, 78, 96, 1006, 1016} <= KINDS.keys()


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: str(kind.number))
def test_every_query_of_a_kind_runs_and_every_wording_names_what_the_query_asks(kind, invention):
    with closing(invention.connect()) as connection:
        for template in kind.readings + kind.near_misses:
            connection.execute(query(template, SLOTS)).fetchall()
    for wording in kind.wordings + kind.sample_wordings:
        question = write(wording, SLOTS, random.Random(0))
        assert "[" not in question
        for slot in kind.slots:
            assert SLOTS[slot].lower() in question.lower()


def test_the_sample_is_worded_otherwise_than_the_pairs():
    for kind in KINDS.values():
        assert not set(kind.wordings) & set(kind.sample_wordings)


def test_a_quote_in_a_name_is_doubled_in_the_query():
    assert "athlete.name = 'Mira O''Vanterpol'" in query(KINDS[78].readings[0], SLOTS)


def test_ties_are_all_returned(invention):
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(invention.database.schema)
        connection.executescript(
            """INSERT INTO athlete VALUES (1, 'Ada Tumbler'); INSERT INTO tournament VALUES (1, 1, 'Gulf Games');
            INSERT INTO format VALUES (1, 1, 'Team'), (2, 1, 'Singles');
            INSERT INTO medal VALUES (1, 1, 'Gold', 2001, 'Ark'), (2, 2, 'Silver', 2001, 'Bol');
            INSERT INTO medal VALUES (3, 2, 'Gold', 2003, 'Cle')"""
        )
        first_city = query(KINDS[77].readings[0], {"name": "Ada Tumbler"})
        latest = query(KINDS[39].readings[0], {"name": "Ada Tumbler"})
        assert set(answer(connection, first_city).split(", ")) == {"Ark", "Bol"}
        assert answer(connection, latest) == "2003 Cle Gulf Games in Singles format"


def test_the_same_seed_makes_the_same_sample_and_another_seed_another_one():
    first, again, other = TemptabqaSample(), TemptabqaSample(), TemptabqaSample(seed=1)
    assert first.load("dev") == again.load("dev")
    assert first.databases()[0].fingerprint == again.databases()[0].fingerprint != other.databases()[0].fingerprint


def test_the_target_of_a_sample_question_returns_its_answer():
    sample = TemptabqaSample()
    with closing(sample.invention.connect()) as connection:
        for example in sample.load("dev"):
            assert answer(connection, example.metadata["target"]) == example.answer != ""
            assert example.database == "sample"
            assert example.metadata["question"] in str(example.prompt)


def test_a_question_is_about_an_athlete_of_its_database():
    sample = TemptabqaSample()
    known = {name for _, name in sample.databases()[0].tables["athlete"]}
    for example in sample.load("dev"):
        entity = sample.entity(example)
        assert (entity.table, entity.column) == ("athlete", "name")
        assert entity.value in known
        assert entity.value in example.metadata["question"]


def test_no_question_stands_in_two_splits():
    sample = TemptabqaSample()
    targets = [{example.metadata["target"] for example in sample.load(split)} for split in sample.splits()]
    assert sum(map(len, targets)) == len(set.union(*targets))


def test_the_splits_have_the_sizes_of_the_settings_and_all_kinds():
    sample = TemptabqaSample(train_size=100, dev_size=47)
    assert [len(sample.load(split)) for split in ("train", "dev", "test")] == [100, 47, 470]
    assert {int(example.metadata["kind"]) for example in sample.load("dev")} == set(KINDS)


def test_an_unknown_split_is_refused_by_name():
    with pytest.raises(ConfigError, match="temptabqa_sample: no split 'tset'; there are train, dev, test"):
        TemptabqaSample().load("tset")
    with pytest.raises(ConfigError, match="temptabqa_pairs: no split 'test'; there are train, dev"):
        TemptabqaPairs().load("test")


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="temptabqa_sample: no kind 2, 1005; there are 1, 3, 5"):
        TemptabqaSample(kinds=(1, 2, 1005))


def test_too_few_athletes_for_a_kind_are_an_error_and_no_endless_search():
    with pytest.raises(ConfigError, match="sample: no question of kind 78 to be found; raise `athletes`"):
        TemptabqaSample(athletes=1, kinds=(78,)).load("dev") + TemptabqaSample(athletes=1, kinds=(78,)).load("test")


def test_about_half_of_the_pairs_are_right_and_some_are_errors():
    pairs = TemptabqaPairs(size=2000)
    right = errors = 0
    with closing(pairs.invention.connect()) as connection:
        for example in pairs.load("train"):
            kind = KINDS[int(example.metadata["kind"])]
            shapes = {template.split("{")[0] for template in kind.readings}
            right += any(example.metadata["target"].startswith(shape) for shape in shapes)
            try:
                connection.execute(example.metadata["target"])
            except sqlite3.OperationalError:
                errors += 1
    assert 0.5 < right / 2000 < 0.85
    assert 0.1 < errors / 2000 < 0.25


def test_without_noise_every_pair_is_a_right_reading():
    for example in TemptabqaPairs(size=200, noise=0).load("train"):
        kind = KINDS[int(example.metadata["kind"])]
        assert any(example.metadata["target"].startswith(template.split("{")[0]) for template in kind.readings)


def test_a_mistake_leaves_the_name_in_its_place():
    rng = random.Random(0)
    for kind in KINDS.values():
        for _ in range(5):
            assert "Mira O''Vanterpol" in mistakes.mistaken(query(kind.readings[0], SLOTS), rng)
