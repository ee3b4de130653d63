"""A sweep without a task: every page opens, and what needs no evaluation works."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from streamlit.testing.v1 import AppTest

from pages.components import settings, state
from pages.components.soup_links import ALL
from soupcore import RECIPES, Sweep, ties, uniform
from soupcore.jobs.kinds import KINDS, WarmState
from soupcore.writers.forms import Form
from tests import adapters
from tests.helpers import State, same_weights, save_sweep
from tests.pages.conftest import forget_server
from tests.pages.test_every_page import MAIN, MANUAL, NAMES, PAGES, assert_opened, open_page

DOWNLOAD = "soup.py?download"

LOSSES = {"run1": 0.5, "run2": 0.2, "run10": 0.3}


class App:
    """The app on a toy sweep without a task, and its jobs, done at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sweep = Sweep.from_folder(folder)
        self.warm = WarmState(state.store(), [], "cpu")

    def do(self, session: AppTest, kind: str, **request: Any) -> Mapping[str, Any]:
        job = KINDS[kind]
        whole = session.session_state["view"].request | request
        return job(self.warm, whole, lambda done, total, partial=None: None)

    def session(self, page: str = "ingredients.py", **query: str) -> AppTest:
        """Open a page in a new session.

        Args:
            page: The file of the page.
            query: Parameters of the URL.
        """
        session = AppTest.from_file(str(MAIN), default_timeout=60)
        session.query_params.update(query)
        return session.switch_page(page).run()


@pytest.fixture
def app(tmp_path: Path, base_state: State, states: dict[str, State]) -> Iterator[App]:
    folder = save_sweep(tmp_path / "sweep", {"base": base_state} | states)
    rows = [
        {"checkpoint": name, "lr": 10.0**-i, "seed": i, "val_loss": LOSSES[name], "val_acc": i}
        for i, name in enumerate(NAMES)
    ]
    (folder / "sweep.jsonl").write_text("\n".join(map(json.dumps, rows)))
    forget_server()
    settings.configure([str(folder)])
    yield App(folder)
    forget_server()


def assert_opens(session: AppTest, page: str) -> None:
    assert_opened(session, page)
    assert not any("load_task" in code.value or "evaluator" in code.value for code in session.code)


def test_every_page_opens_without_a_task_or_asks_for_one(app: App) -> None:
    session = app.session()
    needing = {}
    for file, title in PAGES.items():
        assert_opens(open_page(session, file), file)
        needing[title] = any("needs a task" in info.value for info in session.info)
    works = [title for title, needs in needing.items() if not needs]
    assert works == ["Soups", "Soup", "Evidence", "Download", "Geometry"]
    assert "no task" in session.switch_page("ingredients.py").run().caption[0].value


def test_recipes_that_choose_need_a_task(app: App) -> None:
    session = app.session("soups.py")
    for name, recipe in RECIPES.items():
        if recipe.chooses:
            box = next(c for c in session.segmented_control if c.label == recipe.group)
            box.set_value(name).run()
            assert_opens(session, "soups.py")
            needed = f"{recipe.title} needs a task"
            assert any(info.value.startswith(needed) for info in session.info)
            assert not any(button.label.startswith("Build") for button in session.button)


def test_soups_that_need_no_evaluation_are_built_and_downloaded(app: App) -> None:
    session = app.session("soups.py")
    assert any(button.label.startswith("Build uniform") for button in session.button)
    request: dict[str, Any] = {"coefficients": {"run1": "3/4", "run2": "1/4"}, "splits": []}
    made = {MANUAL: app.do(session, "mixture", keep=True, **request)["soup"]}
    for name, recipe in RECIPES.items():
        if not recipe.chooses:
            names = NAMES[: recipe.takes[1] or len(NAMES)]
            found = app.do(session, "soup", recipe=name, names=names, parameters={})
            made[name] = found["soup"]
    session.session_state["tab"] = ALL
    assert_opens(session.run(), "soups.py")
    (table,) = (each.value for each in session.dataframe)
    titles = {MANUAL: "Manual"} | {name: recipe.title for name, recipe in RECIPES.items()}
    assert [*reversed(table["recipe"])] == [titles[name] for name in made]
    assert table["name"].str.contains("Manual · 2 of 3").sum() == 1
    expected = {"uniform": uniform(app.sweep), "ties": ties(app.sweep)}
    for name, soup in expected.items():
        assert made[name] == soup.id
        app.do(session, "weights", soup=soup.id, form={})
        (file,) = state.store().soup_folder(soup.id, Form().key).iterdir()
        assert same_weights(load_file(file), soup.state_dict())
    assert_opens(open_page(session, DOWNLOAD), DOWNLOAD)
    assert any(button.label.startswith("Create file") for button in session.button)


def test_a_soup_of_adapters_is_downloaded_as_one(app: App) -> None:
    adapters.save_sweep(app.folder.parent / "adapters")
    settings.configure([str(app.folder.parent / "adapters")])
    own = App(app.folder.parent / "adapters")
    session = own.session()
    request = {"recipe": "uniform", "names": ["run-10", "run-20"], "parameters": {}}
    soup = own.do(session, "soup", **request)["soup"]
    assert_opens(open_page(session, DOWNLOAD), DOWNLOAD)
    (rank,) = session.number_input
    assert (rank.value, rank.max) == (3, 3)
    assert any("Rank 3, the sum of the ranks, is exact." in c.value for c in session.caption)
    rank.set_value(1).run()
    assert any(button.label == "Create adapter" for button in session.button)
    own.do(session, "weights", soup=soup, form=Form(as_adapter=True, rank=1).to_json())
    assert_opens(session.run(), DOWNLOAD)
    (link,) = session.get("link_button")
    assert f"uniform-{soup}-adapter-rank-1.zip" in link.proto.url
    (error,) = (c.value for c in session.caption if c.value.startswith("Relative error"))
    assert 0 < float(error.partition("update: ")[2].partition(" %")[0]) < 100


def test_angles_and_distances_need_no_task(app: App) -> None:
    session = app.session()
    app.do(session, "geometry")
    for file in ("connectivity.py", "geometry.py"):
        assert session.switch_page(file).run().get("plotly_chart"), file
        assert_opens(session, file)


def test_a_logged_metric_ranks_the_ingredients(app: App) -> None:
    session = app.session()
    next(box for box in session.selectbox if box.label == "Rank by").set_value("val_loss").run()
    assert session.query_params["rank"] == "val_loss"
    assert_opens(session, "ingredients.py")
    (table,) = (each.value for each in session.dataframe)
    assert [*table["name"]] == ["run2", "run10", "run1", "base"]
    assert [*table["val_loss (logged)"]][:3] == [0.2, 0.3, 0.5]
    _, figure, _ = session.get("plotly_chart")
    assert json.loads(figure.proto.spec)["data"][0]["y"] == ["run1", "run10", "run2"]
    better = next(c for c in session.segmented_control if c.label == "Direction")
    assert better.value == "lower"
    better.set_value("higher").run()
    (table,) = (each.value for each in session.dataframe)
    assert [*table["name"]] == ["run1", "run10", "run2", "base"]
    again = app.session(rank="val_loss", better="higher")
    (table,) = (each.value for each in again.dataframe)
    assert [*table["name"]] == ["run1", "run10", "run2", "base"]


def test_a_root_above_several_sweeps_lists_them(app: App, states: dict[str, State]) -> None:
    root = app.folder.parent / "root"
    for name in ("one", "two"):
        save_sweep(root / name, states)
    settings.configure([f"--root={root}"])
    session = app.session()
    assert [header.value for header in session.header] == ["Choose a sweep"]
    assert {"one", "two"} <= {b.label.rpartition(" ")[2] for b in session.main.button}
    assert not session.error
    assert not session.exception


def test_a_link_cannot_give_the_task_of_the_sample_to_another_sweep(app: App) -> None:
    session = app.session("overview.py", task=settings.SAMPLE_TASK)
    assert session.session_state["task"] == ""
    assert any("without a task" in warning.value for warning in session.warning)
    assert_opens(session, "overview.py")


def test_the_overview_shows_the_best_by_a_logged_metric(app: App) -> None:
    session = app.session("overview.py", rank="val_loss")
    (table,) = (each.value for each in session.dataframe)
    assert [*table["name"]] == ["run2", "run10", "run1"]
    assert [*table["val_loss (logged)"]] == [0.2, 0.3, 0.5]
    assert not any(button.label.startswith("Analyze") for button in session.button)
