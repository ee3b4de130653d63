from pathlib import Path

import pytest

from soupcore import SweepError
from soupcore.sweeps.hyperparameters import (
    Scalar,
    choose_columns,
    read_sidecar,
    read_table,
    with_details,
)

JSONL, CSV = "sweep.jsonl", "sweep.csv"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            JSONL,
            '{"name": "a", "lr": 0.001, "epochs": 8, "mixup": true, "aug": "rand", "wd": null}\n',
            {"a": {"lr": 0.001, "epochs": 8, "mixup": True, "aug": "rand", "wd": None}},
        ),
        (JSONL, '\n{"checkpoint": "a.pt", "name": "x"}\n\n', {"a.pt": {"name": "x"}}),
        (JSONL, '{"name": "a"}\n{"name": "b", "lr": 1}', {"a": {}, "b": {"lr": 1}}),
        (
            JSONL,
            '{"name": "a", "betas": [0.9, 0.99], "opt": {"name": "sgd"}}',
            {"a": {"betas": "[0.9, 0.99]", "opt": '{"name": "sgd"}'}},
        ),
        (JSONL, '{"name": "a", "lr": NaN, "wd": Infinity}', {"a": {"lr": None, "wd": None}}),
        (JSONL, '{"name": "模型", "note": "α\u2028β\x85"}', {"模型": {"note": "α\u2028β\x85"}}),
        (JSONL, '{"name": "a", "lr": 1}\r\n{"name": "b"}\r\n', {"a": {"lr": 1}, "b": {}}),
        (JSONL, "", {}),
        (
            CSV,
            "checkpoint,lr,epochs,aug\na.pt,1e-3,8,rand\nb.pt,,9,\n",
            {
                "a.pt": {"lr": 0.001, "epochs": 8, "aug": "rand"},
                "b.pt": {"lr": None, "epochs": 9, "aug": None},
            },
        ),
        (CSV, "lr,name\n0.5,001\n0.25,1e3\n", {"001": {"lr": 0.5}, "1e3": {"lr": 0.25}}),
        (CSV, "\ufeffname,lr\nα,2\n", {"α": {"lr": 2}}),
        (CSV, "name,lr\n", {}),
    ],
    ids=[
        "scalars",
        "checkpoint before name",
        "rows of different columns",
        "lists and objects become text",
        "numbers that are not finite are unknown",
        "other scripts and line separators inside text",
        "lines of Windows",
        "empty file",
        "CSV with gaps",
        "names that look like numbers",
        "CSV of a spreadsheet",
        "CSV without rows",
    ],
)
def test_a_table_is_read_by_name(
    tmp_path: Path, name: str, content: str, expected: dict[str, dict[str, Scalar]]
) -> None:
    (tmp_path / name).write_bytes(content.encode())
    found = read_table(tmp_path)
    assert found == expected
    assert [*map(repr, found.values())] == [*map(repr, expected.values())]  # 1, True and 1.0 differ


def test_without_a_table_nothing_is_known(tmp_path: Path) -> None:
    assert read_table(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (JSONL, b'{"name": "a"}\n\n{"name": ', "sweep.jsonl, line 3 is not JSON"),
        (JSONL, b"[1]", "sweep.jsonl, line 1 is not a JSON object"),
        (JSONL, b'{"name": "caf\xe9"}', "sweep.jsonl .*not UTF-8"),
        (JSONL, b'{"name": ' + b"[" * 100_000, "sweep.jsonl, line 1 is not JSON"),
        (JSONL, b'{"lr": 1}', "row 1: there is no text under 'checkpoint' or 'name'"),
        (JSONL, b'{"name": "a"}\n{"name": 7}', "row 2: there is no text under"),
        (JSONL, b'{"name": "a"}\n{"name": "a"}', "row 2: 'a' stands in the table twice"),
        (CSV, b"", "sweep.csv is not a CSV table"),
        (CSV, b'name,lr\n"a,1\n', "sweep.csv is not a CSV table"),
        (CSV, b"name,lr\na,1\nb,1,2\n", "sweep.csv is not a CSV table"),
        (CSV, b"name,lr\ncaf\xe9,1\n", "sweep.csv is not a CSV table"),
        (CSV, b"model,lr\na,1\n", "row 1: there is no text under"),
        (CSV, b"name,lr\n,1\n", "row 1: there is no text under"),
        (CSV, b"name,lr\na,1\na,2\n", "row 2: 'a' stands in the table twice"),
    ],
)
def test_a_wrong_table_is_refused_with_the_file_and_the_place(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SweepError, match=problem) as caught:
        read_table(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_two_tables_are_refused(tmp_path: Path) -> None:
    (tmp_path / JSONL).touch()
    (tmp_path / CSV).touch()
    with pytest.raises(SweepError, match=r"has both sweep\.jsonl and sweep\.csv; keep one"):
        read_table(tmp_path)


def test_a_sidecar_holds_the_hyperparameters_of_one_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"lr": 0.1, "betas": [0.9], "note": "naïve"}', "utf-8")
    assert read_sidecar(tmp_path / "a.json") == {"lr": 0.1, "betas": "[0.9]", "note": "naïve"}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xff", b"[" * 100_000])
def test_a_wrong_sidecar_is_refused_by_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(SweepError, match=r"a\.json is not .*; mend or remove it"):
        read_sidecar(tmp_path / "a.json")


@pytest.mark.parametrize("name", [JSONL, CSV, "a.json"])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[]," * (3 << 20), "has more than 8 MiB, which no hyperparameters take; shorten or remo"),
        (
            b'{"name": "a"%s}' % b"".join(b', "%d": 1' % number for number in range(1001)),
            r"tells 1,00\d things of a run; 1,000 are possible\. Shorten or remove it",
        ),
    ],
    ids=["large", "wide"],
)
def test_what_takes_too_much_is_refused_by_file_before_it_is_parsed(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SweepError, match=problem) as caught:
        read_sidecar(tmp_path / name) if name == "a.json" else read_table(tmp_path)
    assert str(tmp_path / name) in str(caught.value)


def test_what_people_say_of_a_run_goes_before_what_its_checkpoint_says() -> None:
    told: dict[str, Scalar] = {"lr": 0.1, "note": None}
    details: dict[str, Scalar] = {"epoch": 3, "lr": 0.2, "note": "x"}
    merged = with_details(told, details)
    assert merged == {"lr": 0.1, "note": None, "epoch": 3}
    assert list(merged) == ["lr", "note", "epoch"]


@pytest.mark.parametrize(
    ("told", "details", "columns"),
    [
        pytest.param([{"lr": 1}, {"lr": 1, "wd": 2}], [{}, {}], ["lr", "wd"], id="told: all"),
        pytest.param([{}, {}], [{"a": 1, "b": 2}, {"a": 1, "b": 3}], ["b"], id="same in all"),
        pytest.param([{}, {}], [{"a": 1}, {"b": 1}], ["a", "b"], id="missing in some"),
        pytest.param([{}, {}], [{"a": 1}, {"a": True}], ["a"], id="another kind"),
        pytest.param([{}], [{"a": 1}], [], id="one run alone"),
        pytest.param([{"a": 1}, {}], [{"a": 5}, {"a": 6}], ["a"], id="told of one"),
        pytest.param(
            [{}, {}],
            [{"path": "x", "epoch": 1, "tag": "y"}, {"path": "z", "epoch": 2, "tag": "w"}],
            ["epoch", "path", "tag"],
            id="numbers before text",
        ),
        pytest.param(
            [{}, {}],
            [{f"k{i}": i + j for i in range(100)} for j in range(2)],
            [f"k{i}" for i in range(12)],
            id="not too many",
        ),
    ],
)
def test_what_is_worth_a_column(
    told: list[dict[str, Scalar]], details: list[dict[str, Scalar]], columns: list[str]
) -> None:
    assert choose_columns(told, details) == columns
