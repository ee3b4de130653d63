from collections.abc import Mapping
from pathlib import Path

import pytest

from soupcore.sweeps.hyperparameters import (
    Sidecars,
    choose_columns,
    read_sidecars,
    run_columns,
)
from soupcore.sweeps.run_files import RunDetails
from soupcore.sweeps.tables import Scalar

JSONL, CSV = "sweep.jsonl", "sweep.csv"


def sidecars(folder: Path, *files: str) -> Sidecars:
    """Read the sidecars of checkpoint files, which need not exist."""
    return read_sidecars(folder, {file.removesuffix(".pt"): folder / file for file in files})


def problems(found: Sidecars) -> list[tuple[str, str]]:
    return [(finding.ingredient, finding.problem) for finding in found.findings]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            JSONL,
            '{"name": "a", "lr": 0.001, "epochs": 8, "mixup": true, "aug": "rand", "wd": null}\n',
            {"a": {"lr": 0.001, "epochs": 8, "mixup": True, "aug": "rand", "wd": None}},
        ),
        (JSONL, '\n{"checkpoint": "a.pt", "name": "x"}\n\n', {"a": {"name": "x"}}),
        (JSONL, '{"name": "a"}\n{"name": "b", "lr": 1}', {"a": {}, "b": {"lr": 1}}),
        (
            JSONL,
            '{"name": "a", "betas": [0.9, 0.99], "opt": {"name": "sgd"}}',
            {"a": {"betas": "[0.9, 0.99]", "opt": '{"name": "sgd"}'}},
        ),
        (JSONL, '{"name": "a", "lr": NaN, "wd": Infinity}', {"a": {"lr": None, "wd": None}}),
        (JSONL, '{"name": "模型", "note": "α\u2028β\x85"}', {"模型": {"note": "α\u2028β\x85"}}),
        (JSONL, '{"name": "a", "lr": 1}\r\n{"name": "b"}\r\n', {"a": {"lr": 1}, "b": {}}),
        (JSONL, '[{"name": "a", "lr": 1}, {"name": "b"}]', {"a": {"lr": 1}, "b": {}}),
        (JSONL, '{"name": 7, "lr": "1e-4", "n": "12"}', {"7": {"lr": 1e-4, "n": 12}}),
        (
            JSONL,
            '{"name": "a", "seed": 36893488147419103232, "tag": "1.2.3", "half": "\\udc80"}',
            {"a": {"seed": "36893488147419103232", "tag": "1.2.3", "half": "\\udc80"}},
        ),
        (JSONL, "", {}),
        (
            CSV,
            "checkpoint,lr,epochs,aug\na.pt,1e-3,8,rand\nb.pt,,9,\n",
            {
                "a": {"lr": 0.001, "epochs": 8, "aug": "rand"},
                "b": {"lr": None, "epochs": 9, "aug": None},
            },
        ),
        (CSV, "lr,name\n0.5,001\n0.25,1e3\n", {"001": {"lr": 0.5}, "1e3": {"lr": 0.25}}),
        (CSV, "\ufeffname,lr\nα,2\n", {"α": {"lr": 2}}),
        (CSV, "name,lr\n", {}),
        (CSV, '"Name","State"\n"a","finished"\n', {"a": {"State": "finished"}}),
        (
            CSV,
            "ID,Name,lr\n9x,a,1\n8y,b,2\n",
            {"a": {"ID": "9x", "lr": 1}, "b": {"ID": "8y", "lr": 2}},
        ),
        (CSV, "model,run_name,lr\nresnet50,a,1\n", {"a": {"model": "resnet50", "lr": 1}}),
        (CSV, "experiment,lr\na,1\n", {"a": {"lr": 1}}),
        (CSV, "checkpoint;lr;loss\na;0.5;1,5\n", {"a": {"lr": 0.5, "loss": "1,5"}}),
        (CSV, "checkpoint\tlr\tgood\na\t0.5\tTrue\n", {"a": {"lr": 0.5, "good": True}}),
        (CSV, "path,lr\n/data/sweep/a.pt,1\n./b.pt,2\n", {"a": {"lr": 1}, "b": {"lr": 2}}),
        (
            CSV,
            "file,lr\nC:\\runs\\a.ckpt,1\nruns/b/weights/best.pt,2\n",
            {"a": {"lr": 1}, "b": {"lr": 2}},
        ),
        (
            CSV,
            "name,seed,n\na,36893488147419103232,1\n",
            {"a": {"seed": "36893488147419103232", "n": 1}},
        ),
        (CSV, "name,lr,hash\na,inf,123e4567\n", {"a": {"lr": None, "hash": None}}),
    ],
    ids=[
        "scalars",
        "checkpoint before name",
        "rows of different columns",
        "lists and objects become text",
        "numbers that are not finite are unknown",
        "other scripts and line separators inside text",
        "lines of Windows",
        "a list of objects",
        "numbers as text and names as numbers",
        "too large a number and half a character",
        "empty file",
        "CSV with gaps",
        "names that look like numbers",
        "CSV of a spreadsheet",
        "CSV without rows",
        "Weights & Biases",
        "the column that names most",
        "a column called model that names none",
        "a column by another name",
        "semicolons",
        "tabs",
        "paths",
        "paths of Windows and to a run's folder",
        "more than 64 bits",
        "infinite",
    ],
)
def test_a_table_is_read_by_checkpoint(
    tmp_path: Path, name: str, content: str, expected: dict[str, dict[str, Scalar]]
) -> None:
    (tmp_path / name).write_bytes(content.encode())
    found = sidecars(tmp_path, "a.pt", "b.pt", "模型.pt", "α.pt", "001.pt", "1e3.pt", "7.pt")
    assert found.rows == expected
    assert problems(found) == []
    assert [*map(repr, found.rows.values())] == [*map(repr, expected.values())]  # 1 is not True


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_table_may_be_in_utf_16(tmp_path: Path, encoding: str) -> None:
    (tmp_path / CSV).write_bytes("\ufeffname,lr\nα,2\n".encode(encoding))
    assert sidecars(tmp_path, "α.pt").rows == {"α": {"lr": 2}}


def test_folders_without_a_table_have_no_hyperparameters(tmp_path: Path) -> None:
    assert sidecars(tmp_path, "a.pt") == Sidecars()


@pytest.mark.parametrize(
    ("name", "content", "rows", "problem"),
    [
        (JSONL, b'{"name": "a"}\n\n{"name": ', {"a": {}}, "line 3 is not JSON and was skipped"),
        (JSONL, b"[1]", {}, "line 1 is not a JSON object and was skipped"),
        (JSONL, b'{"name": ' + b"[" * 100_000, {}, "line 1 is not JSON"),
        (JSONL, b'{"name": "a", "note": "caf\xe9"}', {"a": {"note": "café"}}, "is not UTF-8 text"),
        (
            JSONL,
            b'{"name": "a"}\n{"name": null}',
            {"a": {}},
            "has 1 row without the name of a checkpoint",
        ),
        (JSONL, b'{"lr": 1}', {}, "has no column with names of checkpoints"),
        (CSV, b"", {}, "is empty, so it is not used"),
        (CSV, b"name,lr\na,1\nb,1,2\n", {"a": {"lr": 1}, "b": {"lr": 1}}, "row 3 has 3 cells"),
        (CSV, b"name,lr\na\n", {"a": {"lr": None}}, "has 2 columns, but row 2 has 1 cells"),
        (CSV, b"name,lr\n,1\n", {}, "has 1 row without the name of a checkpoint"),
        (CSV, b"name,lr,lr\na,1,2\n", {"a": {"lr": 1, "lr (2)": 2}}, "has several columns 'lr'"),
        (CSV, b"[]," * (3 << 20), {}, "has more than 8 MiB, the limit for such files"),
        (CSV, b"name" + b",x" * 1000 + b"\n", {}, "has 1,001 columns; the limit is 1,000"),
        (
            JSONL,
            b'{"name": "a"%s}' % b"".join(b', "%d": 1' % number for number in range(1001)),
            {},
            "has 1,002 columns; the limit is 1,000, so it is not used",
        ),
    ],
)
def test_faults_of_a_table_are_reported_and_the_other_rows_are_used(
    tmp_path: Path, name: str, content: bytes, rows: Mapping[str, object], problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    found = sidecars(tmp_path, "a.pt", "b.pt")
    assert found.rows == rows
    assert any(of == name and problem in text for of, text in problems(found))
    assert {finding.severity for finding in found.findings} == {"warning"}
    assert all(finding.way_out for finding in found.findings)


def test_the_last_of_several_rows_is_used_and_noted(tmp_path: Path) -> None:
    (tmp_path / CSV).write_text("checkpoint,epoch\na,1\na.pt,2\nb,1\n")
    found = sidecars(tmp_path, "a.pt", "b.pt")
    assert found.rows == {"a": {"epoch": 2}, "b": {"epoch": 1}}
    assert problems(found) == [("a", "has 2 rows in sweep.csv; the last one is used")]
    assert found.findings[0].severity == "note"


def test_one_of_two_tables_is_used_and_reported(tmp_path: Path) -> None:
    (tmp_path / JSONL).write_text('{"name": "a", "lr": 1}')
    (tmp_path / CSV).write_text("name,lr\na,2\n")
    found = sidecars(tmp_path, "a.pt")
    assert found.rows == {"a": {"lr": 1}}
    assert problems(found) == [(JSONL, "is used instead of sweep.csv")]


def test_rows_without_a_checkpoint_are_reported_one_by_one_while_they_are_few(
    tmp_path: Path,
) -> None:
    (tmp_path / JSONL).write_text('{"name": "a", "model": "b"}\n{"name": "gone", "model": "b"}')
    found = sidecars(tmp_path, "a.pt", "b.pt")
    assert found.rows == {"a": {"model": "b"}}  # what a row calls its model is not its checkpoint
    ((name, problem),) = problems(found)
    assert (name, problem.partition(",")[2]) == ("gone", " but there is no such checkpoint")
    (tmp_path / JSONL).write_text("\n".join(f'{{"name": "{number}"}}' for number in range(99)))
    assert problems(sidecars(tmp_path, "7.pt")) == [
        (JSONL, "describes 98 checkpoints that do not exist: 0, 1, 2, …")
    ]


def test_ambiguous_rows_are_not_assigned(tmp_path: Path) -> None:
    (tmp_path / CSV).write_text("path,lr\nx/a.ckpt,1\nx/b.pt,2\n")
    paths = {"a.pt": tmp_path / "a.pt", "a.bin": tmp_path / "a.bin", "b": tmp_path / "b.pt"}
    found = read_sidecars(tmp_path, paths)
    assert found.rows == {"b": {"lr": 2}}
    assert [of for of, _ in problems(found)] == ["x/a.ckpt"]


def test_tables_outside_the_roots_are_not_read(tmp_path: Path) -> None:
    (tmp_path / CSV).write_text("name,lr\na,1\n")
    (tmp_path / "b.json").write_text('{"lr": 1}')
    paths = {name: tmp_path / f"{name}.pt" for name in "ab"}
    assert read_sidecars(tmp_path, paths, lambda path: False) == Sidecars()


@pytest.mark.parametrize(
    ("content", "row", "problem"),
    [
        (b'{"lr": 0.1, "betas": [0.9], "note": "na\xc3\xafve"}',
         {"lr": 0.1, "betas": "[0.9]", "note": "naïve"}, None),
        (b'[{"step": 1}]', {"step": 1}, None),
        (b'[{"step": 1}, {"step": 2}]', {"step": 2}, "contains a list of 2; its last entry"),
        (b"", None, "is not JSON"),
        (b"{", None, "is not JSON"),
        (b"[1]", None, "is not a JSON object of hyperparameters"),
        (b"[" * 100_000, None, "is not JSON"),
        (b"[]," * (3 << 20), None, "has more than 8 MiB"),
    ],
    ids=["object", "a list of one", "a log", "empty", "cut", "a list", "deep", "large"],
)  # fmt: skip
def test_a_sidecar_holds_the_hyperparameters_of_one_checkpoint(
    tmp_path: Path, content: bytes, row: dict[str, Scalar] | None, problem: str | None
) -> None:
    (tmp_path / "a.json").write_bytes(content)
    found = sidecars(tmp_path, "a.pt", "b.pt")
    assert found.rows == ({} if row is None else {"a": row})
    assert found.files == {"a.json"}
    assert len(found.findings) == (problem is not None)
    for finding in found.findings:
        assert (finding.severity, finding.ingredient) == ("warning", "a")
        assert finding.problem.startswith(f"a.json {problem}")


def test_columns_of_runs_never_are_called_like_ours() -> None:
    ours = ["name", "select %", "±", ""]
    found = run_columns(["lr", "±", "name", "name (run)", ""], ours)
    assert found == {
        "lr": "lr",
        "±": "± (run)",
        "name": "name (run) (run)",
        "name (run)": "name (run)",
        "": " (run)",
    }


def test_details_of_the_first_source_take_precedence() -> None:
    merged = RunDetails()
    merged.add({"lr": 0.1, "note": None}, {}, "sweep.csv")
    merged.add({"epoch": 3, "lr": 0.2, "note": "x"}, {"acc": 0.5, "epoch": 4}, "a.pt")
    assert merged.hyperparameters == {"lr": 0.1, "note": None, "epoch": 3}
    assert merged.logged_metrics == {"acc": 0.5, "epoch (logged)": 4}
    assert merged.origins["lr"] == "sweep.csv"
    assert merged.origins["acc"] == merged.origins["epoch (logged)"] == "a.pt"


@pytest.mark.parametrize(
    ("described", "details", "columns"),
    [
        pytest.param([{"lr": 1}, {"lr": 1, "wd": 2}], [{}, {}], ["lr", "wd"], id="described: all"),
        pytest.param([{}, {}], [{"a": 1, "b": 2}, {"a": 1, "b": 3}], ["b"], id="same in all"),
        pytest.param([{}, {}], [{"a": 1}, {"b": 1}], ["a", "b"], id="missing in some"),
        pytest.param([{}, {}], [{"a": 1}, {"a": True}], ["a"], id="another kind"),
        pytest.param([{}], [{"a": 1}], [], id="one run alone"),
        pytest.param([{"a": 1}, {}], [{"a": 5}, {"a": 6}], ["a"], id="described for one"),
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
def test_columns_are_chosen_among_details(
    described: list[dict[str, Scalar]], details: list[dict[str, Scalar]], columns: list[str]
) -> None:
    assert choose_columns(described, details) == columns
