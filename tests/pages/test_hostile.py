"""Names of others are text on every page, whatever they are made of."""

import time
from collections.abc import Iterator
from pathlib import Path
from shutil import copy
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from pages.components import settings, state
from tests.pages import hostile
from tests.pages.conftest import leaves

pytestmark = pytest.mark.integration  # it takes long

PROJECT = Path(__file__).parents[2]
PAGES = sorted(
    path.stem for path in (PROJECT / "pages").glob("*.py") if path.stem not in ("main", "__init__")
)
PAGES += ["soups?tab=all", "soup?section=evidence", "soup?section=download"]
WORK = ("play_arrow", "soup_kitchen", "balance", "blender")  # icons of buttons that ask for work
PATIENCE = 60  # seconds
_SHARED = (state.store, state.supervisor, state.opened, state.descriptions)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppTest]:
    """A session on the hostile sweep that has run all jobs that the pages offer."""
    folder = tmp_path_factory.mktemp("hostile-names")
    sweep, task = hostile.write(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STOCKPOT_WORKSPACE", str(folder / "workspace"))
        patch.setenv("PYTHONPATH", str(PROJECT))  # the task's file imports from the tests
        patch.setattr(settings, "_current", None)
        settings.configure([f"--root={sweep.parent}", f"--task={task}"])
        for shared in _SHARED:
            shared.cache_clear()
        state.opened().add(str(sweep))
        app = AppTest.from_file(str(PROJECT / "pages" / "main.py"), default_timeout=PATIENCE)
        app.query_params["sweep"], app.query_params["task"] = str(sweep), task
        app.query_params["pair"] = [f"run {number} {hostile.MARKUP}" for number in (0, 1)]
        settle(app)
        for page in ["ingredients", "soups", *PAGES]:
            open_page(app, page)
            if page == "plane":
                app.selectbox[-1].select(7)  # points a side
                settle(app)
            ask_for_all(app)
        yield app
        state.supervisor().stop()
        for shared in _SHARED:
            shared.cache_clear()


@pytest.fixture(autouse=True)
def workspace(app: AppTest) -> Path:
    """The one of the whole module: what a job has read is known to the pages."""
    return settings.current().uploads.parent


def settle(app: AppTest) -> None:
    """Run the page, and again when its jobs are done."""
    for task in settings.current().tasks:
        assert state.descriptions().get(task, PATIENCE) is not None
    queue = state.supervisor().queue
    before = len(queue.recent(1000))
    app.run()
    if queue.unfinished() or len(queue.recent(1000)) > before:
        deadline = time.monotonic() + PATIENCE
        while queue.unfinished():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        app.run()
    assert [error.value for error in (*app.error, *app.exception)] == []


def open_page(app: AppTest, page: str) -> None:
    """Open a page by its name, after which an open tab of it may be given."""
    name, _, tab = page.partition("?")
    app.session_state["tab"] = app.session_state["section"] = ""
    if tab:
        key, _, app.session_state[key] = tab.partition("=")
    app.switch_page(f"{name}.py")
    settle(app)


def ask_for_all(app: AppTest) -> None:
    clicked = set()
    while buttons := [
        button
        for button in app.main.button
        if any(f":material/{icon}:" == button.proto.icon for icon in WORK)
        and not (button.disabled or button.label in clicked)
    ]:
        clicked.add(buttons[0].label)
        buttons[0].click()
        settle(app)


def assert_text(app: AppTest) -> None:
    """Assert that names of others are on the page, and all of them as text."""
    texts = [(place, text) for place, text in hostile.shown(app) if "evil" in text]
    assert [(place, text) for place, text in texts if any(raw in text for raw in hostile.RAW)] == []
    assert len(texts) > 2
    drawn = [leaf for figure in hostile.figures(app) for leaf in leaves(figure)]
    for place, text in drawn:
        if "evil" in str(text):
            assert not place.endswith(".hovertemplate")
            assert not set(text) & set("<{$")
            assert "&amp;lt;" in text or len(text) < len(hostile.MARKUP)  # a part of it
    assert any("evil" in str(text) for _, text in drawn) == any(hostile.figures(app))


@pytest.mark.parametrize("page", PAGES)
def test_names_are_text_on_every_page(app: AppTest, page: str) -> None:
    open_page(app, page)
    assert_text(app)


@pytest.mark.parametrize("measure", ["error", "midpoint", "angle", "distance"])
def test_names_are_text_whatever_is_measured(app: AppTest, measure: str) -> None:
    open_page(app, "connectivity")
    app.segmented_control[0].set_value(measure)
    settle(app)
    ask_for_all(app)
    assert_text(app)


@pytest.mark.parametrize(
    "tab", ["By layer", "Distance from base", "Angle vs. midpoint gain", "By hyperparameter"]
)
def test_names_are_text_in_every_tab(app: AppTest, tab: str) -> None:
    open_page(app, "geometry")
    app.session_state["geometry-tab"] = tab
    settle(app)
    ask_for_all(app)
    assert any(hostile.figures(app))
    assert_text(app)


def test_names_are_text_beside_sliders(app: AppTest) -> None:
    open_page(app, "soups")
    app.segmented_control[0].set_value("manual")
    settle(app)
    assert [slider.label for slider in app.slider if "evil" in slider.label]
    assert_text(app)
    app.segmented_control[1].set_value("greedy")
    settle(app)


def test_names_are_text_where_sweeps_are_chosen(app: AppTest) -> None:
    open_page(app, "ingredients")
    next(b for b in app.sidebar.button if b.label == "Open another sweep").click().run()
    assert [m for m in app.markdown if "folder_open" in m.value and "evil" in m.value]
    assert_text(app)


@pytest.mark.parametrize("key", ["odd", "", "a/b"])
def test_an_odd_hyperparameter_disables_nothing(app: AppTest, key: str) -> None:
    open_page(app, "geometry")
    app.session_state["geometry-tab"] = "By hyperparameter"
    settle(app)
    row = next(box for box in app.selectbox if box.label == "Hyperparameter")
    if key in row.options:
        row.select(key)
        settle(app)
        ask_for_all(app)
        assert any(hostile.figures(app))
    for page in ("soup_vs_ensemble", "ingredients"):
        open_page(app, page)
        for box in app.selectbox:
            if box.label == "Colour by max of pair" and key in box.options:
                box.select(key)
                settle(app)
        assert any(hostile.figures(app))


@pytest.mark.parametrize(
    "url",
    [
        {"sweep": hostile.MARKUP},
        {"sweep": "\0"},
        {"sweep": "x" * 5000},
        {"task": hostile.MARKUP},
        {"weights": hostile.MARKUP},
        {"snapshot": hostile.MARKUP},
        {"snapshot": "{"},
        {"batchnorm": hostile.MARKUP},
        {"soup": hostile.MARKUP},
        {"selection": [hostile.MARKUP, ""]},
        {"pair": [hostile.MARKUP, "run", ""]},
        {"unknown": hostile.MARKUP},
    ],
    ids=lambda url: next(iter(url)),
)
def test_a_url_is_text(app: AppTest, url: dict[str, Any]) -> None:
    other = AppTest.from_file(str(PROJECT / "pages" / "main.py"), default_timeout=PATIENCE)
    for name, value in url.items():
        other.query_params[name] = value
    settle(other)
    assert [h.value for h in other.header] != []
    assert [t for _, t in hostile.shown(other) if any(raw in t for raw in hostile.RAW)] == []


def test_a_link_starts_nothing_until_its_button_is_pressed(app: AppTest) -> None:
    folder = Path(settings.current().roots[0]) / "linked"
    folder.mkdir()
    copy(Path(settings.SAMPLE_SWEEP) / "run-01.safetensors", folder)
    before = state.supervisor().queue.recent()
    other = AppTest.from_file(str(PROJECT / "pages" / "main.py"), default_timeout=PATIENCE)
    other.query_params["sweep"] = str(folder)
    other.run()
    assert [job.id for job in state.supervisor().queue.recent()] == [job.id for job in before]
    assert "This link opens" in other.info[0].value
    next(b for b in other.button if b.label == "Read the checkpoints").click()
    settle(other)
    assert other.header[0].value == "Overview"
