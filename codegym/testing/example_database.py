"""Make the database that hostile items run on: invented athletes and their medals."""

from __future__ import annotations

from functools import cache

from codegym.types import Database, Row

SCHEMA = """
CREATE TABLE athlete (athlete_id INTEGER PRIMARY KEY, name VARCHAR(255) NOT NULL);
CREATE TABLE format (format_id INTEGER PRIMARY KEY, name VARCHAR(64));
CREATE TABLE medal (
    medal_id INTEGER PRIMARY KEY, athlete_id INTEGER, format_id INTEGER,
    type VARCHAR(16), year INTEGER, location VARCHAR(255)
);
CREATE INDEX athlete_name ON athlete (name);
CREATE INDEX medal_athlete ON medal (athlete_id)
"""
ATHLETES, FORMATS, MEDALS = 2_000, 20, 20_000
FIRST_NAMES = ("Ada", "Bela", "Cato", "Dunja", "Emil", "Fadila", "Goro", "Hanna", "Iwan", "Jada")
LAST_NAMES = ("Example", "Instance", "Sample", "Specimen")
TOWNS = ("Aldorf", "Bruneck", "Cantara", "Dunmoor", "Ellby", "Farsund", "Gavelle")


@cache
def games() -> Database:
    """Return the database `games`: 2,000 athletes, 20 formats, 20,000 medals, the same ones always."""
    return Database(
        "games",
        SCHEMA,
        {
            "athlete": [(number, _name(number)) for number in range(1, ATHLETES + 1)],
            "format": [(number, f"{100 * number} m") for number in range(1, FORMATS + 1)],
            "medal": [_medal(number) for number in range(1, MEDALS + 1)],
        },
    )


def _name(number: int) -> str:
    return f"{FIRST_NAMES[number % len(FIRST_NAMES)]} {LAST_NAMES[number % len(LAST_NAMES)]} {number}"


def _medal(number: int) -> Row:
    # Steps that share no factor with what they wrap around at spread the values evenly.
    kind = ("gold", "silver", "bronze")[number % 3]
    return (number, 1 + number * 7 % ATHLETES, 1 + number * 3 % FORMATS, kind, 1980 + number % 45, TOWNS[number % 7])
