"""Ask how the colours of an athlete's medals follow each other from year to year in the same event."""

from __future__ import annotations

from codegym_temptabqa.kinds.kind import MEDALS, Kind

COLOUR = "INSTR('Bronze Silver Gold', medal.type)"
"""A number that grows with the worth of a medal."""


def steps(test: str, event: str = "format_id", shown: str = "*") -> str:
    """Return a query that counts medals by a test of their type and of those before and after in the same event.

    Two medals of one event and year stand in the order of their ids, so that every engine counts alike.
    """
    order = f"OVER (PARTITION BY {event} ORDER BY medal.year, medal.medal_id)"
    return (
        f"SELECT COUNT({shown}) FROM (SELECT {event} AS event, medal.type, LAG(medal.type) {order} AS earlier, "
        f"LEAD(medal.type) {order} AS later {MEDALS}) AS steps WHERE {test}"
    )


def pairs(test: str, event: str = "format_id", shown: str = "COUNT(*)") -> str:
    """Return a query over all pairs of medals of one event, the second won in a later year."""
    return (
        f"WITH won AS (SELECT {event} AS event, medal.type, medal.year, {COLOUR} AS colour {MEDALS}) SELECT {shown} "
        f"FROM won AS one JOIN won AS two ON two.event = one.event AND two.year > one.year WHERE {test}"
    )


def triples(test: str, event: str = "format_id", shown: str = "COUNT(*)") -> str:
    """Return a query over all triples of medals of one event, each won in a later year than the one before."""
    return (
        f"WITH won AS (SELECT {event} AS event, medal.type, medal.year {MEDALS}) SELECT {shown} FROM won AS one JOIN "
        f"won AS two "
        "ON two.event = one.event AND two.year > one.year JOIN won AS three ON three.event = two.event AND "
        "three.year > "
        f"two.year WHERE {test}"
    )


def shortest_span(event: str, more: str = "") -> str:
    """Return a query for the fewest years that hold all three colours in one event.

    The three differences add up to twice the span, whatever the order of the colours.
    """
    return (
        f"WITH won AS (SELECT {event} AS event, medal.type, medal.year {MEDALS}) SELECT MIN(ABS(one.year - two.year) + "
        f"ABS(two.year - three.year) + ABS(one.year - three.year)) / 2{more} FROM won AS one JOIN won AS two ON "
        f"two.event = "
        "one.event JOIN won AS three ON three.event = one.event WHERE one.type = 'Gold' AND two.type = 'Silver' "
        "AND three.type = 'Bronze'"
    )


def career_span(event: str) -> str:
    """Return a query for the fewest years between first and last medal of an event that brought all three colours."""
    return (
        f"SELECT MAX(medal.year) - MIN(medal.year) AS span {MEDALS} GROUP BY {event} HAVING COUNT(DISTINCT "
        f"medal.type) = 3 "
        "ORDER BY span LIMIT 1"
    )


DISTINCT = "COUNT(DISTINCT one.event)"
BETTER = "two.colour > one.colour"
GOLD_THEN_OTHER = "type = 'Gold' AND later <> 'Gold'"
GOLD_THEN_ANY = "type = 'Gold' AND later IS NOT NULL"
GOLD_AGAIN = "earlier = 'Gold' AND type <> 'Gold' AND later = 'Gold'"
GOLD_AGAIN_LATER = "one.type = 'Gold' AND two.type <> 'Gold' AND three.type = 'Gold'"
RISE = "earlier = 'Bronze' AND type = 'Silver' AND later = 'Gold'"
RISE_LATER = "one.type = 'Bronze' AND two.type = 'Silver' AND three.type = 'Gold'"
NAME = "format.name"

KINDS = (
    Kind(
        1001,
        (
            "[In how many|Number of] [different |]events [in which |]did {name} [improve|better] the [colour|color] "
            "of a medal [in a later "
            "edition|in any later year|later on]?",
            "[How often|How many times] did {name} [improve|better] [a medal|the medal color|the medal colour] in "
            "[any |]later [editions|"
            "iterations|years] of [an|the same] event?",
            "[Count|Give] the events in which {name} [later won a better medal|improved the medal [color|colour]] [, "
            "gaps allowed|in later years|]",
        ),
        ("How many events show {name} with a better medal than in some year before?",),
        (pairs(BETTER), pairs(BETTER, shown=DISTINCT), pairs(BETTER, NAME), pairs(BETTER, NAME, DISTINCT)),
        (pairs("two.colour < one.colour"), pairs("two.type <> one.type"), steps("type > earlier")),
    ),
    Kind(
        1002,
        (
            "[How often|How many times] [did|has] {name} [get|take|win|won] gold in an event and "
            "[later|then|afterwards] [any |an]other "
            "medal in [it|the same event]?",
            "[Count|Give] the gold medals of {name} [that were followed|followed] by [any other|another] medal in "
            "the same event",
            "[How often|How many times] [was|were] {name}'s gold medal[s|] [in an event |]followed by another medal "
            "[in|of] the same event?",
        ),
        ("After how many of {name}'s gold medals did another medal of the event come home?",),
        (
            steps(GOLD_THEN_ANY),
            steps(GOLD_THEN_OTHER),
            pairs("one.type = 'Gold'", shown=DISTINCT),
            steps(GOLD_THEN_OTHER, NAME),
            pairs("one.type = 'Gold'"),
            pairs("one.type = 'Gold' AND two.type <> 'Gold'"),
        ),
        (steps("type <> 'Gold' AND later = 'Gold'"), steps("type = 'Gold'")),
    ),
    Kind(
        1003,
        (
            "[How often|How many times] did {name} [get|win|take] a medal of [another|a different] [colour|color] "
            "than [the time before|in the "
            "previous edition] in the same event?",
            "[Count|Number of] times [that |]{name}'s medal had [another|a different] [colour|color] than the "
            "previous one of the same event",
            "[Count|Give] the changes of medal [colour|color] from one [edition|iteration] [of an event |]to the "
            "next [for|of] {name}",
        ),
        ("How often did {name}'s medal change its colour from one edition of an event to the next?",),
        (
            steps("type <> earlier"),
            steps("type <> earlier", NAME),
            steps("type <> earlier", shown="DISTINCT event"),
            pairs("two.type <> one.type"),
        ),
        (steps("type = earlier"), steps("later = 'Gold'")),
    ),
    Kind(
        1004,
        (
            "[How often|How many times] did {name} win gold, then a [lower|lesser] medal, then gold again [in the "
            "same event|in an event]?",
            "[In how many|Number of] events [in which |]did {name} [win|take] a gold medal, [then|next] a "
            "[lower|lesser] medal and then gold "
            "again?",
            "[Count|Give] the events where {name} lost the gold medal [in the next edition |][to a lower medal |]and "
            "won it [back|again] in the "
            "[following|next] one",
        ),
        ("In how many events did gold, something less and gold again come home with {name}?",),
        (
            steps(GOLD_AGAIN),
            steps(GOLD_AGAIN, shown="DISTINCT event"),
            steps(GOLD_AGAIN, NAME),
            triples(GOLD_AGAIN_LATER),
            triples(GOLD_AGAIN_LATER, shown=DISTINCT),
        ),
        (steps(RISE), steps(GOLD_THEN_OTHER)),
    ),
    Kind(
        1006,
        (
            "[How often|How many times] did {name} win bronze, then silver, then gold [in three consecutive "
            "editions|in a row|one after "
            "the other] [of|in] an event?",
            "[Count|Give|Number of] times [that |]{name} [rose|went] from bronze [over|through|to] silver to gold in "
            "[three [consecutive |]"
            "[editions|iterations] of |]an event",
            "[How many|Number of] sequences of bronze, silver and gold medal[s|] in an event [has|did] {name} "
            "[had|have|win]?",
        ),
        ("How often did bronze, silver and gold follow each other for {name} in one event?",),
        (
            steps(RISE),
            steps(RISE, NAME),
            triples(RISE_LATER),
            triples(RISE_LATER, NAME),
            triples(RISE_LATER, shown=DISTINCT),
        ),
        (steps(GOLD_AGAIN), steps("type = 'Bronze' AND later = 'Silver'")),
    ),
    Kind(
        1016,
        (
            "[What is the|Give the] [smallest|fewest] number of years in which {name} [won|got] [a gold, a silver "
            "and a bronze medal|all "
            "three medal colours|gold, silver and bronze] in [one|the same] format?",
            "[Shortest|Smallest] [span|period|time] [in years |]in which {name} won [all three colours|gold, silver "
            "and bronze] in [one|the "
            "same] format?",
            "In how few years did {name} win [gold, silver and bronze|all kinds of medals] in [one|the same] format?",
        ),
        ("What is the least number of years that {name} needed for all three colours in one format?",),
        (shortest_span(NAME), shortest_span("format_id"), shortest_span(NAME, " + 1"), career_span(NAME)),
        (f"SELECT MAX(medal.year) - MIN(medal.year) {MEDALS}", career_span("format_id")),
    ),
)
