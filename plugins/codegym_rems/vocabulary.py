"""List the functions, words and kinds of SQL that `allowed_sql` lets pass, and why others do not."""

from __future__ import annotations

import re

from sqlglot import TokenType, exp

_AGGREGATES = """
    COUNT SUM TOTAL AVG MIN MAX STD STDDEV STDDEV_POP STDDEV_SAMP STDEV VARIANCE VAR_POP VAR_SAMP MEDIAN MODE
    PERCENTILE_CONT PERCENTILE_DISC COUNT_IF COUNTIF BOOL_AND BOOL_OR EVERY ANY_VALUE CORR COVAR_POP COVAR_SAMP
    ARG_MAX ARG_MIN MAX_BY MIN_BY QUANTILE QUANTILE_CONT QUANTILE_DISC APPROX_COUNT_DISTINCT GROUPING ROLLUP CUBE SETS
"""
_WINDOWS = """
    ROW_NUMBER RANK DENSE_RANK PERCENT_RANK CUME_DIST NTILE LAG LEAD FIRST_VALUE LAST_VALUE NTH_VALUE FIRST LAST
"""
_NUMBERS = """
    ABS ROUND CEIL CEILING FLOOR TRUNCATE TRUNC MOD DIV POW POWER SQRT EXP LN LOG LOG2 LOG10 SIGN PI GREATEST LEAST
    SIN COS TAN COT ASIN ACOS ATAN ATAN2 DEGREES RADIANS CBRT GCD LCM
"""
_TEXTS = """
    LENGTH LEN CHAR_LENGTH CHARACTER_LENGTH OCTET_LENGTH BIT_LENGTH UPPER UCASE LOWER LCASE INITCAP
    TRIM LTRIM RTRIM BTRIM SUBSTR SUBSTRING SUBSTRING_INDEX MID LEFT RIGHT SPLIT_PART CONCAT REPLACE REVERSE
    TRANSLATE OVERLAY INSTR LOCATE POSITION STRPOS CHARINDEX FIELD FIND_IN_SET LPAD RPAD FORMAT PRINTF TO_CHAR TO_NUMBER
    ASCII ORD UNICODE CHR CHAR STRCMP SOUNDEX LIKE CONTAINS STARTS_WITH ENDS_WITH PREFIX SUFFIX STARTSWITH
    REGEXP_LIKE REGEXP_REPLACE REGEXP_SUBSTR REGEXP_INSTR REGEXP_COUNT REGEXP_MATCHES REGEXP_EXTRACT REGEXP_FULL_MATCH
    LEVENSHTEIN
"""
_DATES = """
    DATE TIME DATETIME TIMESTAMP YEAR QUARTER MONTH WEEK DAY HOUR MINUTE SECOND MICROSECOND MONTHNAME DAYNAME
    DAYOFMONTH DAYOFWEEK DAYOFYEAR WEEKDAY WEEKOFYEAR YEARWEEK ISODOW ISOYEAR LAST_DAY EXTRACT DATE_PART DATEPART
    DATE_TRUNC DATETRUNC DATE_ADD DATE_SUB ADDDATE SUBDATE ADDTIME SUBTIME DATEADD DATESUB DATEDIFF DATE_DIFF
    TIMEDIFF TIMESTAMPDIFF TIMESTAMPADD PERIOD_DIFF PERIOD_ADD AGE MAKEDATE MAKETIME MAKE_DATE MAKE_TIME MAKE_TIMESTAMP
    STRFTIME STRPTIME DATE_FORMAT TIME_FORMAT STR_TO_DATE TO_DATE TO_TIMESTAMP TO_DAYS FROM_DAYS TO_SECONDS
    TIME_TO_SEC SEC_TO_TIME UNIX_TIMESTAMP FROM_UNIXTIME UNIXEPOCH JULIANDAY JULIAN EPOCH CONVERT_TZ
    NOW CURDATE CURTIME CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP LOCALTIME LOCALTIMESTAMP UTC_DATE UTC_TIME
    UTC_TIMESTAMP SYSDATE TODAY INTERVAL
"""
_CONDITIONS = "IF IFNULL IIF NULLIF COALESCE NVL NVL2 ISNULL"
_CASTS = """
    CAST TRY_CAST SAFE_CAST CONVERT BINARY VARCHAR NCHAR NVARCHAR TEXT DECIMAL DEC NUMERIC NUMBER FLOAT DOUBLE REAL
    INT INTEGER BIGINT SMALLINT TINYINT SIGNED UNSIGNED BIT BOOLEAN TYPEOF
"""
ALLOWED = frozenset(" ".join((_AGGREGATES, _WINDOWS, _NUMBERS, _TEXTS, _DATES, _CONDITIONS, _CASTS)).split())
"""Functions, and types with a length, in capitals."""

_WORDS_BEFORE_BRACKETS = """
    SELECT DISTINCT ALL FROM WHERE HAVING JOIN ON USING AND OR NOT XOR IN AS BY WITH RECURSIVE MATERIALIZED UNION EXCEPT
    INTERSECT EXISTS ANY SOME CASE WHEN THEN ELSE BETWEEN IS LIKE ILIKE RLIKE REGEXP SIMILAR TO ESCAPE COLLATE
    OVER FILTER GROUP WITHIN PARTITION WINDOW LIMIT OFFSET INTERVAL DIV MOD LATERAL
"""
WORDS_BEFORE_BRACKETS = frozenset(_WORDS_BEFORE_BRACKETS.split())
"""What may stand before a bracket and calls nothing."""

_CURRENT = ("USER", "ROLE", "CATALOG", "SCHEMA", "DATABASE")
SESSION_WORDS = frozenset({"SESSION_USER", "SYSTEM_USER", *(f"CURRENT_{what}" for what in _CURRENT)})
"""What needs no bracket and tells of the session."""

NO_KIND = "is not among the kinds of SQL that are allowed"
FOLDS = "it folds many values into one cell"
SIGNS = {
    TokenType.PARAMETER: "variables and parameters are not read",
    TokenType.SESSION_PARAMETER: "variables and parameters are not read",
    TokenType.COLON_EQ: "a query sets no variables",
    TokenType.L_BRACE: "a struct folds many values into one cell",
    TokenType.L_BRACKET: "an array folds many values into one cell",
    TokenType.ARROW: f"JSON {NO_KIND}",
    TokenType.DARROW: f"JSON {NO_KIND}",
}
"""What is refused wherever it stands."""

VALUES = frozenset({TokenType.STRING, TokenType.NUMBER})
TYPES_AFTER = frozenset({TokenType.ALIAS, TokenType.DCOLON})
"""After AS and :: comes a name or a type."""

_REASONS = {
    r"REPEAT|SPACE|ZEROBLOB|RANDOMBLOB|GENERATE_\w+|RANGE|UNNEST|VALUES|JSON_TABLE|\w+_(EACH|TREE)|SEQUENCE": (
        "it makes values that no table holds"
    ),
    r"GROUP_CONCAT|CONCAT_WS|(STRING|ARRAY|LIST|XML)_?AGG|LISTAGG|(TO_)?JSON\w*|(ARRAY|LIST|STRUCT|MAP|ROW)(_\w+)?|"
    r"MAKE_SET|EXPORT_SET": FOLDS,
    r"RAND|RANDOM|UUID\w*|GEN_RANDOM_UUID|SETSEED": "it answers differently each time",
    r"(PG_)?SLEEP\w*|BENCHMARK|\w+_LOCKS?|MASTER_\w+": "it only makes the engine wait",
    r"LOAD_\w+|READ_\w+|\w+_FILE|GLOB|LO_\w+": "it reads the machine",
    r"\w*USER|VERSION|SQLITE_\w+|DATABASE|SCHEMA|CURRENT_\w+|CONNECTION_ID|LAST_\w+|FOUND_ROWS|ROW_COUNT|CHANGES|"
    r"TOTAL_CHANGES|PG_\w+|DUCKDB_\w+|PRAGMA_\w+|GETENV|SET_CONFIG": "it tells of the session, not of the data",
}
"""Patterns for names that are not allowed, the first that matches counts."""


def reason(function: str) -> str:
    """Return why a function or word in capitals is not allowed."""
    for pattern, why in _REASONS.items():
        if re.fullmatch(pattern, function):
            return why
    return "it is not among the allowed functions"


_KINDS = (
    exp.Select, exp.SetOperation, exp.Subquery, exp.With, exp.CTE, exp.TableAlias, exp.Table, exp.Lateral, exp.Column,
    exp.Identifier, exp.Literal, exp.Null, exp.Boolean, exp.Star, exp.Alias, exp.Tuple, exp.From, exp.Join, exp.Where,
    exp.Group, exp.Having, exp.Order, exp.Ordered, exp.Limit, exp.Offset, exp.Fetch, exp.LimitOptions, exp.Window,
    exp.WindowSpec, exp.Distinct, exp.Qualify, exp.Filter, exp.WithinGroup, exp.Between, exp.In, exp.Any, exp.All,
    exp.Unary, exp.Binary, exp.Interval, exp.IntervalSpan, exp.DataType, exp.DataTypeParam, exp.Var, exp.HexString,
    exp.BitString, exp.National, exp.Cube, exp.Rollup, exp.GroupingSets, exp.IgnoreNulls, exp.RespectNulls,
    exp.AtTimeZone, exp.Func,
)  # fmt: skip
_NOT_KINDS = (exp.Dot, exp.Kwarg, exp.PropertyEQ, exp.Adjacent)


ALLOWED_KINDS = frozenset(
    kind
    for kind in vars(exp).values()
    if isinstance(kind, type) and issubclass(kind, _KINDS) and not issubclass(kind, _NOT_KINDS)
)
"""Kinds of nodes in a parse, whatever they call: calls are looked up as written."""
