"""Copies of a database: nobody's facts are torn apart, no rule is broken, and every copy is one again next time."""

from __future__ import annotations

import re

import pytest

from codegym import Database, PluginError
from codegym.cutting import Cut

PAINTERS = Database(
    "painters",
    """
    CREATE TABLE museum (museum_id INTEGER PRIMARY KEY, town TEXT);
    CREATE TABLE painter (painter_id INTEGER PRIMARY KEY, name TEXT, born INTEGER);
    CREATE TABLE painting (
        painting_id INTEGER PRIMARY KEY, painter_id INTEGER REFERENCES painter, museum_id INTEGER REFERENCES museum,
        title TEXT
    );
    CREATE TABLE sale (painting_id INTEGER REFERENCES Painting (Painting_ID), year INTEGER, price REAL)
    """,
    {
        "museum": [(1, "Aldorf"), (2, "Ellby")],
        "painter": [(number, f"Painter {number}", 1900 + number) for number in range(1, 9)],
        "painting": [(number, 1 + number % 8, 1 + number % 2, f"Picture {number}") for number in range(40)],
        "sale": [(number, 1950 + number, 2.0**number) for number in range(40)],
    },
)
CUT = Cut(PAINTERS, "painter", "name")


def test_every_entity_is_in_one_half_with_all_its_rows_and_what_is_nobodys_is_in_both() -> None:
    first, second = CUT.halves
    for table in ("painter", "painting", "sale"):
        assert sorted([*first.tables[table], *second.tables[table]]) == PAINTERS.tables[table]
    assert first.tables["museum"] == second.tables["museum"] == PAINTERS.tables["museum"]
    for side, half in enumerate(CUT.halves):
        painters = {number: name for number, name, _ in half.tables["painter"]}
        assert painters.keys() == {painter for _, painter, _, _ in half.tables["painting"]}
        assert {painting for painting, _, _ in half.tables["sale"]} == {row[0] for row in half.tables["painting"]}
        assert {CUT.sides[name] for name in painters.values()} == {side}
        assert len(painters) == 4


def test_entities_that_have_a_row_in_common_stay_together() -> None:
    schema = """
    CREATE TABLE team (name TEXT PRIMARY KEY);
    CREATE TABLE game (home TEXT REFERENCES team, guest TEXT REFERENCES team, goals INTEGER)
    """
    teams = [(f"Team {number}",) for number in range(8)]
    games = [("Team 0", "Team 1", 2), ("Team 1", "Team 2", 0), ("Team 3", "Team 4", 1)]
    cut = Cut(Database("games", schema, {"team": teams, "game": games}), "team", "name")
    assert cut.sides["Team 0"] == cut.sides["Team 1"] == cut.sides["Team 2"]
    assert cut.sides["Team 3"] == cut.sides["Team 4"]
    assert set(cut.sides.values()) == {0, 1}
    assert sorted(row for half in cut.halves for row in half.tables["game"]) == sorted(games)


def test_what_refers_to_its_own_table_follows_too() -> None:
    schema = "CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT, boss INTEGER REFERENCES person (id))"
    people = [(1, "Ada", None), (2, "Bela", 1), (3, "Cato", 2), (4, "Dunja", None), (5, None, None)]
    sides = Cut(Database("firm", schema, {"person": people}), "person", "name").sides
    assert sides["Ada"] == sides["Bela"] == sides["Cato"] != sides["Dunja"]


def test_in_odd_copies_the_names_have_moved_and_nothing_else() -> None:
    copy = CUT.copies(1)[0]
    names = {number: name for number, name, _ in copy.tables["painter"]}
    assert sorted(names.values()) == sorted(CUT.sides)
    assert all(name != f"Painter {number}" for number, name in names.items())
    assert [(number, born) for number, _, born in copy.tables["painter"]] == [
        (number, born) for number, _, born in PAINTERS.tables["painter"]
    ]
    assert {name: rows for name, rows in copy.tables.items() if name != "painter"} == {
        name: rows for name, rows in PAINTERS.tables.items() if name != "painter"
    }


def test_a_name_that_others_refer_to_moves_there_too() -> None:
    schema = """
    CREATE TABLE river (name TEXT PRIMARY KEY, km INTEGER);
    CREATE TABLE bridge (river TEXT REFERENCES river, town TEXT);
    CREATE TABLE toll (river TEXT, town TEXT, cents INTEGER, FOREIGN KEY (river, town) REFERENCES bridge (river, town))
    """
    tables = {
        "river": [("Aar", 1), ("Bode", 2)],
        "bridge": [("Aar", "Aldorf"), ("Bode", "Ellby")],
        "toll": [("Aar", "Aldorf", 5), ("Bode", "Ellby", 7)],
    }
    copy = Cut(Database("rivers", schema, tables), "river", "name").copies(1)[0]
    assert copy.tables == {
        "river": [("Bode", 1), ("Aar", 2)],
        "bridge": [("Bode", "Aldorf"), ("Aar", "Ellby")],
        "toll": [("Bode", "Aldorf", 5), ("Aar", "Ellby", 7)],
    }


def test_in_even_copies_values_have_changed_places_within_the_columns_of_tables_that_none_refers_to() -> None:
    copy = CUT.copies(2)[1]
    changed = [name for name, rows in copy.tables.items() if list(rows) != list(PAINTERS.tables[name])]
    assert changed == ["sale"]
    before, after = (list(zip(*database.tables["sale"], strict=True)) for database in (PAINTERS, copy))
    assert before[0] == after[0]
    assert all(old != new and sorted(old) == sorted(new) for old, new in zip(before[1:], after[1:], strict=True))


def test_a_copy_that_breaks_a_rule_of_the_schema_is_left_out() -> None:
    schema = "CREATE TABLE town (name TEXT, first INTEGER, last INTEGER, CHECK (first < last))"
    towns = [(f"Town {number}", 10 * number, 10 * number + 1) for number in range(9)]
    copies = Cut(Database("towns", schema, {"town": towns}), "town", "name").copies(4)
    assert [copy.name.rpartition("_")[2] for copy in copies] == ["swap1", "swap2"]


def test_copies_are_the_same_each_time_and_their_names_suit_every_engine() -> None:
    databases, again = ([*cut.halves, *cut.copies(16)] for cut in (CUT, Cut(PAINTERS, "painter", "name")))
    assert [database.fingerprint for database in databases] == [database.fingerprint for database in again]
    names = {database.name for database in databases}
    assert len(names) == 18
    assert all(re.fullmatch("[a-z][a-z0-9_]{0,31}", name) for name in names)
    assert names.isdisjoint(half.name for half in Cut(PAINTERS, "museum", "town").halves)


def test_a_schema_or_column_that_is_not_there_is_named() -> None:
    with pytest.raises(PluginError, match=r"^the database 'painters' has no column painter\.nom$"):
        _ = Cut(PAINTERS, "painter", "nom").sides
    with pytest.raises(PluginError, match="SQLite cannot read the schema of the database 'odd': near"):
        _ = Cut(Database("odd", "CREATE THING", {"thing": [(1,)]}), "thing", "name").sides


def test_a_foreign_key_to_a_table_without_rows_links_nothing() -> None:
    schema = "CREATE TABLE land (id INTEGER PRIMARY KEY); CREATE TABLE team (name TEXT, land INTEGER REFERENCES land)"
    cut = Cut(Database("games", schema, {"team": [(f"Team {number}", 2**64) for number in range(8)]}), "team", "name")
    assert set(cut.sides.values()) == {0, 1}
    assert len(cut.copies(2)) == 2  # a number that SQLite has no integer for is no hindrance


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("REFERENCES land", "in the database 'games' a foreign key of team fits no key of land"),
        ("REFERENCES land (area)", "the database 'games' has no column land.area"),
    ],
)
def test_a_foreign_key_that_fits_nothing_is_a_mistake(reference: str, reason: str) -> None:
    schema = f"CREATE TABLE land (id INTEGER); CREATE TABLE team (name TEXT, land INTEGER {reference})"
    rows = {"land": [(1,)], "team": [(f"Team {number}", 1) for number in range(8)]}
    with pytest.raises(PluginError, match=re.escape(reason)):
        _ = Cut(Database("games", schema, rows), "team", "name").sides


def test_rows_of_a_table_that_the_schema_lacks_are_a_mistake() -> None:
    cut = Cut(
        Database("games", "CREATE TABLE team (name TEXT)", {"team": [("A",), ("B",)], "lad": [(1,)]}), "team", "name"
    )
    with pytest.raises(
        PluginError, match="SQLite cannot take the rows of the database 'games' as its schema says: no such"
    ):
        cut.copies(2)


def test_null_refers_to_nobody() -> None:
    schema = """
    CREATE TABLE team (name TEXT, code INTEGER UNIQUE);
    CREATE TABLE game (code INTEGER REFERENCES team (code))
    """
    teams = [("Team 0", None), *((f"Team {number}", number) for number in range(1, 8))]
    cut = Cut(Database("games", schema, {"team": teams, "game": [(None,), (1,)]}), "team", "name")
    assert [half.tables["game"].count((None,)) for half in cut.halves] == [1, 1]
    assert sum(half.tables["game"].count((1,)) for half in cut.halves) == 1
