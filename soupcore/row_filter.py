"""Filters of a table: `lr < 0.02 and kind = soup`.

A filter consists of conditions joined by `and` and `or`; `and` binds tighter. A condition is
`column operator value`, or a text that the name contains. Filters are only compared with values and
never evaluated as code.

- Operators: `=`, `!=`, `<`, `<=`, `>`, `>=`, and `~` for "contains".
- `|` separates alternatives of a value: `optimizer = sgd | adamw`.
- A column is named by its title or by any beginning of it that no other title has, in upper or
  lower case. Quotes, single or double, enclose names and values with operators, `|`, `and` or `or`.
- Numbers are compared as numbers, texts in upper or lower case. Only `!=` is true of a missing
  value.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from soupcore.errors import StockpotError

_TOKEN = re.compile(
    r"""\s*(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'
    |(?P<operator><=|>=|!=|==|[=<>~≤≥≠])|(?P<bar>\|)|(?P<word>[^\s"'<>=~!≤≥≠|]+|!))""",
    re.VERBOSE,
)
_SAME = {"==": "=", "≤": "<=", "≥": ">=", "≠": "!="}
_ORDERS: Mapping[str, Callable[[float, float], bool]] = {
    "<": lambda value, limit: value < limit,
    "<=": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    ">=": lambda value, limit: value >= limit,
}
_EXACT = 1e-12  # relative; a number that was written with all its digits equals itself
_LISTED = 6

Test = Callable[[Any], bool]


class FilterError(StockpotError):
    """A filter cannot be understood; the message names the part that is wrong."""


class Limits(NamedTuple):
    """The values of a column that a filter lets pass, both ends included."""

    low: float = -math.inf
    high: float = math.inf


class _Token(NamedTuple):
    kind: str  # text, operator, bar, and, or
    text: str
    source: str


class _Condition(NamedTuple):
    """A part of a filter; without an operator, `column` is that of the names."""

    column: str
    operator: str
    values: tuple[str, ...]
    source: str


def matching_rows(text: str, table: Mapping[str, Sequence[Any]], name: str = "name") -> list[int]:
    """Return the rows that satisfy a filter, in their order.

    Args:
        text: The filter; empty for all rows.
        table: `{column: values}`, all equally long. Missing values are None or NaN.
        name: The column that texts without an operator are looked for in.

    Raises:
        FilterError: A column is unknown or ambiguous, or a condition is incomplete.
    """
    rows = range(len(table[name]))
    alternatives = [
        [(c.column, _test(c, table[c.column])) for c in group]
        for group in _alternatives(text, table, name)
    ]
    if not alternatives:
        return list(rows)
    return [
        row
        for row in rows
        if any(all(test(table[column][row]) for column, test in group) for group in alternatives)
    ]


def limits(
    text: str, table: Mapping[str, Sequence[Any]], name: str = "name"
) -> dict[str, Limits | tuple[str, ...]]:
    """Return the limits that a filter sets on single columns: of numbers, or the texts that pass.

    Only conditions that all alternatives of the filter share count, and `<` counts as `<=`.

    Args:
        text: The filter.
        table: As for `matching_rows`.
        name: As for `matching_rows`.

    Raises:
        FilterError: As for `matching_rows`.
    """
    alternatives = _alternatives(text, table, name)
    if not alternatives:
        return {}
    found = [_limits_of(group, table) for group in alternatives]
    return {
        column: limit
        for column, limit in found[0].items()
        if all(other.get(column) == limit for other in found)
    }


def with_limits(
    text: str,
    changes: Mapping[str, Limits | Sequence[str] | None],
    table: Mapping[str, Sequence[Any]],
    name: str = "name",
) -> str:
    """Return a filter with other limits of some columns; see `limits`.

    Limits are written with the fewest digits that let the same values pass.

    Args:
        text: The filter.
        changes: `{column: limits of numbers, or the texts that pass}`; None for no limits.
        table: As for `matching_rows`.
        name: As for `matching_rows`.

    Raises:
        FilterError: As for `matching_rows`, or a name or a text cannot be quoted because it
            contains both kinds of quotes.
    """
    added = [part for column, limit in changes.items() for part in _written(column, limit, table)]
    kept = [
        [c.source for c in group if c.column not in changes or not _is_limit(c, table)]
        for group in _alternatives(text, table, name) or [[]]
    ]
    if any(not parts for parts in kept):  # an alternative without conditions admits all rows
        kept = [[]]
    groups = dict.fromkeys(" and ".join([*parts, *added]) for parts in kept)
    return " or ".join(groups)


def _limits_of(
    group: Sequence[_Condition], table: Mapping[str, Sequence[Any]]
) -> dict[str, Limits | tuple[str, ...]]:
    found: dict[str, Limits | tuple[str, ...]] = {}
    for condition in group:
        if not _is_limit(condition, table):
            continue
        _test(condition, table[condition.column])  # raises if the values make no sense
        before = found.get(condition.column)
        if not _holds_numbers(table[condition.column]):
            passing = condition.values
            if isinstance(before, tuple) and not isinstance(before, Limits):
                passing = tuple(each for each in passing if each in before)
            found[condition.column] = passing
            continue
        low, high = before if isinstance(before, Limits) else Limits()
        value = float(condition.values[0])
        if condition.operator in ("=", ">", ">="):
            low = max(low, value)
        if condition.operator in ("=", "<", "<="):
            high = min(high, value)
        found[condition.column] = Limits(low, high)
    return found


def _is_limit(condition: _Condition, table: Mapping[str, Sequence[Any]]) -> bool:
    if not _holds_numbers(table[condition.column]):
        return condition.operator == "="
    is_one = condition.operator == "=" and len(condition.values) == 1
    return is_one or condition.operator in _ORDERS


def _written(
    column: str, limit: Limits | Sequence[str] | None, table: Mapping[str, Sequence[Any]]
) -> list[str]:
    if limit is None:
        return []
    if not isinstance(limit, Limits):
        return [f"{_quoted(column)} = {' | '.join(map(_quoted, limit))}"]
    known = [float(value) for value in table[column] if not _is_missing(value)]
    return [
        f"{_quoted(column)} {operator} {_short(end, known, _ORDERS[operator])}"
        for operator, end in ((">=", limit.low), ("<=", limit.high))
        if math.isfinite(end)
    ]


def _short(limit: float, values: Sequence[float], order: Callable[[float, float], bool]) -> str:
    """Return the shortest text of a limit that lets the same values pass."""
    passing = [order(value, limit) for value in values]
    short = (float(f"{limit:.{digits}g}") for digits in range(3, 17))
    same = (each for each in short if [order(value, each) for value in values] == passing)
    return repr(next(same, limit)).removesuffix(".0")


def _quoted(text: str) -> str:
    """Return a name or a value as it is written in a filter."""
    try:
        tokens = _tokens(text)
    except FilterError:
        tokens = []
    plain = bool(tokens) and all(token.kind == "text" for token in tokens)
    if plain and " ".join(token.source for token in tokens) == text:
        return text
    for quote in ('"', "'"):
        if quote not in text:
            return f"{quote}{text}{quote}"
    raise FilterError(f"“{text}” contains both kinds of quotes, so a filter cannot name it.")


def _alternatives(
    text: str, table: Mapping[str, Sequence[Any]], name: str
) -> list[list[_Condition]]:
    """Return the alternatives of a filter, each a list of conditions; empty for no filter."""
    return [[_condition(part, table, name) for part in group] for group in _groups(text)]


def _groups(text: str) -> list[list[list[_Token]]]:
    """Return the tokens of the conditions of each alternative; empty for no filter."""
    groups: list[list[list[_Token]]] = [[[]]]
    tokens = _tokens(text)
    if not tokens:
        return []
    for token in tokens:
        if token.kind == "or":
            groups.append([[]])
        elif token.kind == "and":
            groups[-1].append([])
        else:
            groups[-1][-1].append(token)
    if any(not part for group in groups for part in group):
        raise FilterError("Write a condition on both sides of “and” and “or”, or quote the word.")
    return groups


def _tokens(text: str) -> list[_Token]:
    found, place = [], 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise FilterError("A quotation mark is not closed.")
        place = match.end()
        kind, token = str(match.lastgroup), str(match[str(match.lastgroup)])
        source = match[0].strip()
        if kind == "operator":
            found.append(_Token("operator", _SAME.get(token, token), source))
        elif kind == "bar":
            found.append(_Token("bar", token, source))
        elif kind == "word" and token.lower() in ("and", "or"):
            found.append(_Token(token.lower(), token, source))
        else:
            found.append(_Token("text", token, source))
    return found


def _condition(
    tokens: Sequence[_Token], table: Mapping[str, Sequence[Any]], name: str
) -> _Condition:
    operators = [index for index, token in enumerate(tokens) if token.kind == "operator"]
    words = " ".join(token.text for token in tokens)
    source = " ".join(token.source for token in tokens)
    if len(operators) > 1:
        raise FilterError(
            f"“{words}” has several operators. Join conditions with “and”, such as lr > 0.001 and "
            "lr < 0.1."
        )
    if not operators:
        return _Condition(name, "", _values(tokens, words), source)
    at = operators[0]
    left, operator, right = tokens[:at], tokens[at].text, tokens[at + 1 :]
    if not left or not right:
        missing = "a column before" if not left else "a value after"
        raise FilterError(f"Write {missing} {operator} in “{words}”.")
    column = _column(" ".join(token.text for token in left), table)
    return _Condition(column, operator, _values(right, words), source)


def _values(tokens: Sequence[_Token], words: str) -> tuple[str, ...]:
    """Return the values that `|` separates."""
    values: list[list[str]] = [[]]
    for token in tokens:
        if token.kind == "bar":
            values.append([])
        else:
            values[-1].append(token.text)
    if any(not value for value in values):
        raise FilterError(f"Write a value on both sides of “|” in “{words}”, or quote it.")
    return tuple(" ".join(value) for value in values)


def _column(text: str, table: Mapping[str, Sequence[Any]]) -> str:
    if text in table:
        return text
    wanted = text.casefold()
    equal = [column for column in table if column.casefold() == wanted]
    found = (
        equal
        or [column for column in table if column.casefold().startswith(wanted)]
        or [column for column in table if _initials(column) == wanted]
    )
    if len(found) == 1:
        return found[0]
    if found:
        raise FilterError(f"“{text}” may mean {_some(found)}. Write more of the name.")
    raise FilterError(f"There is no column “{text}”. Columns: {_some([c for c in table if c])}.")


def _initials(column: str) -> str:
    """Return the initials of the words of a name, such as `lr` of `learning_rate`."""
    return "".join(word[0] for word in re.split(r"[\s_.-]+", column.casefold()) if word)


def _some(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - _LISTED} more" if len(columns) > _LISTED else ""
    return ", ".join(f"“{column}”" for column in columns[:_LISTED]) + more


def _test(condition: _Condition, values: Sequence[Any]) -> Test:
    column, operator, wanted = condition.column, condition.operator, condition.values
    if operator in _ORDERS:
        return _order_test(column, operator, wanted, values)
    if operator in ("", "~"):
        tests = [_contains(value) for value in wanted]
    elif _holds_numbers(values):
        tests = [_equals_number(_number(column, value)) for value in wanted]
    else:
        tests = [_equals_text(value.casefold()) for value in wanted]
    if operator == "!=":
        return lambda each: not any(test(each) for test in tests)
    return lambda each: any(test(each) for test in tests)


def _order_test(column: str, operator: str, wanted: Sequence[str], values: Sequence[Any]) -> Test:
    if not _holds_numbers(values):
        raise FilterError(f"“{column}” holds text. Use =, != or ~ (contains).")
    if len(wanted) > 1:
        raise FilterError(f"Write one value after {operator}, not {' | '.join(wanted)}.")
    order, limit = _ORDERS[operator], _number(column, wanted[0])
    return lambda each: not _is_missing(each) and order(float(each), limit)


def _number(column: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise FilterError(f"“{column}” holds numbers, and “{value}” is not one.") from None


def _equals_number(wanted: float) -> Test:
    return lambda each: not _is_missing(each) and math.isclose(float(each), wanted, rel_tol=_EXACT)


def _equals_text(wanted: str) -> Test:
    return lambda each: not _is_missing(each) and str(each).casefold() == wanted


def _contains(value: str) -> Test:
    wanted = value.casefold()
    return lambda each: not _is_missing(each) and wanted in str(each).casefold()


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _holds_numbers(values: Sequence[Any]) -> bool:
    known = [each for each in values if not _is_missing(each)]
    return bool(known) and all(map(_is_number, known))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
