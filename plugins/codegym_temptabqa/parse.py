"""Read an athlete's infobox, given as text, into tournaments, formats and medals, and say what could not be read.

The text is blocks between blank lines. In the personal part a block is a label with its value below it. In the medal
part, after `Country Representing: ...`, a block is a tournament and a line for each format, a tab before its medals:

    World Championships
    Team    MedalGold | 2016 | Oslo, MedalSilver | 2018 | Bergen

The two parts come in either order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

PERSONAL_PART = "Personal Information"
MEDAL_PART = "Country Representing"
BIRTH_LABEL = "Birth Date"

_BLANK_LINE = re.compile(r"\n[^\S\n]*(?=\n)")
_BIRTH_DATE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})")
_BEFORE_MEDAL = re.compile(r",\s*(?=Medal[A-Z])")
_MEDAL = re.compile(r"Medal(Gold|Silver|Bronze)\s*\|\s*(\d{4})?\s*(?:\|\s*(.*))?")

_DISTANCE = re.compile(r"m [a-z]+")
FIRST_YEAR = 1896
"""The release read `1500 m freestyle` as a year and a city. No city begins so, and no medal is older than this."""


@dataclass(frozen=True)
class Medal:
    """One medal: its type (`Gold`, `Silver`, `Bronze`), its year and its city, or None where the text has none."""

    type: str
    year: int | None
    location: str | None


@dataclass(frozen=True)
class Problem:
    """One thing in an infobox that is no data, or doubtful data: whose, why (one of a few phrases), the text itself."""

    athlete: str
    reason: str
    text: str = ""


@dataclass
class Infobox:
    """What one athlete's infobox says: `tournaments` maps tournament to format to medals, in the order of the text."""

    athlete: str
    birth: tuple[int, int, int] | None = None
    tournaments: dict[str, dict[str, list[Medal]]] = field(default_factory=dict)

    def merge(self, other: Infobox) -> None:
        """Add what another infobox of the same athlete says, without doubling the medals that both have."""
        self.birth = self.birth or other.birth
        for tournament, formats in other.tournaments.items():
            for name, medals in formats.items():
                mine = self.tournaments.setdefault(tournament, {}).setdefault(name, [])
                mine.extend((Counter(medals) - Counter(mine)).elements())


def parse(context: str) -> tuple[Infobox | None, list[Problem]]:
    """Return the infobox that `context` holds, None if it holds none, and the problems met in it."""
    name, *blocks = _blocks(context) or [[""]]
    if len(name) > 1 or not any(lines[0].startswith((PERSONAL_PART, MEDAL_PART)) for lines in blocks):
        return None, [Problem("", "a row without an infobox", context.strip()[:80])]
    infobox = Infobox(name[0].strip())
    problems: list[Problem] = []
    in_medal_part = False
    for lines in blocks:
        if lines[0].strip() == PERSONAL_PART:
            in_medal_part = False
        while lines and lines[0].startswith(MEDAL_PART):
            in_medal_part = True
            lines = lines[1:]
        if not in_medal_part:
            infobox.birth = infobox.birth or _birth_date(lines)
        elif lines:
            problems += _read_tournament(infobox, lines)
    if not infobox.birth:
        problems.append(Problem(infobox.athlete, "an athlete without a birth date"))
    if not infobox.tournaments:
        problems.append(Problem(infobox.athlete, "an athlete without medals"))
    return infobox, problems


def _blocks(context: str) -> list[list[str]]:
    blocks = (block.split("\n") for block in _BLANK_LINE.split(context.replace("\xa0", " ")))
    filled = ([line for line in block if line.strip()] for block in blocks)
    return [lines for lines in filled if lines]


def _birth_date(lines: Sequence[str]) -> tuple[int, int, int] | None:
    labels = [line.strip() for line in lines]
    if BIRTH_LABEL not in labels[:-1]:
        return None
    match = _BIRTH_DATE.fullmatch(labels[labels.index(BIRTH_LABEL) + 1])
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def _read_tournament(infobox: Infobox, lines: Sequence[str]) -> Iterator[Problem]:
    heading, *rest = lines
    if "\t" in heading:
        yield Problem(infobox.athlete, "formats without a tournament", heading)
        return
    if not rest:
        yield Problem(infobox.athlete, "a tournament without formats", heading.strip())
        return
    formats = infobox.tournaments.setdefault(heading.strip(), {})
    for line in rest:
        name, _, text = line.partition("\t")
        medals = formats.setdefault(name.strip(), [])
        if not text.strip():
            yield Problem(infobox.athlete, "a format without medals", f"{heading.strip()}, {name.strip()}")
            continue
        for entry in _BEFORE_MEDAL.split(text.strip()):
            if match := _MEDAL.fullmatch(entry):
                medals.append(Medal(match[1], int(match[2]) if match[2] else None, match[3] or None))
                yield from (Problem(infobox.athlete, doubt, entry) for doubt in _doubts(medals[-1]))
            else:
                yield Problem(infobox.athlete, "a medal that cannot be read", entry)


def _doubts(medal: Medal) -> Iterator[str]:
    if medal.year is None:
        yield "a medal without a year"
    elif medal.year < FIRST_YEAR:
        yield "a medal with an impossible year"
    if medal.location is None:
        yield "a medal without a city"
    elif _DISTANCE.fullmatch(medal.location):
        yield "a medal with a distance for a city"
