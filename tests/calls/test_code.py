"""The Python of soups makes the same weights, and that of their files the same files."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import soupcore
from soupcore import (
    RECIPES,
    Cancelled,
    ClassificationTask,
    Evaluator,
    Pass,
    Soup,
    Sweep,
    uniform,
    wise_ft,
)
from soupcore.calls import Code, Context, ManualSoup, RecipeSoup, SoupFiles
from soupcore.calls.code import soup_again, source
from soupcore.stored_soups import StoredSoup
from soupcore.writers.forms import Form
from tests import adapters
from tests.helpers import same_weights

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
SAVE = Code('soup.save("soup.safetensors")\n')


def execute(code: str) -> None:
    exec(compile(code, "printed", "exec"), {})  # noqa: S102 - that it runs is what is tested


def again(soup: Soup, sweep: Sweep, evaluator: Evaluator, *soups: Any) -> Soup:
    known = {"soupcore": soupcore, "sweep": sweep, "evaluator": evaluator, "Fraction": Fraction}
    made: Soup = eval(soup_again(soup, *soups), known)  # noqa: S307 - as above
    return made


def context_of(sweep: Sweep, evaluator: Evaluator) -> Context:
    return Context(sweep, evaluator, str(sweep.folder), "task.py:task")


def test_imports_are_in_groups_and_once() -> None:
    imports = ("from soupcore import figures", "import pandas as pd", "from math import pi")
    code = Code("x = 1\n", imports) + Code("Fraction(1)\n", ("import json", *imports))
    assert source(code) == (
        "import json\n"
        "from fractions import Fraction\n"
        "from math import pi\n"
        "\n"
        "import pandas as pd\n"
        "\n"
        "import soupcore\n"
        "from soupcore import figures\n"
        "\n"
        "x = 1\n"
        "Fraction(1)\n"
    )


@pytest.mark.parametrize(
    "form",
    [Form(), Form(dtype="float16"), Form(shard_size=100), Form(as_ingredient=True)],
    ids=lambda form: form.key,
)
def test_the_code_of_files_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluator: Evaluator, form: Form
) -> None:
    (tmp_path / "sweep").mkdir()
    for value, name in enumerate("ab"):
        state = {"w": torch.full((30,), float(value)), "v": torch.ones(30)}
        torch.save(state, tmp_path / "sweep" / f"{name}.pt")
    context = context_of(Sweep.from_folder(tmp_path / "sweep"), evaluator)
    soup = uniform(context.sweep)
    own, shown = tmp_path / "own", tmp_path / "shown"
    for folder in (own, shown):
        folder.mkdir()
    soup.save(own / form.file_name(soup), form.dtype, form.shard_size)
    monkeypatch.chdir(shown)
    execute(SoupFiles(context.keep_soup(soup, {}), form.to_json()).script(context))
    assert sorted(file.name for file in shown.iterdir()) == sorted(f.name for f in own.iterdir())
    if form.as_ingredient:
        name = form.file_name(soup)
        assert (shown / name).read_bytes() == (own / name).read_bytes()


@pytest.mark.parametrize("rank", [None, 2])
def test_the_code_of_an_adapter_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluator: Evaluator, rank: int | None
) -> None:
    adapters.save_sweep(tmp_path / "sweep")
    sweep = Sweep.from_folder(tmp_path / "sweep")
    context = Context(sweep, evaluator.store, str(sweep.folder))
    soup = uniform(sweep)
    form = Form(as_adapter=True, rank=rank)
    call = SoupFiles(context.keep_soup(soup, {}), form.to_json())
    told = call.work(context, lambda done, total, partial=None: None)
    folder = context.store.soup_folder(soup.id, form.key)
    names = {f"{form.file_name(soup)}/{name}" for name in ADAPTER_FILES}
    assert {*told["files"]} == names
    assert {file.name for file in context.store.soup_files(soup.id, form.key)} == names
    monkeypatch.chdir(tmp_path)
    execute(call.script(context))
    config, weights = sorted(names)
    assert (tmp_path / config).read_bytes() == (folder / config).read_bytes()
    assert same_weights(load_file(tmp_path / weights), load_file(folder / weights))


def test_the_code_of_files_has_the_form_of_an_ingredient_without_a_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluator: Evaluator
) -> None:
    for name, dtype in (("base", torch.float32), ("run", torch.bfloat16)):
        save_file({"w": torch.ones(3, dtype=dtype)}, tmp_path / f"{name}.safetensors")
    context = context_of(Sweep.from_folder(tmp_path), evaluator)
    soup = wise_ft(context.sweep, alpha=0)
    (tmp_path / "shown").mkdir()
    monkeypatch.chdir(tmp_path / "shown")
    Path(f"wise_ft-{soup.id}.json").write_text(json.dumps(soup.to_json()))
    execute(SoupFiles(context.keep_soup(soup, {}), {}).script(context))
    assert load_file(Form().file_name(soup))["w"].dtype == torch.bfloat16


@pytest.mark.parametrize("name", RECIPES)
def test_the_code_of_a_soup_makes_the_same_weights(
    sweep: Sweep, evaluator: Evaluator, name: str
) -> None:
    few: dict[str, Any] = {"passes": 2, "per": "layer"} if name == "learned" else {}
    soup = RECIPES[name].follow(sweep, evaluator, ["run1", "run10"], **few)
    assert again(soup, sweep, evaluator).mixture == soup.mixture


@pytest.mark.parametrize("optimizer", ["lbfgs", "adamw"])
@pytest.mark.parametrize("stopped_after", [0, 1, 2])
def test_the_code_of_a_soup_that_was_stopped_makes_the_same_weights(
    sweep: Sweep, evaluator: Evaluator, optimizer: str, stopped_after: int
) -> None:
    def stop(trace: Sequence[Pass]) -> None:
        if trace[-1].number >= stopped_after:
            raise Cancelled

    soup = RECIPES["learned"].follow(
        sweep, evaluator, on_step=stop, per="layer", optimizer=optimizer, held_back=0.0
    )
    assert soup.passes[-1].number >= stopped_after
    assert same_weights(again(soup, sweep, evaluator).state_dict(), soup.state_dict())


@pytest.mark.parametrize("inner", ["uniform", "ties"])
def test_the_code_of_a_soup_of_soups_makes_them_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: Sweep, evaluator: Evaluator, inner: str
) -> None:
    monkeypatch.setattr(soupcore, "load_task", lambda spec: evaluator.task)
    monkeypatch.chdir(tmp_path)
    plain = context_of(sweep, evaluator)
    first = StoredSoup(RECIPES[inner].follow(sweep, evaluator, ["run1", "run2"]), sweep)
    more = plain.including({"one": first})
    names = ("run10", "one")
    second = StoredSoup(uniform(more.sweep, names), more.sweep, more.included)
    context = plain.including({"one": first, "two": second})
    expected = uniform(context.sweep, [*names, "two"])
    execute(RecipeSoup("uniform", (*names, "two"), {}).script(context, SAVE))
    assert same_weights(load_file("soup.safetensors"), expected.state_dict())
    Path("soup.safetensors").unlink()
    execute(ManualSoup.of(expected.coefficients, ["val"], keep=True).script(context, SAVE))
    assert same_weights(load_file("soup.safetensors"), expected.state_dict())
    found = again(second.soup, sweep, evaluator, second.soups)
    assert found.mixture == second.soup.mixture


def test_the_code_estimates_batchnorm_statistics_if_the_soup_has_them_estimated(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sweep: Sweep,
    task: ClassificationTask,
    evaluator: Evaluator,
) -> None:
    context = context_of(sweep, evaluator.with_statistics("re-estimated"))
    soup = uniform(sweep).evaluate(context.evaluator)
    soup.save(tmp_path / "expected.safetensors")
    monkeypatch.setattr(soupcore, "load_task", lambda spec: task)
    monkeypatch.chdir(tmp_path)
    execute(SoupFiles(context.keep_soup(soup, {}), {}).script(context))
    execute(RecipeSoup("uniform", tuple(sweep.names()), {}).script(context, SAVE))
    expected = load_file("expected.safetensors")
    for name in (Form().file_name(soup), "soup.safetensors"):
        assert same_weights(load_file(name), expected)


def test_code_without_a_task_opens_the_sweep_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: Sweep, evaluator: Evaluator
) -> None:
    monkeypatch.chdir(tmp_path)
    context = Context(sweep, evaluator.store, str(sweep.folder))
    execute(RecipeSoup("uniform", ("run1", "run2"), {}).script(context, SAVE))
    expected = uniform(sweep, ["run1", "run2"]).state_dict()
    assert same_weights(load_file("soup.safetensors"), expected)
