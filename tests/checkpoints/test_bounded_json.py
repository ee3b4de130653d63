import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soupcore.checkpoints.bounded_json import MOST_VALUES, parse_object

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
PLAIN = st.none() | st.booleans() | st.integers() | TEXTS


@settings(max_examples=20)
@given(
    st.dictionaries(
        TEXTS, st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner))
    )
)
def test_a_plain_object_is_parsed_as_json_does(value: dict[str, Any]) -> None:
    assert parse_object(json.dumps(value).encode()) == value
    assert parse_object(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"", "Expecting value", id="nothing"),
        pytest.param(b"[1]", "not an object", id="a list"),
        pytest.param(b'{"a":1', "delimiter", id="cut short"),
        pytest.param(b'{"a":1} x', "Extra data", id="more behind it"),
        pytest.param(b'{"a":1,"a":1}', "duplicate key", id="a key twice"),
        pytest.param(b'{"a":{"b":1,"\\u0062":1}}', "duplicate key", id="a key twice, once escaped"),
        pytest.param(b'{"\\ud800":1}', "codec", id="half a character for a key"),
        pytest.param(b'{"a":"\\udc00"}', "codec", id="half a character"),
        pytest.param(b'{"\xff":1}', "codec", id="not UTF-8"),
        pytest.param('{"a":1}'.encode("utf-16"), "codec", id="UTF-16"),
        pytest.param(b'\xef\xbb\xbf{"a":1}', "BOM", id="a byte order mark"),
        pytest.param(b'{"a":NaN}', "NaN is not valid JSON", id="not a number"),
        pytest.param(b'{"a":-Infinity}', "-Infinity is not valid JSON", id="infinity"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", "digits", id="digits"),
        pytest.param(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deep", id="deep"),
        pytest.param(
            b'{"a":[' + b"[]," * (MOST_VALUES // 2) + b"[]]}", "values", id="too many lists"
        ),
        pytest.param(b'{"a":[' + b"1," * MOST_VALUES + b"1]}", "values", id="too many numbers"),
        pytest.param(
            b'{"a":{' + b'"":"",' * (MOST_VALUES // 4) + b'"":""}}', "values", id="too many texts"
        ),
    ],
)
def test_ambiguous_or_too_large_json_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_object(content)
