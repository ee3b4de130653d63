"""What a sweep and its fit report print, and their tables."""

from dataclasses import replace
from pathlib import Path

import torch

from soupcore import FitReport, Sweep
from tests.helpers import build_model, moved, random_state, same_weights, save_sweep


def opened(folder: Path) -> Sweep:
    base = random_state(0)
    runs = {f"run{seed}": moved(base, 0.3, seed) for seed in (1, 2)}
    save_sweep(folder, {"base": base, **runs, "odd": {"w": torch.ones(2)}})
    (folder / "sweep.csv").write_text("checkpoint,lr,<b>note</b>\nrun1,0.1,<i>x</i>\nrun2,0.2,\n")
    return Sweep.from_folder(folder)


def test_a_sweep_says_what_it_has(tmp_path: Path) -> None:
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


def test_a_fit_report_says_what_was_excluded(tmp_path: Path) -> None:
    fit = opened(tmp_path / "runs").fit
    assert repr(fit).startswith("FitReport(excluded: odd; ")
    table = fit.to_frame()
    assert [*table.columns] == ["severity", "ingredient", "tensor", "problem", "way_out"]
    assert {*table.loc[table["ingredient"] == "odd", "severity"]} == {"misfit"}
    assert '<td style="text-align:left">odd</td>' in fit._repr_html_()
    assert repr(FitReport()) == "FitReport(nothing excluded; 0 other findings)"
    assert FitReport().to_frame().empty


def test_an_ingredient_goes_into_a_network(tmp_path: Path) -> None:
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
