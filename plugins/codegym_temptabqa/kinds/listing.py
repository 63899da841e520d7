"""Ask which, where and when: formats, tournaments, cities, years."""

from __future__ import annotations

from codegym_temptabqa.kinds.kind import IN_FORMAT, IN_TOURNAMENT, MEDALS, OF_COLOUR, Kind, foremost

MOST = "COUNT(*) DESC"
FIRST = "medal.year"
LAST = "medal.year DESC"
GOLDS = "SUM(medal.type = 'Gold') DESC"
EDITION = "tournament.name, medal.year"
OCCASION = "medal.year, medal.location, tournament.name AS tournament, format.name AS format"

KINDS = (
    Kind(
        3,
        (
            "[Name|Give|Show] [all|the|every one of the] formats [that {name} won medals in|with a medal for "
            "{name}|of {name}'s medals]",
            "[In which|What are the] [formats|different formats] [did {name} get medals|{name} got medals in|of "
            "{name}'s medals]?",
            "[List|Enumerate] [the|every one of the|all] formats [of {name}'s medals|in which {name} was on a "
            "podium|that gave {name} medals]",
            "{name}: [list of |all |]formats with [a medal|medals]?",
        ),
        ("Name each format that brought {name} a medal",),
        (f"SELECT DISTINCT format.name {MEDALS}",),
        (
            f"SELECT DISTINCT tournament.name {MEDALS}",
            f"SELECT DISTINCT format.name {MEDALS} AND medal.type = 'Gold'",
            f"SELECT COUNT(DISTINCT format.name) {MEDALS}",
        ),
    ),
    Kind(
        5,
        (
            "[Which|What] [format|formats] [is|are] {name}'s [best|most successful] [one|ones|]?",
            "[In which|Which] format[s|(s)|] [was|is|has] {name} [most successful|the most "
            "successful|best|strongest] [in|]?",
            "[Most successful|Best] format[s|(s)|] of {name}?",
            "[In what|In which] format[s|(s)|] did {name} have the [most|greatest] success?",
        ),
        ("Which format suited {name} best?",),
        (
            foremost("format.name", MOST, group="format.name"),
            foremost("format.name", GOLDS, group="format.name"),
        ),
        (
            foremost("tournament.name", MOST, group="tournament.name"),
            foremost("format.name", "COUNT(*)", group="format.name"),
            foremost("format.name", LAST),
        ),
    ),
    Kind(
        19,
        (
            "Where did {name} [get|take|win|earn] the [first|very first|earliest] [international |]{medal} medal[s|]?",
            "[What was the|Which was the|In which] city [of|saw|did] {name}'s [first|earliest] [international "
            "|]{medal} medal[s|]?",
            "[In which|What|In what] [city|town] did {name} [get|take|earn] [his or her|the|a] first [international "
            "|]{medal} medal[s|]?",
            "[City|Place] of the first [international |]{medal} medal[s|] of {name}?",
        ),
        ("Which city saw {name} win a {medal} medal for the first time?",),
        (foremost("medal.location", FIRST, OF_COLOUR),),
        (
            foremost("medal.location", LAST, OF_COLOUR),
            foremost("medal.location", FIRST),
            foremost("medal.year", FIRST, OF_COLOUR),
        ),
    ),
    Kind(
        21,
        (
            "[At|In] which tournament[s|(s)|] did {name} [get|win|take|collect] the [most|largest number of] {medal} "
            "medals?",
            "[What|Which] tournament[s|(s)|] [gave|brought] {name} the [most|largest number of] {medal} medals?",
            "[Name|Give] the tournament[s|(s)|] with [the |]most {medal} medals [for|of|won by] {name}",
            "{name}: tournament[s|(s)|] with [the |]most {medal} medals?",
        ),
        ("From which tournament did {name} bring home the most {medal} medals?",),
        (
            foremost(EDITION, MOST, OF_COLOUR, EDITION),
            foremost("tournament.name", MOST, OF_COLOUR, "tournament.name"),
        ),
        (
            foremost(EDITION, MOST, group=EDITION),
            foremost("tournament.name", MOST, group="tournament.name"),
            foremost("format.name", MOST, OF_COLOUR, "format.name"),
        ),
    ),
    Kind(
        22,
        (
            "[At|In] which tournament[s|(s)|] did {name} [get|win|take|collect] the [most|largest number of] medals?",
            "[What|Which] tournament[s|(s)|] [gave|brought] {name} the [most|largest number of] medals?",
            "[Name|Give] the tournament[s|(s)|] with [the |]most medals [for|of|won by] {name}",
            "{name}: tournament[s|(s)|] with [the |]most medals?",
        ),
        ("From which tournament did {name} bring home the most medals?",),
        (
            foremost(EDITION, MOST, group=EDITION),
            foremost("tournament.name", MOST, group="tournament.name"),
        ),
        (
            foremost(EDITION, MOST, " AND medal.type = 'Gold'", EDITION),
            foremost("format.name", MOST, group="format.name"),
            foremost(EDITION, "COUNT(*)", group=EDITION),
        ),
    ),
    Kind(
        30,
        (
            "When did {name} [get|win|take|earn] the [first|earliest] {medal} medal[s|] in [the |]{format} [at|of] "
            "the {tournament}?",
            "[What year|Which year|In what year] did {name} [get|take|earn] [his or her|the|a] first {medal} "
            "medal[s|] in the {format} "
            "{tournament}?",
            "[Year of the|When was the] first {medal} medal[s|] of {name} in [the |]{format} [at the |of the "
            "|]{tournament}?",
            "{name}: first year with [a |]{medal} medal[s|] in the {format} {tournament}?",
        ),
        ("In what year did {name} first bring home a {medal} medal from the {format} of the {tournament}?",),
        (f"SELECT MIN(medal.year) {MEDALS}{OF_COLOUR}{IN_FORMAT}{IN_TOURNAMENT}",),
        (
            f"SELECT MAX(medal.year) {MEDALS}{OF_COLOUR}{IN_FORMAT}{IN_TOURNAMENT}",
            f"SELECT MIN(medal.year) {MEDALS}{OF_COLOUR}{IN_TOURNAMENT}",
            f"SELECT MIN(medal.year) {MEDALS}{IN_FORMAT}{IN_TOURNAMENT}",
        ),
    ),
    Kind(
        34,
        (
            "Where did {name} [get|take|win|earn] the [latest|last|most recent|newest] medal?",
            "[What was the|Which was the|In which] city [of|saw] {name}'s [latest|last|most recent] medal?",
            "[In which|What|In what] [city|town] did {name} [get|take|earn] [his or her|the|a] [latest|last|most "
            "recent] medal?",
            "[City|Place] of the [latest|last|most recent] medal of {name}?",
        ),
        ("Which city saw {name} win a medal for the last time?",),
        (foremost("medal.location", LAST),),
        (foremost("medal.location", FIRST), foremost("medal.year", LAST), foremost("tournament.name", LAST)),
    ),
    Kind(
        35,
        (
            "Where did {name} [get|take|win|earn] the [first|earliest] {tournament} {medal} medal[s|]?",
            "[Which was the|In which|What] [city|town] [of|saw|was it of] {name}'s first {medal} medal[s|] [at|in] "
            "the {tournament}?",
            "[In what|What|Which] [city|town] did {name} [get|take|earn] [his or her|the|a] first {medal} medal[s|] "
            "[at|in] the {tournament}?",
            "[City|Place] of the first {tournament} {medal} medal[s|] of {name}?",
        ),
        ("Which city saw {name} win a {medal} medal of the {tournament} for the first time?",),
        (foremost("medal.location", FIRST, OF_COLOUR + IN_TOURNAMENT),),
        (
            foremost("medal.location", FIRST, IN_TOURNAMENT),
            foremost("medal.location", LAST, OF_COLOUR + IN_TOURNAMENT),
            foremost("medal.location", FIRST, OF_COLOUR),
        ),
    ),
    Kind(
        38,
        (
            "[When|What years|In what years] did {name} [get|take|earn] [medals|a medal] [at|in] the {tournament}?",
            "[Name|Give|Show] [all|the] years [with {tournament} medals for|of the {tournament} medals of] {name}",
            "[Which|What] [were the |]year[s|(s)|] [of|saw] {name}'s medals [at|in] the {tournament}?",
            "{name}: [all |]years with [medals|a medal] [at|in] the {tournament}?",
        ),
        ("Name the years in which {name} brought a medal home from the {tournament}",),
        (f"SELECT DISTINCT medal.year {MEDALS}{IN_TOURNAMENT}",),
        (
            f"SELECT DISTINCT medal.year {MEDALS}",
            f"SELECT DISTINCT medal.location {MEDALS}{IN_TOURNAMENT}",
            f"SELECT MIN(medal.year) {MEDALS}{IN_TOURNAMENT}",
        ),
    ),
    Kind(
        39,
        (
            "[What was|Which is|What is] the [latest|last|most recent|newest] [medal|medal win|win] [of|for|by] "
            "{name}?",
            "[What was|Which is|Tell me] {name}'s [latest|last|most recent|most current] medal [win|]?",
            "[Latest|Last|Most recent|Newest] medal win of {name}?",
            "[Where, when and in what|With which] [win|medal] did {name} [win last|come last to the podium]?",
        ),
        ("Describe the last time that {name} brought home a medal",),
        (
            foremost(OCCASION, LAST, shown="year, location, tournament, 'in', format, 'format'"),
            foremost(OCCASION, LAST, shown="year, location, tournament, format"),
        ),
        (
            foremost("tournament.name", LAST),
            foremost(EDITION, LAST),
            foremost(OCCASION, FIRST, shown="year, location, tournament, 'in', format, 'format'"),
            foremost("medal.year", LAST),
        ),
    ),
    Kind(
        43,
        (
            "[In which|What] [city|town] [did|has] {name} [get|got|take|win|collected] the [most|largest number of] "
            "[international |]medals?",
            "[Which|What] city [gave|brought] {name} the [most|largest number of] [international |]medals?",
            "Where [did|has] {name} [win|won|got] the most [international |]medals?",
            "[City|Cities|Place] with the most [international |]medals of {name}?",
        ),
        ("From which city did {name} bring home the most medals?",),
        (foremost("medal.location", MOST, group="medal.location"),),
        (
            foremost("tournament.name", MOST, group="tournament.name"),
            foremost("medal.location", "COUNT(*)", group="medal.location"),
            foremost("medal.location", MOST, " AND medal.type = 'Gold'", "medal.location"),
        ),
    ),
    Kind(
        44,
        (
            "[In which|What|In what] year[s|(s)|] did {name} [win|get|collect] the [most|largest number of] gold "
            "medals?",
            "[Which|What] year[s|(s)|] [gave|brought] {name} the [most|highest number of] [gold|Gold] medals?",
            "[Measured|Judged] by [gold medals|Gold Medals|gold medal wins], [which|what] was {name}'s [best|most "
            "successful] year?",
            "[Best|Most successful] year of {name} [by|in terms of|counting] [gold medals|Gold Medals]?",
        ),
        ("Which year brought the most gold medals home to {name}?",),
        (foremost("medal.year", MOST, " AND medal.type = 'Gold'", "medal.year"),),
        (
            foremost("medal.year", MOST, group="medal.year"),
            foremost("medal.year", "COUNT(*)", " AND medal.type = 'Gold'", "medal.year"),
            f"SELECT MAX(medal.year) {MEDALS} AND medal.type = 'Gold'",
        ),
    ),
    Kind(
        65,
        (
            "[In what|What|Which] year[s|(s)|] [did|saw] {name} [get|win|take|collect] the [most|largest number "
            "of|greatest number of] medals?",
            "[Which|What] [was the|were the] year[s|(s)|] with [the |]most medals [for|of] {name}[ in the whole "
            "career|]?",
            "{name}: year[s|(s)|] with the [highest number of|most] medals [of the career|]?",
            "When [in the career |]did {name} win [the |]most medals?",
        ),
        ("Which year brought the most medals home to {name}?",),
        (foremost("medal.year", MOST, group="medal.year"),),
        (
            foremost("medal.year", "COUNT(*)", group="medal.year"),
            foremost("medal.location", MOST, group="medal.location"),
            f"SELECT MAX(medal.year) {MEDALS}",
        ),
    ),
    Kind(
        66,
        (
            "[In what|What|Which] year[s|(s)|] [did|saw] {name} [get|win|take|collect] the [fewest|smallest number "
            "of|least] medals?",
            "[Which|What] [was the|were the] year[s|(s)|] with [the |][fewest|least] medals [for|of] {name}[ in the "
            "whole career|]?",
            "{name}: year[s|(s)|] with the [lowest number of|fewest] medals [of the career|]?",
            "When [in the career |]did {name} win [the |][fewest|least] medals?",
        ),
        ("Of the years with medals, which brought the fewest home to {name}?",),
        (foremost("medal.year", "COUNT(*)", group="medal.year"),),
        (
            foremost("medal.year", MOST, group="medal.year"),
            f"SELECT MIN(medal.year) {MEDALS}",
            foremost("medal.location", "COUNT(*)", group="medal.location"),
        ),
    ),
    Kind(
        75,
        (
            "[Which|What] format [was it in which|saw] {name} [won|get|win] the [first|earliest] [international "
            "|]medal?",
            "[In what|Which|What] format[s|(s)|] did {name} [get|take|earn] [his or her|the|a] first [international "
            "|]medal [in|]?",
            "[Format|Formats] of the first [international |]medal of {name}?",
            "{name}: format of the first [international |]medal?",
        ),
        ("Which format saw {name} win a medal for the first time?",),
        (foremost("format.name", FIRST),),
        (foremost("format.name", LAST), foremost("tournament.name", FIRST), f"SELECT MIN(format.name) {MEDALS}"),
    ),
    Kind(
        77,
        (
            "Where did {name} [get|take|win|earn] the [first|very first|earliest] [international |]medal?",
            "[What was the|Which was the|In which] city [of|saw] {name}'s [first|earliest] [international |]medal?",
            "[In what|What|Which] [city|town] did {name} [get|take|earn] [his or her|the|a] first [international "
            "|]medal?",
            "[City|Place] of the first [international |]medal of {name}?",
        ),
        ("Which city saw {name} win a medal for the first time?",),
        (foremost("medal.location", FIRST),),
        (foremost("medal.location", LAST), foremost("medal.year", FIRST), foremost("tournament.name", FIRST)),
    ),
    Kind(
        78,
        (
            "When did {name} [get|take|win|earn] the [first|very first|earliest] [international |]medal?",
            "[What was the|Which was the] year of {name}'s [first|earliest] [international |]medal?",
            "[In what|What|Which] year did {name} [get|take|earn] [his or her|the|a] first [international |]medal?",
            "Year of the first [international |]medal of {name}?",
        ),
        ("What year saw {name} win a medal for the first time?",),
        (f"SELECT MIN(medal.year) {MEDALS}",),
        (f"SELECT MAX(medal.year) {MEDALS}", f"SELECT MIN(medal.year) {MEDALS} AND medal.type = 'Gold'"),
    ),
)
