"""Ask how many, whether, and which is more."""

from __future__ import annotations

from codegym_temptabqa.kinds.kind import (
    IN_FORMAT,
    IN_TOURNAMENT,
    IN_YEAR,
    MEDALS,
    OF_COLOUR,
    Kind,
    count,
    foremost,
    yes_if,
)

YEARS = "DISTINCT medal.year"
MORE = "SUM(medal.type = {medal}) > SUM(medal.type = {other})"
FEWER = "SUM(medal.type = {medal}) < SUM(medal.type = {other})"
AVERAGE = "COUNT(*) * 1.0 / COUNT(DISTINCT medal.year)"
BEFORE = " AND medal.year < {year}"

KINDS = (
    Kind(
        1,
        (
            "[What number of|How many] {medal} medals [has|did] {name} [take|taken|get|earn] at the {tournament}?",
            "{name}: [number|count] of {tournament} {medal} medals?",
            "[Count|Give] the {medal} medals that {name} [won|earned|got] [at|in] the {tournament}",
            "[How many|Number of] {tournament} {medal} medals [has|does] {name} [have|won|got|earned]?",
            "At the {tournament}, how many [times was {name} a {medal} medallist|{medal} medals went to {name}]?",
        ),
        (
            "How many {medal} medals from the {tournament} did {name} bring home?",
            "How often did {name} win a {medal} medal at the {tournament}?",
        ),
        (count(OF_COLOUR + IN_TOURNAMENT),),
        (count(IN_TOURNAMENT), count(OF_COLOUR), count(OF_COLOUR + IN_TOURNAMENT, YEARS)),
    ),
    Kind(
        13,
        (
            "[What is the|Give the] [total|overall|career] number of {medal} medals [of|won by|for] {name}?",
            "[How many|What number of] {medal} medals [has|did] {name} [won|earn|collect|get] [in total|overall|in "
            "all]?",
            "[How many|Number of] [international|career] {medal} medals [has|does] {name} [have|got|earned]?",
            "{name}: {medal} medals [over a whole career|in total|throughout]?",
            "[Count|Give] all [international |]{medal} medals [of|won by] {name} [in the whole career|throughout the "
            "years|]",
        ),
        ("How many {medal} medals did {name} bring home in all?", "What is {name}'s tally of {medal} medals?"),
        (count(OF_COLOUR),),
        (count(), count(OF_COLOUR, YEARS)),
    ),
    Kind(
        14,
        (
            "[How often|On how many occasions|How many times] [has|did] {name} [get|got|earn|earned] [a "
            "medal|medals] [at|in] "
            "[the |]{tournament}?",
            "[What is the|Give the] number of [times|medals] {name} [won|was decorated] [at|in] [the |]{tournament}?",
            "[Count|Give] the {tournament} medals of {name}",
            "{tournament}: how [often|many times] [has|did] {name} [been on the podium|win|medal]?",
        ),
        (
            "How many medals from the {tournament} did {name} bring home?",
            "How often did {name} stand on the podium of the {tournament}?",
        ),
        (count(IN_TOURNAMENT), count(IN_TOURNAMENT, YEARS)),
        (count(), count(IN_TOURNAMENT, "DISTINCT format.name")),
    ),
    Kind(
        27,
        (
            "[How many|What number of] medals [has|did] {name} [take|get|earn|won] in [the |]{format} [at|of] the "
            "{tournament}?",
            "[Count|Give] the medals that {name} [won|got] in [the |]{format} [at|in|of] the {tournament}",
            "{name}: medals in the {format} {tournament}?",
            "In the {format} [of the |at the |]{tournament}, how many medals [went to {name}|did {name} get|has "
            "{name} won]?",
        ),
        ("How many medals from the {format} of the {tournament} did {name} bring home?",),
        (count(IN_FORMAT + IN_TOURNAMENT),),
        (count(IN_FORMAT), count(IN_TOURNAMENT), count(IN_FORMAT + IN_TOURNAMENT, YEARS)),
    ),
    Kind(
        32,
        (
            "[Did|Has] {name} [ever |][take|taken|get|earn|earned] [a|any] {medal} medal[s|] [at|in] the {tournament}?",
            "Is {name} a {medal} medallist of the {tournament}?",
            "Is it true that {name} [won|got|has won] [a|any] {medal} medal[s|] [at|in] the {tournament}?",
            "{name}: [a|any] {medal} medal[s|] [at|in] the {tournament}?",
        ),
        ("Did {name} bring home a {medal} medal from the {tournament}?",),
        (yes_if("COUNT(*) > 0", OF_COLOUR + IN_TOURNAMENT),),
        (yes_if("COUNT(*) > 0", IN_TOURNAMENT), yes_if("COUNT(*) > 1", OF_COLOUR + IN_TOURNAMENT)),
    ),
    Kind(
        40,
        (
            "[How many|What number of] [appearances|wins|appearances or wins] [does|did] {name} [have|make|show] "
            "[at|in] the "
            "{tournament}?",
            "[How often|How many times] [did|has] {name} [appear|appeared|play|played] [at|in] the {tournament}?",
            "[Count|Give|Number of] the {tournament} [appearances|wins] of {name}",
            "[How many|Number of] {tournament} [wins|appearances|wins and appearances] [has|of] {name} [made|had|]?",
        ),
        ("How often was {name} seen at the {tournament}?", "How many starts does {name} have at the {tournament}?"),
        (count(IN_TOURNAMENT), count(IN_TOURNAMENT, YEARS)),
        (count(), count(IN_TOURNAMENT + " AND medal.type = 'Gold'")),
    ),
    Kind(
        52,
        (
            "[How many|What number of] [international |]medals [has|did] {name} [take|get|earn|won|collect] in {year}?",
            "[Count|Give] the [international |]medals [of|won by] {name} in [the year |]{year}",
            "{name}: [number of |][international |]medals in [the year |]{year}?",
            "In {year}, how many [international |]medals [went to {name}|did {name} get|did {name} win]?",
        ),
        ("How many medals did {name} bring home in {year}?", "What was {name}'s harvest of medals in {year}?"),
        (count(IN_YEAR),),
        (count(), count(" AND medal.year > {year}"), count(IN_YEAR, "DISTINCT format.name")),
    ),
    Kind(
        53,
        (
            "[How many|What number of] [international |]{medal} medals [has|did] {name} [take|get|earn|won] in {year}?",
            "[Count|Give] the [international |]{medal} medals [of|won by] {name} in [the year |]{year}",
            "{name}: [number of |][international |]{medal} medals in [the year |]{year}?",
            "In {year}, how many [international |]{medal} medals [went to {name}|did {name} get|did {name} win]?",
        ),
        ("How many {medal} medals did {name} bring home in {year}?",),
        (count(OF_COLOUR + IN_YEAR),),
        (count(IN_YEAR), count(OF_COLOUR)),
    ),
    Kind(
        54,
        (
            "[Was|Is it true that] {name} [awarded|won|got] [any|a|an] [international |]medal[s|] in [the year "
            "|]{year}?",
            "[Did|Has] {name} [ever |][take|get|earn|won] [any |a |][international |]medal[s|] in [the year |]{year}?",
            "{name}: any [international |]medals in [the year |]{year}?",
        ),
        ("Did {name} bring home a medal in {year}?",),
        (yes_if("COUNT(*) > 0", IN_YEAR),),
        (yes_if("COUNT(*) > 0"), yes_if("COUNT(*) > 1", IN_YEAR)),
    ),
    Kind(
        55,
        (
            "[How many medals|What number of medals] [does|did] {name} [win|get|earn] [a year|per year|in a year] on "
            "average?",
            "[What is|Give] [the average|{name}'s average|the mean] [yearly number|number] of medals [of|for|by] "
            "{name} "
            "[per year|in a year|a year]?",
            "On average, how many medals [did|does] {name} [win|take] [per year|in one season|every year]?",
            "Average [medals|medal count] of {name} [per|in a|in one] [year|season]?",
        ),
        ("How many medals did {name} bring home in an average year?",),
        (
            f"SELECT ROUND({AVERAGE}) {MEDALS}",
            f"SELECT ROUND({AVERAGE} - 0.5) {MEDALS}",
            f"SELECT ROUND({AVERAGE}, 1) {MEDALS}",
        ),
        (f"SELECT ROUND(AVG(medal.year)) {MEDALS}", count(what=YEARS)),
    ),
    Kind(
        68,
        (
            "[Has|Did] {name} [won|win|get|earned|collect] more {medal} [than {other} medals|medals than {other} "
            "medals|"
            "medals than {other} ones]?",
            "Are there more {medal} medals than {other} medals [for|won by] {name}?",
            "Is the number of {name}'s {medal} medals [greater|higher|larger] than that of {other} medals?",
            "Does {name} [hold|own|count] [more|a greater number of] {medal} medals than {other} medals?",
            "{name}: more {medal} medals than {other} medals?",
        ),
        ("Did {name} bring home more {medal} medals than {other} medals?",),
        (yes_if(MORE),),
        (yes_if(FEWER), yes_if("COUNT(*) > 0", OF_COLOUR)),
    ),
    Kind(
        69,
        (
            "[Has|Did] {name} [won|win|get|earned|collect] more {medal} medals than {other} medals [at|in] the "
            "{tournament}?",
            "[At|In] the {tournament}, [has|did] {name} [won|win|get] more {medal} medals than {other} medals?",
            "Are there more {medal} medals than {other} medals [for|won by] {name} [at|in] [the |]{tournament}?",
            "Does {name} [hold|own|count] [more|a greater number of] {medal} medals than {other} medals [from|in] "
            "[the |]{tournament}?",
        ),
        ("Did {name} bring home more {medal} medals than {other} medals from the {tournament}?",),
        (yes_if(MORE, IN_TOURNAMENT),),
        (yes_if(MORE), yes_if(FEWER, IN_TOURNAMENT), yes_if(MORE, " AND format.name = {tournament}")),
    ),
    Kind(
        70,
        (
            "[Has|Did] {name} [won|win|get|earned|collect] more {medal} medals than {other} medals in [the |]{format}?",
            "In [the |]{format}, [has|did] {name} [won|win|get] more {medal} medals than {other} medals?",
            "Are there more {medal} medals than {other} medals [for|won by] {name} in [the |]{format}?",
            "Does {name} [hold|own|count] [more|a greater number of] {medal} medals than {other} medals [from|in] "
            "[the |]{format}?",
        ),
        ("Did {name} bring home more {medal} medals than {other} medals from the {format}?",),
        (yes_if(MORE, IN_FORMAT),),
        (yes_if(MORE), yes_if(FEWER, IN_FORMAT), yes_if(MORE, " AND tournament.name = {format}")),
    ),
    Kind(
        71,
        (
            "[Which|What] [colour|type|sort|kind] of medal [has|did] {name} [win|won|get|collected] [most often|the "
            "most|most]?",
            "[Most frequent|Most common] medal [type|colour] of {name}?",
            "[Which|What] medal [colour|type] is {name}'s most [frequent|common] one?",
            "[Gold, silver or bronze: which|Which medal type] [did|has] {name} [win|won|got] the most [medals "
            "of|often|of]?",
        ),
        ("Which colour do most of {name}'s medals have?",),
        (foremost("medal.type", "COUNT(*) DESC", group="medal.type"),),
        (
            foremost("medal.type", "COUNT(*)", group="medal.type"),
            foremost("format.name", "COUNT(*) DESC", group="format.name"),
            foremost("medal.type", "medal.year DESC"),
        ),
    ),
    Kind(
        74,
        (
            "[How often|On how many occasions|How many times] [has|did] {name} [get|got|take|earn] [a "
            "medal|medals|an international "
            "medal] [at|in] the {tournament} [before|prior to] [the year |]{year}?",
            "Before {year}, [how often|how many times] did {name} win [a medal|medals|an international medal] "
            "[at|in] the {tournament}?",
            "[Count|Give] the {tournament} medals of {name} before {year}",
            "[How many|Number of] medals of {name} in the {tournament} before {year}?",
        ),
        ("Up to the year before {year}, how many medals from the {tournament} did {name} bring home?",),
        (count(IN_TOURNAMENT + BEFORE), count(IN_TOURNAMENT + BEFORE, YEARS)),
        (count(IN_TOURNAMENT + " AND medal.year > {year}"), count(BEFORE), count(IN_TOURNAMENT)),
    ),
)
