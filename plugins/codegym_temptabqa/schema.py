"""Hold the one schema that the release's databases and the invented ones share."""

from __future__ import annotations

SCHEMA = """
CREATE TABLE athlete (
    athlete_id INTEGER PRIMARY KEY,
    name VARCHAR(255) NOT NULL
);
CREATE TABLE personalinformation (
    info_id INTEGER PRIMARY KEY,
    athlete_id INTEGER NOT NULL,
    birth_year INTEGER,
    birth_month INTEGER,
    birth_day INTEGER,
    FOREIGN KEY (athlete_id) REFERENCES athlete (athlete_id)
);
CREATE TABLE tournament (
    tournament_id INTEGER PRIMARY KEY,
    athlete_id INTEGER NOT NULL,
    name VARCHAR(255) NOT NULL,
    FOREIGN KEY (athlete_id) REFERENCES athlete (athlete_id)
);
CREATE TABLE format (
    format_id INTEGER PRIMARY KEY,
    tournament_id INTEGER NOT NULL,
    name VARCHAR(255) NOT NULL,
    FOREIGN KEY (tournament_id) REFERENCES tournament (tournament_id)
);
CREATE TABLE medal (
    medal_id INTEGER PRIMARY KEY,
    format_id INTEGER NOT NULL,
    type VARCHAR(16) NOT NULL,
    year INTEGER,
    location VARCHAR(255),
    FOREIGN KEY (format_id) REFERENCES format (format_id)
);
CREATE INDEX athlete_name ON athlete (name);
CREATE INDEX personalinformation_athlete ON personalinformation (athlete_id);
CREATE INDEX tournament_athlete ON tournament (athlete_id);
CREATE INDEX format_tournament ON format (tournament_id);
CREATE INDEX medal_format ON medal (format_id)
""".strip()
"""`CREATE` statements that SQLite and MariaDB both read; the indexes make the four-table join a lookup."""
