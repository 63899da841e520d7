"""Define what a kind of question is: wordings, right queries and near misses, all with slots to fill."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

Slots = Mapping[str, str]
"""Values by slot: name, medal, other (another medal colour), tournament, format, year."""

MEDALS = (
    "FROM athlete JOIN tournament USING (athlete_id) JOIN format USING (tournament_id) JOIN medal USING (format_id) "
    "WHERE athlete.name = {name}"
)
"""An athlete's medals with their events. Always the same text, so that a tokenizer makes it one token."""

BORN = MEDALS.replace("FROM athlete JOIN", "FROM athlete JOIN personalinformation USING (athlete_id) JOIN")
"""The same, with the date of birth."""

OF_COLOUR = " AND medal.type = {medal}"
IN_TOURNAMENT = " AND tournament.name = {tournament}"
IN_FORMAT = " AND format.name = {format}"
IN_YEAR = " AND medal.year = {year}"


@dataclass(frozen=True)
class Kind:
    """One kind of question, numbered as in the release.

    `wordings` are the questions that a base model learns from, `sample_wordings` those of the sample dataset; neither
    stands in the release. In both, `[a|b]` is a choice and `{name}` a slot. `readings` are the queries that a careful
    person might write, the plainest first; `near_misses` look like them and answer something else.
    """

    number: int
    wordings: tuple[str, ...]
    sample_wordings: tuple[str, ...]
    readings: tuple[str, ...]
    near_misses: tuple[str, ...] = ()

    @property
    def slots(self) -> frozenset[str]:
        """The slots that the kind's first reading and wording need."""
        return frozenset(re.findall(r"\{(\w+)\}", self.readings[0] + self.wordings[0]))


def write(wording: str, slots: Slots, rng: random.Random) -> str:
    """Return a question: choices taken, slots filled, capitals and space before the mark as people vary them."""
    text = wording
    while "[" in text:
        text = re.sub(r"\[([^\[\]]*)\]", lambda choice: rng.choice(choice[1].split("|")), text)
    if rng.random() < 0.5:
        text = re.sub(r"\{(medal|other)\} (m)", lambda match: "{" + match[1].capitalize() + "} M", text)
    lower = {slot: value.lower() if slot in ("medal", "other") else value for slot, value in slots.items()}
    capital = {slot.capitalize(): slots[slot] for slot in ("medal", "other")}
    ending = rng.choice(("?", " ?", "")) if text.endswith("?") else ""
    return text.removesuffix("?").format(**lower, **capital) + ending


def query(template: str, slots: Slots) -> str:
    """Return SQL: every slot but the year as a quoted string."""
    quoted = {slot: value if slot == "year" else "'" + value.replace("'", "''") + "'" for slot, value in slots.items()}
    return template.format(**quoted)


def count(conditions: str = "", what: str = "*", source: str = MEDALS) -> str:
    """Return a query for a number of medals, or of different values of a column."""
    return f"SELECT COUNT({what}) {source}{conditions}"


def yes_if(test: str, conditions: str = "", source: str = MEDALS) -> str:
    """Return a query that answers Yes or No."""
    return f"SELECT CASE WHEN {test} THEN 'Yes' ELSE 'No' END {source}{conditions}"


def foremost(columns: str, order: str, conditions: str = "", group: str = "", shown: str = "") -> str:
    """Return a query for the rows that come first in an order, all of them where they tie.

    `shown` is what the outer query returns, by default `columns` without their tables.
    """
    grouping = f" GROUP BY {group}" if group else ""
    return (
        f"SELECT DISTINCT {shown or re.sub(r'[a-z]+[.]', '', columns)} FROM (SELECT {columns}, "
        f"RANK() OVER (ORDER BY {order}) AS place {MEDALS}{conditions}{grouping}) AS ranked WHERE place = 1"
    )
