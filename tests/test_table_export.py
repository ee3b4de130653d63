import csv
import io
import json
import math
from typing import Any

import pandas as pd
import pytest

from soupcore.table_export import SUFFIXES, TableForm, export_table

TABLE = pd.DataFrame(
    {
        "name": ["run_1", "50% | a&b"],
        "accuracy": [89.142857142857, math.nan],
        "seed": [1, 2],
        "kept": [True, False],
        "note": [None, "two\nlines"],
    }
)
OPTIONS: dict[str, Any] = {"units": {"accuracy": "%"}, "decimals": {"accuracy": 2}}


def test_csv_has_all_digits_and_units() -> None:
    rows = list(csv.DictReader(io.StringIO(export_table(TABLE, "CSV", **OPTIONS))))
    assert float(rows[0]["accuracy, %"]) == TABLE["accuracy"][0]
    assert rows[1] == {
        "name": "50% | a&b", "accuracy, %": "", "seed": "2", "kept": "False", "note": "two\nlines",
    }  # fmt: skip


def test_json_lines_have_null_for_missing_values() -> None:
    first, second = map(json.loads, export_table(TABLE, "JSONL", **OPTIONS).splitlines())
    assert first == {
        "name": "run_1", "accuracy, %": 89.142857142857, "seed": 1, "kept": True, "note": None,
    }  # fmt: skip
    assert second["accuracy, %"] is None


def test_latex_is_escaped_and_aligned() -> None:
    assert export_table(TABLE, "LaTeX", **OPTIONS).splitlines() == [
        r"\begin{tabular}{lrrll}",
        r"\toprule",
        r"name & accuracy, \% & seed & kept & note \\",
        r"\midrule",
        r"run\_1 & 89.14 & 1 & True & – \\",
        r"50\% | a\&b & – & 2 & False & two lines \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_markdown_is_escaped_and_aligned() -> None:
    lines = export_table(TABLE, "Markdown", **OPTIONS).splitlines()
    assert lines[1] == "| --- | ---: | ---: | --- | --- |"
    assert "| 89.14 | 1 |" in lines[2]
    assert r"50\% \| a\&b" in lines[3]


@pytest.mark.parametrize("form", SUFFIXES)
def test_levels_of_columns_and_a_named_index_become_columns(form: TableForm) -> None:
    columns = pd.MultiIndex.from_tuples([("", "kind"), ("held out", "test")])
    index = pd.Index(["a"], name="soup")
    table = pd.DataFrame([["greedy", 0.5]], columns=columns, index=index)
    text = export_table(table, form).replace("\\:", ":")  # escaped in Markdown
    for part in ("soup", "kind", "held out: test", "greedy", "0.5"):
        assert part in text


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown form 'XLSX'; available: CSV, JSONL"):
        export_table(TABLE, "XLSX")  # type: ignore[arg-type]
