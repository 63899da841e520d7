"""Rebuild the release's two databases, which it does not bring, from the infoboxes of its rows."""

from __future__ import annotations

from collections.abc import Iterable

from codegym import Database, Row
from codegym_temptabqa.parse import Infobox, Problem, parse
from codegym_temptabqa.schema import SCHEMA


def infoboxes(contexts: Iterable[str]) -> tuple[list[Infobox], list[Problem]]:
    """Return one infobox for each athlete, in the order of first mention, and the problems met."""
    by_athlete: dict[str, Infobox] = {}
    problems: list[Problem] = []
    for context in dict.fromkeys(contexts):
        infobox, found = parse(context)
        problems += found
        if infobox and infobox.athlete in by_athlete:
            by_athlete[infobox.athlete].merge(infobox)
        elif infobox:
            by_athlete[infobox.athlete] = infobox
    return list(by_athlete.values()), problems


def build_database(name: str, infoboxes: Iterable[Infobox]) -> Database:
    """Return a database of `SCHEMA` with the infoboxes' content; ids count from 1 in the order given."""
    athletes: list[Row] = []
    births: list[Row] = []
    tournaments: list[Row] = []
    formats: list[Row] = []
    medals: list[Row] = []
    for infobox in infoboxes:
        athlete_id = len(athletes) + 1
        athletes.append((athlete_id, infobox.athlete))
        if infobox.birth:
            births.append((len(births) + 1, athlete_id, *infobox.birth))
        for tournament, its_formats in infobox.tournaments.items():
            tournament_id = len(tournaments) + 1
            tournaments.append((tournament_id, athlete_id, tournament))
            for format_name, its_medals in its_formats.items():
                format_id = len(formats) + 1
                formats.append((format_id, tournament_id, format_name))
                for medal in its_medals:
                    medals.append((len(medals) + 1, format_id, medal.type, medal.year, medal.location))
    tables = {
        "athlete": athletes,
        "personalinformation": births,
        "tournament": tournaments,
        "format": formats,
        "medal": medals,
    }
    return Database(name, SCHEMA, tables)
