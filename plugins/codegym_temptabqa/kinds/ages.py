"""Ask about an athlete's age, and about the years between medals."""

from __future__ import annotations

from codegym_temptabqa.kinds.kind import BORN, IN_TOURNAMENT, MEDALS, OF_COLOUR, Kind, count, yes_if

AGE = "medal.year - personalinformation.birth_year"


def in_ages(*spans: tuple[int, int]) -> tuple[str, ...]:
    """Return one query for a number of medals per span of ages, first and last age included."""
    return tuple(count(f" AND {AGE} BETWEEN {first} AND {last}", source=BORN) for first, last in spans)


MORE_IN_TWENTIES = f"SUM({AGE} BETWEEN 20 AND 29) > SUM({AGE} BETWEEN 30 AND 39)"
ASK_COUNT = "[How many|What number of] medals [did|has] {name} [get|take|win|won|earn]"

KINDS = (
    Kind(
        36,
        (
            "How old was {name} [at|when winning] the [latest|last|most recent] {tournament} {medal} medal[s|]?",
            "[Age of|What was the age of] {name} [at|when winning] the [latest|last|most recent] {tournament} "
            "{medal} medal[s|]?",
            "[What|Which] age [had|was] {name} when [he or she|the athlete] [last won|most recently won] [a|the] "
            "{tournament} "
            "{medal} medal[s|]?",
            "At [what|which] age did {name} [last win|get the most recent|get the latest|take the last] {tournament} "
            "{medal} medal[s|]?",
        ),
        ("How old was {name} when a {tournament} {medal} medal came home for the last time?",),
        (f"SELECT MAX({AGE}) {BORN}{OF_COLOUR}{IN_TOURNAMENT}",),
        (
            f"SELECT MIN({AGE}) {BORN}{OF_COLOUR}{IN_TOURNAMENT}",
            f"SELECT MAX({AGE}) {BORN}{IN_TOURNAMENT}",
            f"SELECT MAX(medal.year) {MEDALS}{OF_COLOUR}{IN_TOURNAMENT}",
        ),
    ),
    Kind(
        57,
        (
            f"{ASK_COUNT} in [the|his or her|their] early twenties?",
            "[Count|Give] the medals [of|won by] {name} in the early twenties",
            "{name}: medals [from|in] the early twenties?",
        ),
        ("In the early twenties, how many medals did {name} bring home?",),
        in_ages((20, 23), (20, 22), (20, 24), (20, 23)),
        in_ages((20, 29), (23, 26), (27, 29)),
    ),
    Kind(
        58,
        (
            f"{ASK_COUNT} in [the|his or her|their] [mid|middle] twenties?",
            "[Count|Give] the medals [of|won by] {name} in the [mid|middle] twenties",
            "{name}: medals [from|in] the [mid|middle] twenties?",
        ),
        ("In the mid twenties, how many medals did {name} bring home?",),
        in_ages((24, 26), (23, 26), (23, 27), (24, 27)),
        in_ages((20, 29), (20, 23), (27, 29)),
    ),
    Kind(
        59,
        (
            f"{ASK_COUNT} in [the|his or her|their] late twenties?",
            "[Count|Give] the medals [of|won by] {name} in the late twenties",
            "{name}: medals [from|in] the late twenties?",
        ),
        ("In the late twenties, how many medals did {name} bring home?",),
        in_ages((27, 29), (26, 29), (28, 29), (25, 29)),
        in_ages((20, 29), (20, 23), (30, 39)),
    ),
    Kind(
        60,
        (
            "How old was {name} [at the time of|at|when winning] the [first|earliest] [international |]medal?",
            "[Age of|What was the age of] {name} [at|when winning] the [first|earliest] [international |]medal?",
            "At [what|which] age did {name} [get|take|win] [the|a|his or her|their] first [international |]medal?",
            "{name}: age [at|when winning] [his or her|the|their] first [international |]medal?",
        ),
        ("How old was {name} when a medal came home for the first time?",),
        (f"SELECT MIN({AGE}) {BORN}",),
        (
            f"SELECT MAX({AGE}) {BORN}",
            f"SELECT MIN(medal.year) {MEDALS}",
            f"SELECT MIN({AGE}) {BORN} AND medal.type = 'Gold'",
        ),
    ),
    Kind(
        64,
        (
            "[Has|Did] {name} [won|win|get] more medals in [the|his or her|their] twenties than in [the|his or "
            "her|their] thirties?",
            "Were {name}'s twenties [better|richer in medals] than [the|his or her|their] thirties?",
            "[Comparing|Compared] [the |]twenties [and|with|to] [the |]thirties, [has|did] {name} [have|win|won] "
            "more medals in the [former|"
            "twenties]?",
            "Does {name} [hold|own|count] more medals [from|of] [the|their] twenties than [from|of] [the|their] "
            "thirties?",
        ),
        ("Did {name} bring home more medals in the twenties than in the thirties?",),
        (yes_if(MORE_IN_TWENTIES, source=BORN),),
        (yes_if(MORE_IN_TWENTIES.replace(">", "<"), source=BORN), *in_ages((20, 29))),
    ),
    Kind(
        73,
        (
            "[How many|What number of] years [lie|are|were|went by] between [the first and [last|latest|most "
            "recent]|the earliest and the "
            "[last|latest]] [international |]medal of {name}?",
            "[How long|How many years] was it from {name}'s first to [the|his or her|their] [last|latest|most recent] "
            "[international |]medal?",
            "[Years|Time in years|Difference in years] between {name}'s first and [last|latest|most recent] "
            "[international |]medal?",
        ),
        ("How long, in years, is the way from the first medal of {name} to the last one?",),
        (f"SELECT MAX(medal.year) - MIN(medal.year) {MEDALS}",),
        (f"SELECT MIN(medal.year) {MEDALS}", count(what="DISTINCT medal.year"), f"SELECT MAX(medal.year) {MEDALS}"),
    ),
    Kind(
        95,
        (
            f"{ASK_COUNT} in [the|his or her|their] twenties?",
            "[Count|Give] the medals [of|won by] {name} in the twenties",
            "{name}: medals [from|in] the twenties?",
        ),
        ("In the twenties, how many medals did {name} bring home?",),
        in_ages((20, 29)),
        in_ages((30, 39), (20, 23), (21, 30)),
    ),
    Kind(
        96,
        (
            f"{ASK_COUNT} in [the|his or her|their] thirties?",
            "[Count|Give] the medals [of|won by] {name} in the thirties",
            "{name}: medals [from|in] the thirties?",
        ),
        ("In the thirties, how many medals did {name} bring home?",),
        in_ages((30, 39)),
        in_ages((20, 29), (31, 40), (30, 35)),
    ),
)
