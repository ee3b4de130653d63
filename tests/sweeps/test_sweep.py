import json
import os
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soupcore import Cancelled, FitReport, Sweep, SweepError, mean
from soupcore.sweeps.folder import folder_signature
from soupcore.sweeps.opening import is_scanned
from tests.helpers import State, same_weights, save_sweep
from tests.toy import build_model, moved, random_state

NAMES = ["run1", "run2", "run10"]


def one(value: float) -> State:
    return {"w": torch.tensor([float(value)])}


def test_ingredients_stand_in_natural_order(sweep: Sweep, states: dict[str, State]) -> None:
    assert list(sweep.ingredients) == NAMES
    assert len(sweep) == 3
    for name, ingredient in sweep.ingredients.items():
        assert ingredient.name == name
        assert same_weights(ingredient.checkpoint.state_dict(), states[name])
        assert same_weights(ingredient.mixture.state_dict(), states[name])


def test_the_base_is_no_ingredient_but_known_by_name(sweep: Sweep, base_state: State) -> None:
    assert sweep.base is not None
    assert sweep["base"] is sweep.base
    assert same_weights(sweep.base.checkpoint.state_dict(), base_state)
    with pytest.raises(SweepError, match="no usable ingredient 'base'"):
        sweep.names(["base"])


@pytest.mark.parametrize("base", [None, "run2"])
def test_another_ingredient_may_be_the_base(tmp_path: Path, base: str | None) -> None:
    folder = save_sweep(tmp_path / "sweep", {name: one(i) for i, name in enumerate(NAMES)})
    sweep = Sweep.from_folder(folder, base=base)
    assert (sweep.base and sweep.base.name) == base
    assert list(sweep.ingredients) == [name for name in NAMES if name != base]


def test_names_are_put_in_the_order_of_the_sweep_each_once(sweep: Sweep) -> None:
    assert sweep.names() == NAMES
    assert sweep.names(["run10", "run1", "run10"]) == ["run1", "run10"]
    assert sweep.names([]) == []


def test_sweep_mixture_takes_names_of_ingredients(sweep: Sweep) -> None:
    mixed = sweep.mixture({"run1": 0.5, "run10": Fraction(1, 2), "base": 0})
    assert mixed == mean([sweep["run1"].mixture, sweep["run10"].mixture])


@pytest.mark.parametrize(
    "use",
    [
        lambda sweep: sweep["run3"],
        lambda sweep: sweep.names(["run1", "run3"]),
        lambda sweep: sweep.mixture({"run3": 1}),
    ],
    ids=["item", "names", "mixture"],
)
def test_an_unknown_name_is_refused(sweep: Sweep, use: Callable[[Sweep], object]) -> None:
    with pytest.raises(SweepError, match="has no usable ingredient 'run3'"):
        use(sweep)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("sweep.jsonl", '{"name": "run1", "lr": 0.1}\n{"name": "run10", "lr": 0.2}'),
        ("sweep.jsonl", '{"checkpoint": "run1.pt", "lr": 0.1}\n{"name": "run10", "lr": 0.2}'),
        ("sweep.csv", "name,lr\nrun10,0.2\nrun1,0.1\n"),
        ("sweep.csv", "checkpoint,lr\nrun1.pt,0.1\nrun10.safetensors,0.2\n"),
        ("run1.json", '{"lr": 0.1}'),
    ],
    ids=["jsonl names", "jsonl files", "csv names", "csv files", "sidecar"],
)
def test_hyperparameters_come_from_the_files_beside(
    tmp_path: Path, file: str, content: str
) -> None:
    folder = save_sweep(tmp_path / "sweep", {"run2": one(2), "run10": one(10)})
    torch.save(one(1), folder / "run1.pt")
    (folder / file).write_text(content)
    found = {n: dict(i.hyperparameters) for n, i in Sweep.from_folder(folder).ingredients.items()}
    assert found == {
        "run1": {"lr": 0.1},
        "run2": {},
        "run10": {"lr": 0.2} if "sweep" in file else {},
    }


def test_the_table_goes_before_a_sidecar(tmp_path: Path) -> None:
    folder = save_sweep(tmp_path / "sweep", {"a": one(1)})
    (folder / "a.json").write_text('{"lr": 1}')
    (folder / "sweep.jsonl").write_text('{"name": "a", "lr": 2}')
    assert Sweep.from_folder(folder)["a"].hyperparameters == {"lr": 2}


def test_metadata_of_checkpoints_are_added(tmp_path: Path) -> None:
    for epoch, name in enumerate(["a", "b"]):
        torch.save({"state_dict": one(epoch), "epoch": epoch, "seed": 7}, tmp_path / f"{name}.ckpt")
    (tmp_path / "sweep.jsonl").write_text('{"name": "a", "lr": 0.1, "epoch": 30}\n')
    sweep = Sweep.from_folder(tmp_path)
    found = {name: dict(i.hyperparameters) for name, i in sweep.ingredients.items()}
    assert found == {"a": {"lr": 0.1, "epoch": 30, "seed": 7}, "b": {"epoch": 1, "seed": 7}}
    assert sweep.columns == ["lr", "epoch"]


def test_a_row_without_checkpoint_is_a_warning(tmp_path: Path) -> None:
    folder = save_sweep(tmp_path / "sweep", {"a": one(1), "base": one(0)})
    rows = [{"name": "a"}, {"name": "base"}, {"name": "gone"}]
    (folder / "sweep.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (finding,) = Sweep.from_folder(folder).fit.findings
    assert (finding.severity, finding.ingredient) == ("warning", "gone")
    assert "there is no such checkpoint" in finding.problem


def save_sharded(folder: Path, name: str, value: float) -> None:
    shards = [f"{name}-0000{i}-of-00002.safetensors" for i in (1, 2)]
    save_file({"w": torch.tensor([value])}, folder / shards[0])
    save_file({"v": torch.tensor([value])}, folder / shards[1])
    index = {"weight_map": dict(zip(["w", "v"], shards, strict=True))}
    (folder / f"{name}.safetensors.index.json").write_text(json.dumps(index))


def test_an_index_and_its_shards_are_one_ingredient(tmp_path: Path) -> None:
    for name, value in (("run2", 2.0), ("run10", 10.0)):
        save_sharded(tmp_path, name, value)
    save_file({"w": torch.tensor([3.0]), "v": torch.tensor([3.0])}, tmp_path / "run3.safetensors")
    sweep = Sweep.from_folder(tmp_path)
    assert list(sweep.ingredients) == ["run2", "run3", "run10"]
    assert sweep["run10"].checkpoint.read("v").item() == 10
    assert sweep.fit.findings == ()


def test_a_file_whose_name_begins_like_an_index_is_an_ingredient(
    tmp_path: Path,
) -> None:
    save_sharded(tmp_path, "run1", 1.0)
    ema = {"w": torch.tensor([2.0]), "v": torch.tensor([2.0])}
    save_file(ema, tmp_path / "run1-ema.safetensors")
    assert list(Sweep.from_folder(tmp_path).ingredients) == ["run1", "run1-ema"]


def test_a_folder_with_one_checkpoint_in_it_is_an_ingredient(tmp_path: Path) -> None:
    for name, value in (("run2", 2.0), ("run10.v1", 10.0)):
        (tmp_path / name).mkdir()
        save_sharded(tmp_path / name, "model", value)
    (tmp_path / "run2.json").write_text('{"lr": 5}')
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "x.txt").touch()
    sweep = Sweep.from_folder(tmp_path)
    assert list(sweep.ingredients) == ["run2", "run10.v1"]
    assert sweep["run10.v1"].checkpoint.read("w").item() == 10
    assert sweep["run2"].hyperparameters == {"lr": 5}


def test_names_keep_their_dots(tmp_path: Path) -> None:
    names = ["lr0.001-step1.5", "lr0.01"]
    sweep = Sweep.from_folder(save_sweep(tmp_path / "s", {n: one(i) for i, n in enumerate(names)}))
    assert set(sweep.ingredients) == set(names)


def test_hidden_and_unfinished_files_are_no_ingredients(tmp_path: Path) -> None:
    folder = save_sweep(tmp_path / "sweep", {"a": one(1), ".hidden": one(2)})
    (folder / ".b.safetensors.1a2b.part").write_bytes(b"half")
    (folder / "readme.md").write_text("hello")
    sweep = Sweep.from_folder(folder)
    assert list(sweep.ingredients) == ["a"]
    assert sweep.fit.findings == ()


@pytest.mark.parametrize("name", ["b", "base"])
@pytest.mark.parametrize(
    ("other", "why"),
    [
        ("{}.ckpt", "the same model in another format, by its name"),
        ("{}.fp16.safetensors", "a variant (fp16)"),
    ],
)
def test_one_of_two_forms_of_a_file_is_used_and_noted(
    tmp_path: Path, name: str, other: str, why: str
) -> None:
    folder = save_sweep(tmp_path / "sweep", {"a": one(1), name: one(2)})
    other = other.format(name)
    if other.endswith(".ckpt"):
        torch.save(one(3), folder / other)
    else:
        save_file(one(3), folder / other)
    sweep = Sweep.from_folder(folder)
    assert sweep[name].checkpoint.path.name == f"{name}.safetensors"
    (finding,) = sweep.fit.findings
    assert (finding.severity, finding.ingredient) == ("note", name)
    assert finding.problem == f"{name}.safetensors is opened, not {other}: {why}."
    assert sweep.fit.others == ()
    assert Sweep.from_folder(folder, snapshot={name: other})[name].checkpoint.read("w").item() == 3


def test_a_folder_and_a_file_of_one_name_are_both_opened(tmp_path: Path) -> None:
    folder = save_sweep(tmp_path / "sweep", {"a": one(1)})
    save_sweep(folder / "a", {"model": one(2)})
    assert [*Sweep.from_folder(folder).ingredients] == ["a", "a.safetensors"]


def test_a_name_that_is_no_utf_8_is_escaped(tmp_path: Path) -> None:
    folder = save_sweep(tmp_path / "sweep", {"a": one(1)})
    (folder / "a.safetensors").rename(folder / os.fsdecode(b"run-\xff.safetensors"))
    torch.save(one(2), folder / os.fsdecode(b"caf\xe9.pt"))
    (folder / "sweep.csv").write_text("name,lr\nrun-\\udcff,0.5\n")
    for _ in ("first", "second look"):
        sweep = Sweep.from_folder(folder)
        assert [*sweep.ingredients] == ["caf\\udce9", "run-\\udcff"]
        assert sweep["run-\\udcff"].hyperparameters == {"lr": 0.5}
        assert is_scanned(folder)


@pytest.mark.parametrize(
    ("files", "base", "problem"),
    [
        pytest.param(None, None, "is not a folder", id="no folder"),
        pytest.param({}, None, r"has no usable checkpoint\.", id="empty folder"),
        pytest.param({"a.pt": b"x"}, None, "no usable checkpoint: a: .*damaged", id="all misfits"),
        pytest.param(
            {"z.pt": b"x"}, "z", "the base 'z' cannot be used: the file .*", id="bad base"
        ),
        pytest.param(
            {"a.pt": b""}, "zero", "the base 'zero' cannot be used: it does not exist", id="no base"
        ),
    ],
)
def test_a_folder_without_a_usable_sweep_is_refused_with_the_reason(
    tmp_path: Path, files: dict[str, bytes] | None, base: str | None, problem: str
) -> None:
    folder = tmp_path / "sweep"
    if files is not None:
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
    with pytest.raises(SweepError, match=problem) as caught:
        Sweep.from_folder(folder, base=base)
    assert str(folder) in str(caught.value)


def test_a_sweep_of_its_base_alone_is_refused(tmp_path: Path) -> None:
    folder = save_sweep(tmp_path / "sweep", {"base": one(1)})
    with pytest.raises(SweepError, match="has no usable checkpoint"):
        Sweep.from_folder(folder)


def test_progress_counts_the_bytes_read_up_to_all_of_them(tmp_path: Path) -> None:
    states = {name: random_state(seed) for seed, name in enumerate(["a", "b", "base"])}
    folder = save_sweep(tmp_path / "sweep", states)
    total = sum(tensor.nbytes for state in states.values() for tensor in state.values())
    for _ in ("first", "second look"):
        reports: list[tuple[int, int]] = []
        Sweep.from_folder(folder, on_progress=lambda *report, to=reports: to.append(report))
        assert reports == sorted(reports)
        assert reports[-1] == (total, total)
        assert {report[1] for report in reports} == {total}


def test_a_stopped_scan_of_a_sweep_keeps_what_it_read(tmp_path: Path) -> None:
    states = {name: random_state(seed) for seed, name in enumerate(["a", "b"])}
    folder = save_sweep(tmp_path / "sweep", states)
    half = sum(tensor.nbytes for tensor in states["a"].values())

    def stop(done: int, total: int) -> None:
        if done > half:
            raise Cancelled

    assert not is_scanned(folder)
    with pytest.raises(Cancelled):
        Sweep.from_folder(folder, on_progress=stop)
    assert not is_scanned(folder)
    first: list[int] = []
    Sweep.from_folder(folder, on_progress=lambda done, total: first.append(done))
    assert first[0] == half  # the whole of a at once: known from before
    assert is_scanned(folder)


def test_metadata_of_safetensors_become_columns(tmp_path: Path) -> None:
    for epoch in (1, 2):
        metadata = {"format": "pt", "epoch": f"{epoch}", "optimizer": "sgd"}
        save_file(one(epoch), tmp_path / f"{epoch}.safetensors", metadata)
    sweep = Sweep.from_folder(tmp_path)
    assert sweep.columns == ["epoch"]
    assert sweep["2"].hyperparameters == {"epoch": 2, "optimizer": "sgd"}


def test_a_soup_shows_nothing_of_the_run_whose_metadata_it_kept(tmp_path: Path) -> None:
    save_file(one(1), tmp_path / "run.safetensors", {"format": "pt", "epoch": "1"})
    metadata = {"format": "pt", "epoch": "1", "stockpot": "{}"}
    save_file(one(2), tmp_path / "soup.safetensors", metadata)
    sweep = Sweep.from_folder(tmp_path)
    assert sweep["run"].hyperparameters == {"epoch": 1}
    assert sweep["soup"].hyperparameters == {}
    assert "stockpot" not in sweep.columns


@pytest.mark.parametrize("change", ["new", "removed", "rewritten", "in a sub-folder"])
def test_the_signature_of_a_folder_changes_with_its_files(tmp_path: Path, change: str) -> None:
    folder = save_sweep(tmp_path / "sweep", {"a": one(1), "b": one(2)})
    save_sweep(folder / "sub", {"model": one(3)})
    before = folder_signature(folder)
    assert folder_signature(str(folder)) == before
    if change == "new":
        save_file(one(3), folder / "c.safetensors")
    elif change == "removed":
        (folder / "a.safetensors").unlink()
    else:
        path = folder / ("sub/model" if "sub" in change else "a")
        status = path.with_suffix(".safetensors").stat()
        os.utime(path.with_suffix(".safetensors"), ns=(0, status.st_mtime_ns + 1))
    assert folder_signature(folder) != before


def test_a_signature_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="is not a folder"):
        folder_signature(tmp_path / "gone")


def test_weights_read_from_a_sweep_are_those_of_its_files(tmp_path: Path) -> None:
    base = random_state(5)
    expected = {"base": base, "a": moved(base, 0.1, 6)}
    sweep = Sweep.from_folder(save_sweep(tmp_path / "sweep", expected))
    assert all(same_weights(sweep[n].checkpoint.state_dict(), s) for n, s in expected.items())


def test_including_keeps_how_the_sweep_was_opened(tmp_path: Path) -> None:
    folder = save_sweep(tmp_path / "sweep", {"a": one(1), "b": one(2)})
    (folder / "sweep.csv").write_text("name,lr\na,1\nb,2\n")
    sweep = Sweep.from_folder(folder, weights={"a": ""})
    more = sweep.including({"c": sweep["a"].checkpoint})
    assert more.names() == ["a", "b", "c"]
    assert (more.weights, more.columns) == (sweep.weights, ["lr"])


def opened(folder: Path) -> Sweep:
    base = random_state(0)
    runs = {f"run{seed}": moved(base, 0.3, seed) for seed in (1, 2)}
    save_sweep(folder, {"base": base, **runs, "odd": {"w": torch.ones(2)}})
    (folder / "sweep.csv").write_text("checkpoint,lr,<b>note</b>\nrun1,0.1,<i>x</i>\nrun2,0.2,\n")
    return Sweep.from_folder(folder)


def test_the_repr_of_a_sweep(tmp_path: Path) -> None:
    sweep = opened(tmp_path / "runs")
    folder = str(tmp_path / "runs")
    assert repr(sweep) == f"Sweep({folder!r}: 2 ingredients, base 'base', 1 excluded)"
    table = sweep.to_frame()
    assert table.index.tolist() == ["run1", "run2"]
    assert table["lr"].tolist() == [0.1, 0.2]
    shown = sweep._repr_html_()
    assert "Base: base. Excluded: odd." in shown
    assert "&lt;b&gt;note&lt;/b&gt;" in shown
    assert "&lt;i&gt;x&lt;/i&gt;" in shown
    assert "<i>" not in shown


def test_the_repr_of_a_fit_report(tmp_path: Path) -> None:
    fit = opened(tmp_path / "runs").fit
    assert repr(fit).startswith("FitReport(excluded: odd; ")
    table = fit.to_frame()
    assert [*table.columns] == ["severity", "ingredient", "tensor", "problem", "way_out"]
    assert {*table.loc[table["ingredient"] == "odd", "severity"]} == {"misfit"}
    assert '<td style="text-align:left">odd</td>' in fit._repr_html_()
    assert repr(FitReport()) == "FitReport(nothing excluded; 0 other findings)"
    assert FitReport().to_frame().empty


def test_an_ingredient_is_loaded_into_a_network(tmp_path: Path) -> None:
    sweep = opened(tmp_path / "runs")
    model = build_model()
    assert sweep["run1"].load_into(model) == []
    assert same_weights(model.state_dict(), moved(random_state(0), 0.3, seed=1))


def test_logged_metrics_are_marked_as_logged(tmp_path: Path) -> None:
    opened_sweep = opened(tmp_path / "runs")
    runs = {
        name: replace(run, logged_metrics={"mAP": 0.5})
        for name, run in opened_sweep.ingredients.items()
    }
    sweep = Sweep(tmp_path, runs, None, opened_sweep.fit, columns=["lr"], logged_columns=["mAP"])
    assert sweep.to_frame()["mAP (logged)"].tolist() == [0.5, 0.5]
    assert "mAP (logged)" in sweep._repr_html_()
