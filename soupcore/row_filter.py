"""Filters of a table: `lr < 0.02 and kind = soup`.

A filter consists of conditions joined by `and` and `or`; `and` binds tighter. A condition is
`column operator value`, or a text that the name contains. Filters are only compared with values and
never evaluated as code.

- Operators: `=`, `!=`, `<`, `<=`, `>`, `>=`, and `~` for "contains".
- A column is named by its title or by any beginning of it that no other title has, in upper or
  lower case. Quotes, single or double, enclose names and values with operators, `and` or `or`.
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
    |(?P<operator><=|>=|!=|==|[=<>~≤≥≠])|(?P<word>[^\s"'<>=~!≤≥≠]+|!))""",
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


class _Token(NamedTuple):
    kind: str  # text, operator, and, or
    text: str


class _Condition(NamedTuple):
    column: str
    test: Test


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
    alternatives = [[_condition(part, table, name) for part in group] for group in _groups(text)]
    if not alternatives:
        return list(rows)
    return [
        row
        for row in rows
        if any(all(c.test(table[c.column][row]) for c in group) for group in alternatives)
    ]


def _groups(text: str) -> list[list[list[_Token]]]:
    """Return the alternatives of a filter, each a list of conditions; empty for no filter."""
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
        if kind == "operator":
            found.append(_Token("operator", _SAME.get(token, token)))
        elif kind == "word" and token.lower() in ("and", "or"):
            found.append(_Token(token.lower(), token))
        else:
            found.append(_Token("text", token))
    return found


def _condition(
    tokens: Sequence[_Token], table: Mapping[str, Sequence[Any]], name: str
) -> _Condition:
    operators = [index for index, token in enumerate(tokens) if token.kind == "operator"]
    words = " ".join(token.text for token in tokens)
    if not operators:
        return _Condition(name, _contains(words))
    if len(operators) > 1:
        raise FilterError(
            f"“{words}” has several operators. Join conditions with “and”, such as lr > 0.001 and "
            "lr < 0.1."
        )
    at = operators[0]
    left, operator, right = tokens[:at], tokens[at].text, tokens[at + 1 :]
    if not left or not right:
        missing = "a column before" if not left else "a value after"
        raise FilterError(f"Write {missing} {operator} in “{words}”.")
    column = _column(" ".join(token.text for token in left), table)
    value = " ".join(token.text for token in right)
    return _Condition(column, _test(column, operator, value, table[column]))


def _column(text: str, table: Mapping[str, Sequence[Any]]) -> str:
    if text in table:
        return text
    wanted = text.casefold()
    equal = [column for column in table if column.casefold() == wanted]
    found = equal or [column for column in table if column.casefold().startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise FilterError(f"“{text}” may mean {_some(found)}. Write more of the name.")
    raise FilterError(f"There is no column “{text}”. Columns: {_some([c for c in table if c])}.")


def _some(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - _LISTED} more" if len(columns) > _LISTED else ""
    return ", ".join(f"“{column}”" for column in columns[:_LISTED]) + more


def _test(column: str, operator: str, value: str, values: Sequence[Any]) -> Test:
    if operator == "~":
        return _contains(value)
    known = [each for each in values if not _is_missing(each)]
    if known and all(map(_is_number, known)):
        return _number_test(column, operator, value)
    if operator in _ORDERS:
        raise FilterError(f"“{column}” holds text. Use =, != or ~ (contains).")
    wanted = value.casefold()

    def equals(each: Any) -> bool:
        return not _is_missing(each) and str(each).casefold() == wanted

    return equals if operator == "=" else lambda each: not equals(each)


def _number_test(column: str, operator: str, value: str) -> Test:
    try:
        limit = float(value)
    except ValueError:
        raise FilterError(f"“{column}” holds numbers, and “{value}” is not one.") from None
    if operator in _ORDERS:
        order = _ORDERS[operator]
        return lambda each: not _is_missing(each) and order(float(each), limit)

    def equals(each: Any) -> bool:
        return not _is_missing(each) and math.isclose(float(each), limit, rel_tol=_EXACT)

    return equals if operator == "=" else lambda each: not equals(each)


def _contains(value: str) -> Test:
    wanted = value.casefold()
    return lambda each: not _is_missing(each) and wanted in str(each).casefold()


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
