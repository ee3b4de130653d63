import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
import torch
from safetensors.torch import load_file, save_file

import soupcore
from pages.components import snippets
from pages.components.state import View
from soupcore import (
    RECIPES,
    Cancelled,
    ClassificationTask,
    Evaluator,
    Pass,
    Sweep,
    uniform,
    wise_ft,
)
from soupcore.recipes import Number
from soupcore.stored_soups import StoredSoup
from soupcore.writers.forms import Form
from tests.helpers import same_weights


@pytest.mark.parametrize(
    "form",
    [Form(), Form(dtype="float16"), Form(shard_size=100), Form(as_ingredient=True)],
    ids=lambda form: form.key,
)
def test_the_python_shown_writes_the_file_that_the_page_offers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluator: Evaluator, form: Form
) -> None:
    (tmp_path / "sweep").mkdir()
    for value, name in enumerate("ab"):
        state = {"w": torch.full((30,), float(value)), "v": torch.ones(30)}
        torch.save(state, tmp_path / "sweep" / f"{name}.pt")
    sweep = Sweep.from_folder(tmp_path / "sweep")
    soup = uniform(sweep)
    view = View(str(tmp_path / "sweep"), "task.py:task", "", sweep, evaluator)
    own, shown = tmp_path / "own", tmp_path / "shown"
    for folder in (own, shown):
        folder.mkdir()
    soup.save(own / form.file_name(soup), form.dtype, form.shard_size)
    monkeypatch.chdir(shown)
    exec(snippets.rebuild(view, soup, form), {})  # noqa: S102 - that it runs is what is tested
    assert sorted(file.name for file in shown.iterdir()) == sorted(f.name for f in own.iterdir())
    if form.as_ingredient:
        name = form.file_name(soup)
        assert (shown / name).read_bytes() == (own / name).read_bytes()


def test_the_python_shown_writes_the_form_of_an_ingredient_that_has_no_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluator: Evaluator
) -> None:
    for name, dtype in (("base", torch.float32), ("run", torch.bfloat16)):
        save_file({"w": torch.ones(3, dtype=dtype)}, tmp_path / f"{name}.safetensors")
    sweep = Sweep.from_folder(tmp_path)
    soup = wise_ft(sweep, alpha=0)
    view = View(str(tmp_path), "task.py:task", "", sweep, evaluator)
    (tmp_path / "shown").mkdir()
    monkeypatch.chdir(tmp_path / "shown")
    Path(f"wise_ft-{soup.id}.json").write_text(json.dumps(soup.to_json()))
    exec(snippets.rebuild(view, soup, Form()), {})  # noqa: S102 - that it runs is what is tested
    assert load_file(Form().file_name(soup))["w"].dtype == torch.bfloat16


@pytest.mark.parametrize("name", RECIPES)
def test_the_python_of_a_soup_makes_the_same_weights(
    sweep: Sweep, evaluator: Evaluator, name: str
) -> None:
    few: dict[str, Any] = {"passes": 2, "per": "layer"} if name == "learned" else {}
    soup = RECIPES[name].follow(sweep, evaluator, ["run1", "run10"], **few)
    known = {"soupcore": soupcore, "sweep": sweep, "evaluator": evaluator, "Fraction": Fraction}
    again = eval(snippets.soup_again(soup), known)  # noqa: S307 - that it runs is what is tested
    assert again.mixture == soup.mixture


@pytest.mark.parametrize("optimizer", ["lbfgs", "adamw"])
@pytest.mark.parametrize("stopped_after", [0, 1, 2])
def test_the_python_of_a_soup_that_was_stopped_makes_the_same_weights(
    sweep: Sweep, evaluator: Evaluator, optimizer: str, stopped_after: int
) -> None:
    def stop(trace: Sequence[Pass]) -> None:
        if trace[-1].number >= stopped_after:
            raise Cancelled

    soup = RECIPES["learned"].follow(
        sweep, evaluator, on_step=stop, per="layer", optimizer=optimizer, held_back=0.0
    )
    assert soup.passes[-1].number >= stopped_after
    known = {"soupcore": soupcore, "sweep": sweep, "evaluator": evaluator, "Fraction": Fraction}
    again = eval(snippets.soup_again(soup), known)  # noqa: S307 - that it runs is what is tested
    assert same_weights(again.state_dict(), soup.state_dict())


@pytest.mark.parametrize("inner", ["uniform", "ties"])
def test_the_python_of_a_soup_of_soups_makes_them_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: Sweep, evaluator: Evaluator, inner: str
) -> None:
    monkeypatch.setattr(soupcore, "load_task", lambda spec: evaluator.task)
    monkeypatch.chdir(tmp_path)
    plain = View(str(sweep.folder), "task.py:task", "", sweep, evaluator)
    first = StoredSoup(RECIPES[inner].follow(sweep, evaluator, ["run1", "run2"]), sweep)
    view = plain.including({"one": first})
    names = ["run10", "one"]
    second = StoredSoup(uniform(view.sweep, names), view.sweep, view.soups)
    view = plain.including({"one": first, "two": second})
    expected = uniform(view.sweep, [*names, "two"])
    code = snippets.recipe(view, RECIPES["uniform"], [*names, "two"], {})
    exec(code, {})  # noqa: S102 - that it runs is what is tested
    assert same_weights(load_file("uniform.safetensors"), expected.state_dict())
    exec(snippets.manual(view, expected.coefficients), {})  # noqa: S102
    assert same_weights(load_file("soup.safetensors"), expected.state_dict())
    known = {"soupcore": soupcore, "sweep": sweep, "evaluator": evaluator, "Fraction": Fraction}
    again = eval(snippets.soup_again(second.soup, second.soups), known)  # noqa: S307
    assert again.mixture == second.soup.mixture


def test_the_python_of_a_curve_draws_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: Sweep, evaluator: Evaluator
) -> None:
    shown: list[go.Figure] = []
    monkeypatch.setattr(go.Figure, "show", lambda figure: shown.append(figure))
    monkeypatch.setattr(soupcore, "load_task", lambda spec: evaluator.task)
    view = View(str(sweep.folder), "task.py:task", "", sweep, evaluator)
    (number,) = (p for p in RECIPES["wise_ft"].parameters if isinstance(p, Number))
    code = snippets.curve(view, RECIPES["wise_ft"], number, ["run1"], {"keep": ""})
    exec(code, {})  # noqa: S102 - that it runs is what is tested
    select, report, shift, best = shown[0].data
    assert list(select.x) == list(report.x) == list(shift.x) == list(number.curve)
    assert best.y[0] == max(select.y)
    assert number.symbol == "α"


def test_the_python_shown_estimates_batchnorm_statistics_where_the_soup_has_them_estimated(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sweep: Sweep,
    task: ClassificationTask,
    evaluator: Evaluator,
) -> None:
    anew = evaluator.with_statistics("re-estimated")
    view = View(str(sweep.folder), "task.py:task", "", sweep, anew)
    soup = uniform(sweep).evaluate(anew)
    soup.save(tmp_path / "expected.safetensors")
    monkeypatch.setattr(soupcore, "load_task", lambda spec: task)
    monkeypatch.chdir(tmp_path)
    exec(snippets.rebuild(view, soup, Form()), {})  # noqa: S102 - that it runs is what is tested
    exec(snippets.recipe(view, RECIPES["uniform"], sweep.names(), {}), {})  # noqa: S102
    expected = load_file("expected.safetensors")
    for name in (Form().file_name(soup), "uniform.safetensors"):
        assert same_weights(load_file(name), expected)
