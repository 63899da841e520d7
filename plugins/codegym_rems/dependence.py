"""Find out of each column that a query returns whether it depends on what stands in the database's tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from codegym_rems.foregone import is_false, is_foregone, is_zero, makes_one_row
from codegym_rems.known import Known, unknown_table
from codegym_rems.outputs import CONSTANT, DATA, NOTHING, PRESENCE, Output

_RANKS = (exp.RowNumber, exp.Rank, exp.DenseRank, exp.PercentRank, exp.CumeDist, exp.Ntile)
_SORTS = ("partition_by", "order")


@dataclass
class Scope:
    """What a query can see: the database, the CTEs, the tables in its FROM, and all that those around it see."""

    known: Known | None
    outer: Scope | None = None
    queries: dict[str, Output] = field(default_factory=dict)
    sources: list[tuple[str, Output]] = field(default_factory=list)
    aliases: dict[str, int] = field(default_factory=dict)
    filtered: bool = False

    def within(self, query: exp.Expr) -> Scope:
        """Return the scope of a query that stands in this one, with the CTEs of its WITH."""
        scope = Scope(self.known, self)
        with_ = query.args.get("with_")
        recursive = with_ and with_.args.get("recursive")
        for cte in with_.expressions if with_ else ():
            name, first = cte.alias.lower(), cte.this
            while recursive and isinstance(first, exp.SetOperation):
                first = first.this
            if first is not cte.this:  # it reads itself, as its first arm made it
                scope.queries[name] = _renamed(output(first, scope), cte)
            scope.queries[name] = _renamed(output(cte.this, scope), cte)
        return scope

    def query(self, name: str) -> Output | None:
        """Return the CTE of a name."""
        return self.queries.get(name) or (self.outer.query(name) if self.outer else None)

    def named(self, owner: str) -> list[Output]:
        """Return the sources of a name, all if it is empty."""
        return [source for name, source in self.sources if not owner or name == owner.lower()]

    @property
    def rows(self) -> bool:
        """True if which rows there are depends on a table: they come from one, or a condition reads one."""
        return self.filtered or any(source.rows for _, source in self.sources)

    def column(self, column: exp.Column) -> int:
        """Return the dependence of a column; the least where several have its name."""
        name, owner = column.name.lower(), column.table.lower()
        found = [source.of(name) for source in self.named(owner) if owner or source.has(name)]
        if found:
            return min(found)
        if not owner and name in self.aliases:
            return self.aliases[name]
        if self.outer:
            return self.outer.column(column)
        # Names that no table has are the engine's to report. But SQLite takes "Yes" for 'Yes' then, and the parser
        # takes MariaDB's SELECT SQL_CACHE 'Yes' for a column under another name.
        return CONSTANT if column.this.args.get("quoted") or name.startswith("sql_") else DATA


def arms(query: exp.Expr, scope: Scope) -> Iterator[tuple[exp.Select, Scope]]:
    """Yield each SELECT whose rows come out of the query, with its scope: the arms of a UNION."""
    scope = scope.within(query)
    if isinstance(query, exp.Select):
        yield query, scope
    elif isinstance(query, exp.SetOperation):
        yield from arms(query.this, scope)
        if not isinstance(query, exp.Except):  # what is taken away does not come out
            yield from arms(query.expression, scope)
    elif isinstance(query.this, exp.Expr):
        yield from arms(query.this, scope)


def output(query: exp.Expr, scope: Scope) -> Output:
    """Return what comes out of a query."""
    outputs = [selected(select, inner) for select, inner in arms(query, scope)]
    if len(outputs) <= 1:
        return outputs[0] if outputs else NOTHING
    rows = any(arm.rows for arm in outputs)
    if any(arm.others is not None for arm in outputs):
        return Output((), rows, others=min(level for arm in outputs for level in arm.levels))
    levels = map(min, zip(*([level for _, level in arm.columns] for arm in outputs), strict=False))
    return Output(tuple(zip((name for name, _ in outputs[0].columns), levels, strict=False)), rows)


def selected(select: exp.Select, scope: Scope) -> Output:
    """Return what comes out of one SELECT, and enter its tables into its scope."""
    _enter(select, scope)
    conditions = [select.args.get("where"), *(join.args.get("on") for join in select.args.get("joins") or ())]
    scope.filtered = not scope.rows and _most([each for each in conditions if each], scope) > CONSTANT
    having = select.args.get("having")
    rows = scope.rows and not makes_one_row(select)
    rows = rows or bool(having and dependence(having, scope) > CONSTANT)
    columns: list[tuple[str, int]] = []
    others: list[int] = []
    for projection in select.expressions:
        if projection.is_star:
            for source in scope.named(projection.table if isinstance(projection, exp.Column) else ""):
                columns += source.columns
                others += [] if source.others is None else [source.others]
            continue
        level = dependence(projection, scope)
        name = projection.alias_or_name if isinstance(projection, exp.Alias | exp.Column | exp.Literal) else ""
        columns.append((name.lower(), level))
        scope.aliases[name.lower()] = min(level, scope.aliases.get(name.lower(), DATA))
    return Output(tuple(columns), rows, min(others, default=None))


def _enter(node: exp.Expr, scope: Scope) -> None:
    """Enter what stands in FROM and in JOIN: tables, derived tables, and those in brackets."""
    args = node.args
    for source in [args.get("from_"), *(args.get("joins") or ()), *(args.get("laterals") or ())]:
        inner = source.this if isinstance(source, exp.From | exp.Join) else source
        if isinstance(inner, exp.Expr):
            _enter_source(inner, scope)


def _enter_source(source: exp.Expr, scope: Scope) -> None:
    inner = source.this
    if isinstance(source, exp.Subquery | exp.Paren) and not isinstance(inner, exp.Query):  # (a JOIN b)
        _enter_source(inner, scope)
    else:
        scope.sources.append((source.alias_or_name.lower(), _renamed(_source(source, scope), source)))
    _enter(source, scope)


def _source(source: exp.Expr, scope: Scope) -> Output:
    if isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier):
        name, owner = source.name.lower(), source.db.lower()
        if not owner and (query := scope.query(name)):
            return query
        if unknown_table(name, owner, scope.known):
            return NOTHING
        columns = scope.known.tables[name] if scope.known else None
        if columns is None:
            return Output((), rows=True, others=DATA)
        return Output(tuple((column, DATA) for column in columns), rows=True)
    inner = source.this if isinstance(source, exp.Lateral) else source
    if isinstance(inner, exp.Subquery):
        return output(inner, scope)
    level = _most(source.iter_expressions(), scope)  # VALUES, UNNEST, a function
    return Output((), rows=level > CONSTANT, others=level)


def _renamed(result: Output, source: exp.Expr) -> Output:
    """Return the output of a source under the column names of its alias, as in `AS x (a, b)`."""
    alias = source.args.get("alias")
    names = [column.name.lower() for column in alias.args.get("columns") or ()] if alias else []
    if not names:
        return result
    if result.others is not None:  # where the unknown columns stand is unknown too
        return Output((), result.rows, min(result.levels))
    renamed = [(name, level) for name, (_, level) in zip(names, result.columns, strict=False)]
    return Output((*renamed, *result.columns[len(names) :]), result.rows)


def dependence(node: exp.Expr, scope: Scope) -> int:
    """Return how an expression depends on the tables."""
    if isinstance(node, exp.Column):
        return scope.column(node)
    if isinstance(node, exp.Query):
        result = output(node, scope)
        return max([*result.levels, PRESENCE if result.rows else CONSTANT])
    if is_foregone(node):
        return CONSTANT
    rule = _RULES.get(type(node))
    if rule is not None:
        return rule(node, scope)
    level = _most(node.iter_expressions(), scope)
    return max(level, PRESENCE) if isinstance(node, exp.AggFunc) and scope.rows else level


def _most(nodes: Iterator[exp.Expr] | Sequence[exp.Expr], scope: Scope) -> int:
    return max((dependence(node, scope) for node in nodes), default=CONSTANT)


def _of_rows(node: exp.Expr, scope: Scope) -> int:
    """COUNT and SUM of the rows themselves, also of constants; not of distinct constants, nor of NULL."""
    counted = node.this
    if isinstance(counted, exp.Distinct):
        return max(_most(counted.iter_expressions(), scope), PRESENCE if scope.rows else CONSTANT)
    if isinstance(node, exp.Sum) and is_zero(counted):
        return PRESENCE if scope.rows else CONSTANT
    return DATA if scope.rows and not isinstance(counted, exp.Null) else _most(node.iter_expressions(), scope)


def _of_window(node: exp.Expr, scope: Scope) -> int:
    if not isinstance(node.this, _RANKS):
        return dependence(node.this, scope)
    # Among rows in no order, ROW_NUMBER() only counts up.
    windows = [node, *_named_window(node)]
    sorts = [part for window in windows for part in window.iter_expressions() if part.arg_key in _SORTS]
    return _most(sorts, scope)


def _named_window(node: exp.Expr) -> list[exp.Expr]:
    """Return the definition of the window that `OVER w` names."""
    select, name = node.find_ancestor(exp.Select), node.args.get("alias")
    if not select or not name:
        return []
    return [window for window in select.args.get("windows") or () if window.name.lower() == name.name.lower()]


def _of_chosen(node: exp.Expr, scope: Scope) -> int:
    """FILTER, ARG_MAX and an ORDER BY in an aggregate, which only choose of which row it is."""
    return dependence(node.this, scope) if node.this else _most(node.iter_expressions(), scope)


def _of_existence(node: exp.Expr, scope: Scope) -> int:
    """EXISTS: whether there is such a row."""
    if not isinstance(node.this, exp.Query):
        return _most(node.iter_expressions(), scope)
    return DATA if output(node.this, scope).rows else CONSTANT


def _of_membership(node: exp.Expr, scope: Scope) -> int:
    """IN, ANY and ALL of a query: whether there is such a row."""
    level = _most(node.iter_expressions(), scope)
    return DATA if level and any(isinstance(child, exp.Query) for child in node.iter_expressions()) else level


def _of_null_test(node: exp.Expr, scope: Scope) -> int:
    return DATA if _most(node.iter_expressions(), scope) else CONSTANT


def _of_case(node: exp.Expr, scope: Scope) -> int:
    """CASE and IF: what decides, if its results differ."""
    branches = node.args.get("ifs") or [node]
    decisive = [branch.this for branch in branches]
    if isinstance(node, exp.Case) and node.this:
        always = all(condition == node.this for condition in decisive)  # CASE x WHEN x
        decisive = [] if always else [*decisive, node.this]
    last = node.args.get("default") or node.args.get("false") or exp.Null()
    results = [*(branch.args["true"] for branch in branches), last]
    if all(result == results[0] for result in results):
        return dependence(results[0], scope)
    if _most(decisive, scope):
        return DATA
    return min(dependence(result, scope) for result in results)  # constants decide: it may be any


def _of_coalesce(node: exp.Expr, scope: Scope) -> int:
    """COALESCE and IFNULL: what comes before the first constant, and whether it is there."""
    values = [value for value in (node.this, *node.expressions) if not isinstance(value, exp.Null)]
    levels = [dependence(value, scope) for value in values]
    end = levels.index(CONSTANT) if CONSTANT in levels else len(values)
    level = max(levels[:end], default=CONSTANT)
    texts = {literal.this for value in values[: end + 1] for literal in value.find_all(exp.Literal)}
    return DATA if level == PRESENCE and len(texts) > 1 else level


def _of_nullif(node: exp.Expr, scope: Scope) -> int:
    return max(dependence(node.this, scope), min(dependence(node.expression, scope), PRESENCE))


def _of_replace(node: exp.Expr, scope: Scope) -> int:
    if node.this == node.expression:  # REPLACE(x, x, 'Yes')
        replacement = node.args.get("replacement")
        return dependence(replacement, scope) if replacement else CONSTANT
    return _most(node.iter_expressions(), scope)


def _of_or(node: exp.Expr, scope: Scope) -> int:
    """OR: a constant beside it decides alone, but one that is false does not."""
    sides = [side for side in (node.this, node.expression) if not is_false(side)]
    return min((dependence(side, scope) for side in sides), default=CONSTANT)


_RULES: dict[type[exp.Expr], Callable[[exp.Expr, Scope], int]] = {
    exp.Count: _of_rows,
    exp.CountIf: _of_rows,
    exp.Sum: _of_rows,
    exp.Window: _of_window,
    exp.Filter: _of_chosen,
    exp.ArgMax: _of_chosen,
    exp.ArgMin: _of_chosen,
    exp.Order: _of_chosen,
    exp.Exists: _of_existence,
    exp.In: _of_membership,
    exp.Any: _of_membership,
    exp.All: _of_membership,
    exp.Is: _of_null_test,
    exp.Case: _of_case,
    exp.If: _of_case,
    exp.Coalesce: _of_coalesce,
    exp.Nullif: _of_nullif,
    exp.Replace: _of_replace,
    exp.Or: _of_or,
}
