"""Every page opens, whatever soups there are and whatever the sweep and the task lack."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace
from typing import Any

import pytest
import streamlit
import torch
from safetensors.torch import save_file
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Element

from pages.components import jobs, settings, state
from soupcore import RECIPES, Store, Sweep, escaping, load_task, plan
from soupcore.connectivity import summaries
from soupcore.jobs.kinds import KINDS, WarmState
from soupcore.overview import Overview
from soupcore.report import archive, contents, report
from soupcore.writers.forms import Form
from tests.helpers import State, save_sweep
from tests.pages.conftest import do_jobs_at_once, forget_server
from tests.toy import FEATURES, logits, random_state, toy_runs

MAIN = Path(__file__).parents[2] / "pages" / "main.py"
PAGES = {
    "overview.py": "Overview",
    "ingredients.py": "Ingredients",
    "soups.py": "Soups",
    "compare.py": "Compare",
    "soup.py": "Soup",
    "soup.py?evidence": "Evidence",
    "soup.py?download": "Download",
    "report.py": "Report",
    "connectivity.py": "Connectivity",
    "from_base.py": "Paths",
    "plane.py": "Plane",
    "geometry.py": "Geometry",
    "soup_vs_ensemble.py": "Ensembles",
}
NAMES = ["run1", "run2", "run10"]
# The other pages show soups side by side.
OF_ONE_SOUP = [file for file in PAGES if file.startswith("soup.py")]
MANUAL = "manual"
TASK = """
from pathlib import Path
from safetensors.torch import load_file
import torch
from soupcore import ClassificationTask, Metric, Split, Task
from tests.toy import build_model

data = load_file(Path(__file__).parent / "data.safetensors")

def split(role, start):
    part = slice(start, start + 30)
    return Split(role, data["inputs"][part], data["targets"][part])

splits = {"train": split("train", 70), "val": split("select", 0), "test": split("report", 30),
          "shift/a": split("shift", 60), "shift/b": split("shift", 65)}
for role in roles_left_out:
    splits = {name: split for name, split in splits.items() if split.role != role}
task = ClassificationTask(build_model, splits)
"""

REGRESSION = """
class Kelvin(Task):
    score_name = "negative MAE in kelvin"
    loss_name = "MAE"

    def loss(self, outputs, targets):
        return (outputs - targets).abs().mean(-1)

    def score(self, outputs, targets):
        return -self.loss(outputs, targets)

def kelvins(split):
    targets = 3 * torch.nn.functional.one_hot(split.targets, 3).float()
    return Split(split.role, split.inputs, targets)

splits = {name: kelvins(split) for name, split in splits.items()}
task = Kelvin(build_model, splits)
"""
LOWER = """
class Kelvin(Task):
    def loss(self, outputs, targets):
        return (outputs - targets).square().mean(-1)

    def predict(self, outputs):
        return outputs.mean(-1)

def kelvins(split):
    return Split(split.role, split.inputs, 3 * split.targets.float()[:, None].expand(-1, 3))

def error(predictions, targets):
    return float((predictions - targets[:, 0]).abs().mean())

metric = Metric("MAE", higher_is_better=False, unit="K", compute=error)
task = Kelvin(build_model, {name: kelvins(split) for name, split in splits.items()},
              metrics=[metric])
"""
COMMAND = """
import sys
from soupcore.tasks.command import CommandTask

here = Path(__file__).parent
(here / "score.py").write_text('''
import array, json, sys
content = open(sys.argv[1], "rb").read()
weights = array.array("f", content[8 + int.from_bytes(content[:8], "little"):])
number = sum(weight * weight for weight in weights) / len(weights)
print(json.dumps({"MAE": 20 + number, "loss": 3 + number}))
''')
(here / "eval.toml").write_text(f'''
run = "{sys.executable} -I -S score.py {{checkpoint}}"
[splits]
val = "select"
test = "report"
"shift/a" = "shift"
[metrics.MAE]
higher_is_better = false
unit = "K"
[metrics.loss]
higher_is_better = false
''')
task = CommandTask(here / "eval.toml")
"""
SEVERAL = """
def mistakes(predictions, targets):
    return 7.5 * float((predictions != targets).double().mean())

lower = Metric("mistakes", higher_is_better=False, unit="K", compute=mistakes)
task = ClassificationTask(build_model, splits, metrics=["accuracy", "macro F1", lower])
"""
GROUPS = """
splits = {name: Split(split.role, split.inputs, split.targets,
                      groups=["even", "odd"] * (len(split) // 2) + ["even"] * (len(split) % 2))
          for name, split in splits.items()}
task = ClassificationTask(build_model, splits, metrics=["accuracy", "worst-group accuracy"])
"""
DICE = """
class Dice(ClassificationTask):
    score_name = "Dice"

    def score(self, outputs, targets):
        found = super().score(outputs, targets)
        return found.masked_fill(targets == data["targets"][0], float("nan"))

task = Dice(build_model, splits)
"""

Request = dict[str, Any]


class App:
    """The app on a toy sweep, and its jobs, done at once."""

    def __init__(self, store: Store, folder: Path, spec: str) -> None:
        self.warm = WarmState(store, [spec], "cpu")
        self.request = {"sweep": str(folder), "weights": "", "task": spec, "batchnorm": "averaged"}
        self.sweep = self.warm.sweep(self.request)
        task = self.warm.evaluator(self.request).task
        self.select, self.splits = task.select, task.reported

    def do(self, kind: str, **request: Any) -> Mapping[str, Any]:
        job = KINDS[kind]
        return job(self.warm, self.request | request, lambda done, total, partial=None: None)

    def evaluate(self) -> None:
        self.do("evaluate", names=self.ends, splits=self.splits)

    def map_weights(self, *, size: int = 7) -> None:
        self.do("paths", names=NAMES, alphas="adaptive", splits=[self.select])
        self.do("geometry")
        self.do("plane", corners=self.ends[:3], split=self.select, size=size)

    def build(self, recipe: str) -> str:
        if recipe == MANUAL:
            coefficients = {"run1": "3/4", "run2": "1/4"}
            made = self.do("mixture", splits=self.splits, coefficients=coefficients, keep=True)
            return str(made["soup"])
        names = NAMES[: RECIPES[recipe].takes[1] or len(NAMES)]
        return str(self.do("soup", recipe=recipe, names=names, parameters={})["soup"])

    @property
    def ends(self) -> list[str]:
        return [*([self.sweep.base.name] if self.sweep.base else []), *NAMES]

    @property
    def recipes(self) -> list[str]:
        can = [name for name, recipe in RECIPES.items() if self.sweep.base or not recipe.needs_base]
        return [*can, MANUAL]

    def session(self, page: str = "overview.py", **query: Any) -> AppTest:
        """Open a page in a new session; see `open_page`.

        Args:
            page: The file of the page.
            query: Other parameters of the URL than the sweep and the task.
        """
        session = AppTest.from_file(str(MAIN), default_timeout=60)
        file, _, section = page.partition("?")
        of_page = {"section": section} if section else {}
        own = {"sweep": str(self.sweep.folder), "task": str(self.request["task"])}
        for name, value in (own | of_page | query).items():
            session.query_params[name] = value
        return session.switch_page(file).run()

    def open_all(self) -> Iterator[AppTest]:
        """Open every page; give each in turn."""
        session = self.session()
        for file in PAGES:
            if file != "overview.py":
                open_page(session, file)
            assert_opened(session, file)
            yield session


def open_page(session: AppTest, page: str) -> AppTest:
    """Open a page by its file, after which a section of it may be named: `file.py?section`."""
    file, _, session.session_state["section"] = page.partition("?")
    return session.switch_page(file).run()


def assert_opened(session: AppTest, page: str) -> None:
    """Assert that a page is shown without an error; that of a soup has its name for a heading."""
    title = PAGES[page]
    assert not session.exception, f"{title}: {session.exception[0].message}"
    assert not session.error, f"{title}: {session.error[0].value}"
    (header,) = (header.value for header in session.header)
    if page.startswith("soup.py"):
        assert session.session_state["section"] == page.partition("?")[2]
        assert header == "Soup" or [tab.label for tab in session.tabs][:1] == ["Summary"]
    else:
        assert header == title


Start = Callable[..., App]


def write_sweep(
    folder: Path, *, base: bool = True, without: tuple[str, ...] = (), task: str = ""
) -> tuple[Path, str]:
    """Write a sweep and a task; return its folder and the task as `file.py:attribute`."""
    base_state = random_state(0)
    states = toy_runs(base_state)
    sweep = save_sweep(folder / "sweep", ({"base": base_state} if base else {}) | states)
    rows = [{"checkpoint": name, "lr": 10.0**-i, "seed": i} for i, name in enumerate(NAMES)]
    (sweep / "sweep.jsonl").write_text("\n".join(map(json.dumps, rows)))
    inputs = torch.randn(100, FEATURES, generator=torch.Generator().manual_seed(2))
    targets = logits(base_state, inputs).argmax(1)
    save_file({"inputs": inputs, "targets": targets}, folder / "data.safetensors")
    file = folder / "task.py"
    file.write_text(f"roles_left_out = {without!r}\n{TASK}{task}")
    return sweep, f"{file}:task"


@pytest.fixture(scope="session")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with all evaluations of the toy sweep and its maps of weight space."""
    folder = tmp_path_factory.mktemp("mapped")
    store = Store(folder / "workspace")
    app = App(store, *write_sweep(folder))
    app.evaluate()
    app.map_weights()
    store.close()
    return store.folder


@pytest.fixture
def start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workspace: Path, mapped: Path
) -> Iterator[Start]:
    """Return a function that starts the app.

    It starts with or without a base and roles of splits, and with a workspace that is empty or a
    copy of `mapped`.
    """

    def start(*, known: bool = False, **options: Any) -> App:
        if known:
            copytree(mapped, workspace, dirs_exist_ok=True)
        folder, spec = write_sweep(tmp_path, **options)
        settings.configure(["--root", str(tmp_path), "--task", spec])
        app = App(state.store(), folder, spec)
        do_jobs_at_once(monkeypatch, app.warm)
        state.opened().add(str(folder))
        # Made here, as starting a process for each takes seconds.
        described = SimpleNamespace(get=cache(lambda spec, wait_s: load_task(spec).describe()))
        monkeypatch.setattr(state, "descriptions", lambda: described)
        return app

    forget_server()
    yield start
    forget_server()


def test_pages_open_before_the_first_evaluation(start: Start) -> None:
    assert len(list(start().open_all())) == len(PAGES)


def test_pages_open_with_a_soup_by_each_recipe(start: Start) -> None:
    app = start(known=True)
    soups = [app.build(recipe) for recipe in app.recipes]
    *_, session = app.open_all()
    for soup in soups:
        session.session_state["soup"] = soup
        for page in OF_ONE_SOUP:
            assert_opened(open_page(session, page), page)
            assert soup in [box.value for box in session.selectbox if box.label == "Soup"]


@pytest.mark.parametrize(
    ("base", "without"),
    [
        (True, ("shift",)),
        (False, ()),
        (False, ("report",)),
        (False, ("report", "shift", "train")),
    ],
)
def test_pages_open_without_a_base_or_some_splits(
    start: Start, base: bool, without: tuple[str, ...]
) -> None:
    app = start(known=True, base=base, without=without)
    app.evaluate()  # the splits of this task; `mapped` has those of another one
    app.map_weights()
    for recipe in {"uniform", "greedy", "learned", "wise_ft", MANUAL}.intersection(app.recipes):
        app.build(recipe)
    assert len(list(app.open_all())) == len(PAGES)


def test_a_plane_shows_soups_by_a_formula_once_their_weights_were_read(start: Start) -> None:
    app = start(known=True)
    soups = {name: app.build(name) for name in ("uniform", "ties", "slerp", "dare")}
    titles = {"slerp": "SLERP · 2 of 3"}
    labels = {n: titles.get(n) or f"{RECIPES[n].title} · 3 of 3" for n in soups}
    aside = [labels[name] for name in ("ties", "slerp", "dare")]
    session = app.session("plane.py")
    session.selectbox[-1].set_value(7).run()
    assert _drawn(session) == {"base", *NAMES, labels["uniform"]}
    assert f"Not projected yet: {', '.join(aside)}." in [c.value for c in session.caption]
    points = [{"soup": soups[name]} for name in ("ties", "slerp", "dare")]
    app.do("plane", corners=app.ends[:3], split=app.select, size=7, points=points)
    session.run()
    assert _drawn(session) == {"base", *NAMES, *labels.values()}
    assert not [c.value for c in session.caption if c.value.startswith("Not projected")]


def _drawn(session: AppTest) -> set[str]:
    """Names of the points drawn on the plane."""
    (figure,) = session.get("plotly_chart")
    traces = json.loads(figure.proto.spec)["data"]
    return {name for name, _ in next(t for t in traces if t.get("name") == "points")["customdata"]}


@pytest.mark.parametrize(
    ("task", "column", "sign"),
    [
        pytest.param(REGRESSION, "validation negative MAE in kelvin", 1, id="higher is better"),
        pytest.param(LOWER, "validation MAE, K", -1, id="lower is better"),
        pytest.param(COMMAND, "validation MAE, K", -1, id="by a command"),
    ],
)
def test_scores_other_than_shares_are_never_percentages(
    start: Start, task: str, column: str, sign: int
) -> None:
    app = start(task=task)
    app.evaluate()
    app.map_weights(size=3)  # a command takes a process for each point
    app.build("uniform")
    app.build("greedy")
    for session in app.open_all():
        text = "\n".join(_texts(session))
        for percentage in ("95 %", "1 % if above 1", "% of layer norm"):
            text = text.replace(percentage, "")
        # In a figure, %{ begins a placeholder.
        wrong = r" %(?!\{)|%\.2f|\d pp\b|, pp\b|McNemar|newly correct|ensemble of|accuracy|image"
        assert re.findall(f".{{0,80}}(?:{wrong}).{{0,80}}", text) == []
    session = app.session("ingredients.py")
    (table,) = (each.value for each in session.dataframe)
    evaluator = app.warm.evaluator(app.request)
    scores = [evaluator.evaluate(app.sweep[name].mixture, "val").score for name in NAMES]
    by_name = dict(zip(table["name"], table[column], strict=True))
    assert [by_name[name] for name in NAMES] == [sign * score for score in scores]
    assert all(score < 0 for score in scores)


def test_the_primary_metric_is_chosen_on_the_page(start: Start) -> None:
    app = start(task=SEVERAL)
    app.evaluate()
    app.build("greedy")
    session = app.session("ingredients.py")
    box = next(each for each in session.selectbox if each.label == "Primary metric")
    assert box.options == ["accuracy", "macro F1", "mistakes (lower is better)"]
    box.select("mistakes").run()
    assert session.query_params["metric"] == "mistakes"
    (table,) = (each.value for each in session.dataframe)
    by_name = dict(zip(table["name"], table["validation mistakes, K"], strict=True))
    app.request["primary"] = "mistakes"
    evaluator = app.warm.evaluator(app.request)
    scores = [evaluator.stored([app.sweep[name].mixture], "val")[0] for name in NAMES]
    assert [by_name[name] for name in NAMES] == [-each.score for each in scores if each]
    # A job has computed the intervals from the records.
    assert [each.lacks_interval for each in scores if each] == [False] * len(NAMES)
    app.build("greedy")
    for file in PAGES:
        open_page(session, file)
        assert not session.exception, f"{file}: {session.exception[0].message}"
        assert session.query_params["metric"] == "mistakes"
        assert "accuracy on" not in "\n".join(_texts(session))
    session.query_params["metric"] = "AUC"  # a link to a metric that the task does not have
    assert not session.run().exception


def test_intervals_of_a_linked_sweep_need_a_click(start: Start) -> None:
    app = start(task=SEVERAL)
    app.evaluate()
    state.opened().remove(str(app.sweep.folder))
    session = app.session(metric="macro F1")
    assert "Compute the intervals" in [each.label for each in session.button]


def test_scores_by_class_and_group_are_shown_for_a_row(start: Start) -> None:
    app = start(task=GROUPS)
    app.evaluate()
    session = app.session("ingredients.py")
    session.session_state["row-detail"] = True
    session.run()
    next(each for each in session.toggle if each.label == "Scores by class and group").set_value(
        True
    ).run()
    assert not session.exception
    shown = {next(iter(each.value)): each.value for each in session.dataframe}
    by_class, by_group = shown["class"], shown["group"]
    assert [*by_group["group"]] == ["even", "odd"]
    assert [*by_group["n"]] == [15, 15]
    task = load_task(app.request["task"])
    row = str(next(each for each in session.selectbox if each.label == "Row").value)
    found = app.warm.evaluator(app.request).evaluate(app.sweep[row].mixture, "test").scores
    expected = [100 * float(found[rows::2].mean()) for rows in (0, 1)]
    assert [*by_group["accuracy, %"]] == pytest.approx(expected)
    counts = torch.unique(task.split("test").targets, return_counts=True)
    assert [*by_class["n"]] == counts[1].tolist()
    assert [*by_class["class"]] == [*map(str, counts[0].tolist())]


def test_undefined_scores_are_dashes_and_never_the_best(start: Start) -> None:
    app = start(task=DICE)
    app.evaluate()
    app.build("uniform")
    titles = PAGES.values()
    pages = {t: _texts(session) for t, session in zip(titles, app.open_all(), strict=True)}
    assert any("undefined for" in text and "of 30 examples" in text
               for text in pages["Ingredients"])  # fmt: skip
    assert any("Nothing to compare with" in text for text in pages["Evidence"])
    assert "Uniform · 3 of 3" in "".join(pages["Soups"])


def test_the_overview_leads_to_the_verdict_and_to_the_files_of_the_best_soup(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = start()

    def submit(kind: str, title: str, request: Request) -> int:
        app.do(kind, **request)
        return 0

    monkeypatch.setattr(jobs, "submit", submit)
    session = app.session()
    (button,) = [each for each in session.button if each.label.startswith("Analyze this sweep")]
    assert re.search(r", about \d+ s$", button.label)
    assert any("averages the weights" in each.value for each in session.markdown)
    button.click().run()
    assert not session.exception
    assert not [each for each in session.button if "nalyze" in each.label or "Finish" in each.label]
    overview = Overview.of(session.session_state["view"])
    first = escaping.markdown(overview.verdict.sentences[0])
    assert any(each.value.endswith(first) for each in session.markdown)
    (table,) = (each.value for each in session.dataframe)
    assert len(table) == 5
    (download,) = [each for each in session.button if each.label.startswith("Download ")]
    download.click().run()
    assert overview.headline is not None
    assert session.header[0].value == overview.headline.label
    assert session.query_params["section"] == "download"
    assert ["Download" in link.proto.label for link in session.get("link_button")] == [True]
    assert state.store().soup_files(overview.headline.soup.id, Form().key)
    session.switch_page("overview.py").run()
    next(each for each in session.button if each.label == "Evidence").click().run()
    assert session.query_params["section"] == "evidence"
    assert any(each.value.startswith("Soup vs. best single") for each in session.subheader)
    box = next(each for each in session.selectbox if each.label == "Soup")
    assert box.value == overview.headline.soup.id


@pytest.mark.parametrize(
    ("price_of_one_pass", "limit", "kinds"),
    [(0.01, 10, ["analyze"]), (0.9, 10, ["evaluate"]), (60.0, 10, []), (0.01, 0, [])],
)
@pytest.mark.parametrize("is_linked", [False, True])
def test_short_analyses_start_without_a_click_in_the_sweep_of_the_command_line(
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    price_of_one_pass: float,
    limit: float,
    kinds: list[str],
    is_linked: bool,
) -> None:
    app = start()
    folder, spec = str(app.sweep.folder), str(app.request["task"])
    settings.configure([folder, "--task", spec, f"--auto={limit}"])
    monkeypatch.setattr(jobs, "_started", cache(set))
    state.supervisor().stop()  # it would start a worker for a queued job
    monkeypatch.setattr(jobs, "submit", state.supervisor().queue.submit)
    # A pass is the evaluation of a checkpoint on all four splits of 30 examples.
    monkeypatch.setattr(plan, "seconds", lambda known, examples: examples / 120 * price_of_one_pass)
    session = AppTest.from_file(str(MAIN), default_timeout=60)
    if is_linked:
        session.query_params["sweep"] = folder
    session.run().run()
    assert not session.exception
    found = [job.kind for job in state.supervisor().queue.unfinished()]
    assert found == ([] if is_linked else kinds)
    offers = [each for each in session.button if each.label.startswith("Analyze this sweep")]
    assert len(offers) == (found != ["analyze"])


def test_short_jobs_of_a_page_start_without_a_click(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = start()
    app.evaluate()
    spec = str(app.request["task"])
    settings.configure([str(app.sweep.folder), "--task", spec, "--auto=600"])
    monkeypatch.setattr(jobs, "_started", cache(set))
    state.supervisor().stop()  # it would start a worker for a queued job
    queue = state.supervisor().queue
    monkeypatch.setattr(jobs, "submit", queue.submit)
    session = AppTest.from_file(str(MAIN), default_timeout=60).run()
    for analysis in queue.unfinished("analyze"):
        queue.cancel(analysis.id)  # otherwise nothing starts beside it
    titles: dict[str, list[str]] = {}
    for page in PAGES:
        open_page(session, page)
        assert not session.exception
        titles[page] = [job.title for job in queue.unfinished()]
        for job in queue.unfinished():
            queue.cancel(job.id)
    open_page(session, "plane.py")
    assert not queue.unfinished()  # not again after it was cancelled
    assert {page: found for page, found in titles.items() if found} == {
        "connectivity.py": ["Evaluate 3 pairs on val", "Evaluate run1 → run2 on val"],
        "from_base.py": ["Evaluate 3 paths from the base"],
        "plane.py": ["Plane base, run1, run2 on val"],
        "geometry.py": ["Compute the geometry"],
        "soup_vs_ensemble.py": ["Evaluate 3 midpoints on val"],
    }


@pytest.mark.parametrize(
    ("page", "beginnings"),
    [
        ("ingredients.py", ("Evaluate all ingredients",)),
        ("connectivity.py", ("Quick screen (10 examples)", "Run about ")),
        ("from_base.py", ("Run ",)),
        ("plane.py", ("Run ",)),
        ("soup_vs_ensemble.py", ("Run ", "Compare 3 pairs")),
    ],
)
def test_buttons_show_the_estimated_time(
    start: Start, monkeypatch: pytest.MonkeyPatch, page: str, beginnings: tuple[str, ...]
) -> None:
    monkeypatch.setattr(summaries, "SCREEN", 10)
    app = start()
    app.do("evaluate", names=["run1"], splits=[app.select])
    session = app.session(page)
    for beginning in beginnings:
        (label,) = [each.label for each in session.button if each.label.startswith(beginning)]
        assert re.search(r", about (\d+ h )?\d+ (s|min)$", label)


def test_the_report_is_made_when_it_is_downloaded(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = start(known=True)
    soups = {recipe: app.build(recipe) for recipe in ("uniform", "greedy")}
    offered: dict[str, Any] = {}
    mimes: dict[str, str] = {}

    def download_button(label: str, data: Any, *more: str, **options: Any) -> None:
        if label.startswith("Download "):
            offered[label], mimes[label] = data, options["mime"]

    monkeypatch.setattr(streamlit, "download_button", download_button)
    session = app.session()
    next(each for each in session.button if each.label == "Report").click().run()
    assert session.header[0].value == "Report"
    context = session.session_state["view"]
    known = Overview.of(context)
    shown = [each.value for each in session.markdown]
    assert f"##### {escaping.markdown(known.verdict.sentences[0])}" in shown
    assert "\n".join(f"1. {title}" for title in contents(context)) in shown
    html, folder = "Download report (HTML)", "Download folder (ZIP)"
    assert mimes == {html: "text/html", folder: "application/zip"}
    assert offered[html]() == report(context)
    assert offered[folder].func is archive
    session.switch_page("report.py").run().selectbox[0].set_value(soups["uniform"]).run()
    for make, function in ((offered[html], report), (offered[folder], archive)):
        assert make.func is function
        assert make.args == (session.session_state["view"], soups["uniform"])
    next(each for each in session.button if each.label == "Download").click().run()
    assert session.query_params["section"] == "download"
    assert session.session_state["soup"] == soups["uniform"]


def add_runs(app: App, states: dict[str, State]) -> None:
    """Add two runs of Ultralytics with two snapshots each, and read all of them."""
    folder = app.sweep.folder
    for number, name in enumerate(("train-2", "train-10"), start=1):
        weights = folder / name / "weights"
        weights.mkdir(parents=True)
        for file, tensors in (("best", states["run1"]), ("last", states["run2"])):
            moved = {key: t + 0.01 * number if t.is_floating_point() else t
                     for key, t in tensors.items()}  # fmt: skip
            torch.save(moved, weights / f"{file}.pt")
        (folder / name / "args.yaml").write_text(f"lr0: 0.00{number}\nbatch: 16\n")
        (folder / name / "results.csv").write_text(f"epoch,val/mAP\n1,0.5\n2,0.{6 + number}\n")
    for snapshot in ("last", "every"):
        Sweep.from_folder(folder, snapshot=snapshot)


def test_the_snapshot_of_runs_is_chosen_on_the_page(start: Start, states: dict[str, State]) -> None:
    app = start()
    add_runs(app, states)
    session = app.session("ingredients.py")
    (caption,) = [c.value for c in session.caption if "several snapshots" in c.value]
    assert caption == "2 runs have several snapshots of Ultralytics. Used: best (2)."
    box = next(box for box in session.selectbox if box.label == "Snapshot of each run")
    box.select("every").run()
    assert session.query_params["snapshot"] == "every"
    (table,) = (each.value for each in session.dataframe)
    assert [*table["name"]] == [
        *NAMES[:2],
        "run10",
        "train-2/best",
        "train-2/last",
        "train-10/best",
        "train-10/last",
        "base",
    ]
    assert any("snapshot='every'" in code.value for code in session.code)
    assert not session.exception


def test_one_run_may_have_another_snapshot_than_the_others(
    start: Start, states: dict[str, State]
) -> None:
    app = start()
    add_runs(app, states)
    session = app.session("ingredients.py")
    box = next(box for box in session.selectbox if box.label == "Snapshot")
    box.select("last").run()
    next(button for button in session.button if button.label == "Use it").click().run()
    assert json.loads(session.query_params["snapshot"]) == {"train-2": "last"}
    assert session.session_state["view"].request["snapshot"] == {"train-2": "last"}
    assert app.warm.sweep(session.session_state["view"].request).snapshot == {"train-2": "last"}


def test_logged_metrics_are_marked_and_order_the_table(
    start: Start, states: dict[str, State]
) -> None:
    app = start()
    add_runs(app, states)
    session = app.session("ingredients.py", snapshot="last")
    (table,) = (each.value for each in session.dataframe)
    by_name = dict(zip(table["name"], table["val/mAP (logged)"], strict=True))
    assert (by_name["train-2"], by_name["train-10"]) == (0.7, 0.8)
    box = next(box for box in session.selectbox if box.label == "Sort by")
    box.set_value("val/mAP (logged)").run()
    (table,) = (each.value for each in session.dataframe)
    assert [*table["name"]] == ["train-10", "train-2", *NAMES, "base"]


def test_a_link_to_snapshots_of_a_run_that_is_gone_offers_the_way_back(start: Start) -> None:
    app = start()
    session = app.session(snapshot='{"gone": "best"}')
    assert "gone" in session.error[0].value
    (button,) = [b for b in session.button if b.label.startswith("Open the default snapshots")]
    button.click().run()
    assert not session.error
    assert "snapshot" not in session.query_params


def _texts(session: AppTest) -> list[str]:
    """All that a page shows, and what its widgets explain; not the Python beside it."""
    found = []
    for node in session.main:
        if not isinstance(node, Element):
            continue
        texts: list[object]
        texts = [getattr(node, name, None) for name in ("value", "label", "help", "options")]
        if node.type == "arrow_data_frame":
            texts = [list(node.value.columns), node.value.to_string()]
        if node.type == "plotly_chart":
            texts = [node.proto.spec]
        if node.type != "code":
            found += [str(each) for each in texts if each is not None]
    return found
