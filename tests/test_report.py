"""The report: a page that is whole, requests nothing, and has the numbers of the store."""

import io
import json
import math
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from itertools import combinations
from urllib.parse import unquote

import html5lib
import pandas as pd
import pytest
from plotly.offline import get_plotlyjs

from soupcore import (
    ClassificationTask,
    Evaluator,
    Metric,
    RecipeError,
    Soup,
    Split,
    Store,
    Sweep,
    greedy,
    report,
    uniform,
)
from soupcore.analysis import paired
from soupcore.calls import BestIngredientBias, Context, GreedyEnsembleScores, Optimism
from soupcore.connectivity import evaluate_lines
from soupcore.evaluation import Evaluations
from soupcore.overview import GREEDY, Overview
from soupcore.progress import no_progress
from soupcore.report import contents, html
from soupcore.store.soups import annotate
from soupcore.sweeps import Ingredient
from tests.helpers import save_sweep
from tests.toy import build_model, random_state, toy_runs, toy_splits

NAMES = ("run1", "run2", "run10")
TASK = "task.py:task"
VOID = {"meta", "br", "hr", "img", "input", "link"}
SECTIONS = [
    "Verdict", "Protocol", "Results", "Figures", "Evidence", "Limitations", "Ingredients",
    "Fit report", "Reproduce in Python",
]  # fmt: skip
MARKUP = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp; a"


class Page(HTMLParser):
    """A page as a browser reads it; asserts that it is valid HTML."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.scripts: list[str] = []
        self.cells: list[list[str]] = []
        self.text = ""
        # Without plotly.js, which takes long. It raises an error if the page is not valid.
        html5lib.HTMLParser(strict=True).parse(text.replace(get_plotlyjs(), ""))
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts[-1] += data
        elif "style" not in self.open:
            self.text += f" {data}"
            if "tr" in self.open and self.cells[-1]:
                self.cells[-1][-1] += f"|{data}" if "small" in self.open else data

    def all(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]

    def frame(self, name: str) -> pd.DataFrame:
        files = dict(zip(self.all("download"), self._saved, strict=True))
        return pd.read_csv(io.StringIO(unquote(files[name].partition(",")[2])))

    @property
    def _saved(self) -> list[str]:
        return [link for link in self.all("href") if link.startswith("data:")]


@pytest.fixture(scope="module")
def small_plotly() -> Iterator[None]:
    """Leave plotly.js out, since reading 5 MB in each test takes a while."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html, "get_plotlyjs", lambda: "var Plotly")
        yield


def keep(context: Context, soup: Soup) -> Soup:
    soup.evaluate(context.evaluator)
    context.keep_soup(soup, {})
    return soup


def fill(context: Context) -> list[Soup]:
    """Store all that a report can show; return the soups."""
    sweep, evaluator = context.sweep, context.evaluator
    names = tuple(sweep.ingredients)
    everything = [i.mixture for i in (*sweep.ingredients.values(), sweep.base) if i is not None]
    for split in evaluator.task.reported:
        evaluator.evaluate_all(everything, split)
    lines = [(sweep[a], sweep[b]) for a, b in combinations(names, 2)]
    evaluate_lines(lines, evaluator, split=evaluator.task.select)
    GreedyEnsembleScores(names).run_and_keep(context, no_progress)
    BestIngredientBias(names).run_and_keep(context, no_progress)
    Optimism(names, GREEDY).run_and_keep(context, no_progress)
    return [keep(context, soup) for soup in (uniform(sweep, names[:2]), greedy(sweep, evaluator))]


def read_only(context: Context) -> Context:
    """Return the context as a page has it: with the description of the task only."""
    evaluations = Evaluations(context.task.describe(), context.store)
    return replace(context, source=evaluations)


@pytest.fixture
def context(sweep: Sweep, evaluator: Evaluator, small_plotly: None) -> Context:
    return Context(sweep, evaluator, str(sweep.folder), TASK)


@dataclass(frozen=True)
class Filled:
    """A context whose store has all that a report can show; tests only read it."""

    context: Context
    soups: list[Soup]

    def text(self) -> str:
        """Return the report on the last soup, made with the description of the task only."""
        return report.report(read_only(self.context), self.soups[-1].id)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, small_plotly: None) -> Iterator[Filled]:
    folder = tmp_path_factory.mktemp("filled")
    base = random_state(0)
    sweep = Sweep.from_folder(save_sweep(folder / "sweep", {"base": base} | toy_runs(base)))
    task = ClassificationTask(build_model, toy_splits(base), name="toy")
    with closing(Store(folder / "store")) as store:
        context = Context(sweep, Evaluator(task, store, device="cpu"), str(sweep.folder), TASK)
        yield Filled(context, fill(context))


@pytest.fixture(scope="module")
def page(filled: Filled) -> Page:
    return Page(filled.text())


def test_the_page_is_whole_and_requests_nothing(
    context: Context, monkeypatch: pytest.MonkeyPatch, passes: list[int]
) -> None:
    _, chosen = fill(context)
    monkeypatch.setattr(html, "get_plotlyjs", get_plotlyjs)  # the real one
    before = len(passes)
    known = read_only(context)
    text = report.report(known, chosen.id)
    assert len(passes) == before
    page = Page(text)
    assert contents(known) == SECTIONS
    assert page.tags["h1"] == 1
    ids = page.all("id")
    assert len({*ids}) == len(ids)
    links = [link for link in page.all("href") if not link.startswith("data:text/plain")]
    assert [link.removeprefix("#") for link in links] == [
        i for i in ids if not i.startswith("figure-")
    ]
    assert page.all("src") == page.all("srcset") == []
    assert page.tags["link"] == page.tags["iframe"] == page.tags["form"] == 0
    assert not re.search(r"@import|url\(", text.partition("<style>")[2].partition("</style>")[0])
    (policy,) = [value for value in page.all("content") if "default-src" in value]
    assert policy.startswith("default-src 'none'; ")
    figures = {i for i in ids if i.startswith("figure-")}
    assert figures == {f"figure-{name}" for name in ("scores", "basins", "pairs", "trace")}
    assert sum("Plotly.newPlot" in script for script in page.scripts) >= len(figures)
    assert sum(len(script) > 1_000_000 for script in page.scripts) == 1


def test_every_figure_can_be_saved_as_png_and_svg(page: Page) -> None:
    figures = [i.removeprefix("figure-") for i in page.all("id") if i.startswith("figure-")]
    assert len(figures) == 4
    buttons = list(zip(page.all("data-figure"), page.all("data-format"), strict=True))
    assert buttons == [(figure, form) for figure in figures for form in ("png", "svg")]
    assert any("Plotly.downloadImage(" in script for script in page.scripts)


def test_the_folder_has_the_report_its_tables_and_what_makes_the_soup(
    filled: Filled, page: Page
) -> None:
    known, chosen = read_only(filled.context), filled.soups[-1]
    found = report.folder(known, chosen.id)
    assert found["report.html"] == filled.text()
    tables = {name.removeprefix("stockpot-") for name in page.all("download")}
    assert {name for name in found if name.startswith("tables/")} == {f"tables/{t}" for t in tables}
    assert {name.rpartition(".")[2] for name in tables} == {"csv", "tex"}
    numbers = pd.read_csv(io.StringIO(found["tables/results.csv"]))
    assert numbers.equals(page.frame("stockpot-results.csv"))
    assert json.loads(found["recipe.json"]) == json.loads(json.dumps(chosen.to_json()))
    assert found["README.md"].startswith("---\n")
    compile(found["reproduce.py"], "reproduce.py", "exec")
    assert found["reproduce.py"].count("Sweep.from_folder(") == 2
    archive = report.archive(known, chosen.id)
    with zipfile.ZipFile(io.BytesIO(archive)) as packed:
        read = {name: packed.read(name).decode() for name in packed.namelist()}
    assert read == {f"stockpot-report/{name}": text for name, text in found.items()}
    assert report.archive(known, chosen.id) == archive


def test_the_folder_of_a_sweep_without_a_task_has_no_soup(context: Context) -> None:
    found = report.folder(replace(context, source=context.store))
    assert {"report.html", "reproduce.py"} <= found.keys()
    assert not found.keys() & {"recipe.json", "README.md"}
    compile(found["reproduce.py"], "reproduce.py", "exec")


def test_figures_are_light_and_titled_with_split_and_n(page: Page) -> None:
    scripts = [script for script in page.scripts if "newPlot" in script]
    expected = {"scores": "n = 90", "basins": "n = 100", "pairs": "n = 100", "trace": "n = 100"}
    for script, (name, n) in zip(scripts, expected.items(), strict=True):
        assert f"figure-{name}" in script
        assert n in script
        assert '"plot_bgcolor":"white"' in script


def test_the_numbers_are_those_of_the_store(filled: Filled) -> None:
    context, soups = filled.context, filled.soups
    sweep, evaluator, task = context.sweep, context.evaluator, context.task
    page = Page(report.report(read_only(context), soups[0].id))
    table = page.frame("stockpot-results.csv").set_index("name")
    points = {name: each.mixture for name, each in sweep.ingredients.items()}
    labels = context.soups.labels(context.folder, context.task_spec)
    points |= {labels[f"{soup.recipe} {soup.id[:4]}"]: soup.mixture for soup in soups}
    rows = {cells[0].partition("|")[0]: cells for cells in page.cells if len(cells) == 6}
    for name, point in points.items():
        for at, split in enumerate(task.reported):
            found = evaluator.evaluate(point, split)
            row, column = table.loc[name], f"accuracy on {split}, %"
            assert row[column] == pytest.approx(100 * found.score)
            interval = (row[f"{column}: low"], row[f"{column}: high"])
            assert interval == pytest.approx([100 * end for end in found.score_interval])
            low, high = (f"{100 * end:.2f}" for end in found.score_interval)
            assert rows[name][3 + at] == f"{100 * found.score:.2f}|{low} to {high}"
    known = Overview.of(context)
    assert known.best is not None
    (test,) = [cells for cells in page.cells if cells[0] == "test|n = 90" and "to" in cells[4]]
    alone = evaluator.evaluate(sweep[known.best].mixture, "test")
    soup = evaluator.evaluate(soups[0].mixture, "test")
    expected = paired(soup.scores, alone.scores)
    assert test[3] == f"{100 * expected.difference:+.2f}"
    assert test[5:7] == [str(expected.gained), str(expected.lost)]
    assert expected.interval is not None
    assert test[4] == " to ".join(f"{100 * end:+.2f}" for end in expected.interval)
    for sentence in known.verdict.sentences:
        assert " ".join(sentence.split()) in page.text


def test_the_protocol_and_the_bias_are_in_the_report(filled: Filled, page: Page) -> None:
    context = filled.context
    by_split = {cells[0]: cells[1:] for cells in page.cells if len(cells) == 5}
    for name, split in context.task.splits.items():
        (row,) = [r for title, r in by_split.items() if name in title and r[-1] != ""]
        assert row[:2] == [split.role, str(len(split))]
        assert row[-1] == split.digest[:16]
    assert "greedy accepts ties (≥)" in page.text
    assert "Cross-fitted greedy (20 half-splits of validation)" in page.text
    assert "Picking the best of 3 ingredients inflates its validation score by" in page.text
    assert all(each.digest[:16] in page.text for each in context.sweep.ingredients.values())
    assert "soupcore.Sweep.from_folder(" in page.text


def test_equal_results_give_an_equal_page(filled: Filled) -> None:
    context = filled.context
    assert report.report(context) == report.report(read_only(context))


def test_the_evidence_may_be_about_another_soup(filled: Filled) -> None:
    context = filled.context
    for soup in filled.soups:
        label = context.soups[soup.id].label
        assert f"{label} vs. best single ingredient" in Page(report.report(context, soup.id)).text
    with pytest.raises(RecipeError, match="no stored soup 'gone'"):
        report.report(context, "gone")


def test_markup_in_names_is_escaped(
    sweep: Sweep, splits: dict[str, Split], store: Store, small_plotly: None
) -> None:
    names = [f"{name} {MARKUP}" for name in NAMES]
    made = {
        hostile: Ingredient(hostile, sweep[name].checkpoint, {f"lr {MARKUP}": MARKUP})
        for hostile, name in zip(names, NAMES, strict=True)
    }
    hostile_sweep = Sweep(sweep.folder, made, None, sweep.fit, columns=[f"lr {MARKUP}"])
    task = ClassificationTask(
        build_model, {f"{n} {MARKUP}": s for n, s in splits.items()}, name=f"task {MARKUP}"
    )
    task.score_name, task.loss_name = f"score {MARKUP}", f"loss {MARKUP}"
    context = Context(
        hostile_sweep, Evaluator(task, store, device="cpu"), f"folder {MARKUP}", f"t {MARKUP}"
    )
    _, chosen = fill(context)
    page = Page(report.report(read_only(context), chosen.id))
    assert page.tags["img"] == 0
    assert {tag for tag, name, _ in page.attributes if name.startswith("on")} == set()
    figures = sum(value.startswith("figure-") for value in page.all("id"))
    assert figures == 4
    assert not any(script.startswith("alert") for script in page.scripts)
    for name in (*names, *task.splits, task.name, task.score_name):
        assert name in page.text
    assert len({*page.all("download")}) == len(page.all("download"))


LOWER = Metric(
    "MAE", higher_is_better=False, unit="K",
    compute=lambda predictions, targets: float((predictions - targets).abs().double().mean()),
)  # fmt: skip


@pytest.mark.parametrize(
    ("without", "metrics", "told"),
    [
        ((), [LOWER], "MAE (lower is better)"),
        (("shift",), [], "accuracy on validation and on test"),
        (("report",), [], "There is no test split."),
        (("report", "shift"), [LOWER], "MAE of the ingredients"),
    ],
    ids=["lower is better", "no shift", "no report", "lower, select only"],
)
def test_tasks_may_lack_splits_and_have_other_metrics(
    sweep: Sweep, splits: dict[str, Split], store: Store, small_plotly: None,
    without: Sequence[str], metrics: list[Metric], told: str,
) -> None:  # fmt: skip
    kept = {name: split for name, split in splits.items() if split.role not in without}
    task = ClassificationTask(build_model, kept, metrics=metrics)
    context = Context(sweep, Evaluator(task, store, device="cpu"), str(sweep.folder), TASK)
    fill(context)
    page = Page(report.report(read_only(context)))
    drawn = "".join(page.scripts).replace("\\u003c", "<").replace("\\u002f", "/")
    assert told.lower() in (page.text + drawn).lower()
    if metrics:
        column = "MAE on val, K"
        scores = page.frame("stockpot-results.csv").set_index("name")[column]
        for name in NAMES:
            score = context.evaluator.evaluate(sweep[name].mixture, "val").score
            assert scores[name] == pytest.approx(-score)
        assert "pp" not in page.text.split()


def test_a_report_before_anything_is_known_says_so(context: Context) -> None:
    page = Page(report.report(read_only(context)))
    assert "Nothing has been evaluated yet." in page.text
    assert "Evidence" not in contents(context)
    assert page.tags["figure"] == 0
    assert page.scripts == []


def test_a_sweep_without_a_task_has_no_verdict(sweep: Sweep, store: Store) -> None:
    logged = {"mAP": 0.25, "bad": math.nan}
    runs = {
        name: replace(each, hyperparameters={"lr": 0.5}, logged_metrics=logged)
        for name, each in sweep.ingredients.items()
    }
    named = Sweep(sweep.folder, runs, sweep.base, sweep.fit, columns=["lr"], logged_columns=["mAP"])
    context = Context(named, store, str(sweep.folder))
    soup = uniform(sweep)
    context.keep_soup(soup, {})
    assert contents(context)[:2] == ["Ingredients", "Soups"]
    page = Page(report.report(context))
    assert "Verdict" not in page.text
    (row,) = [cells for cells in page.cells if cells[0].startswith("run1|")]
    assert row[1:] == ["0.5", "0.25"]
    assert row[0].endswith(sweep["run1"].digest[:16])
    assert "mAP (logged)" in page.text
    assert "Uniform · 3 of 3" in page.text
    assert page.scripts == []


def test_notes_of_soups_and_ingredients_are_in_the_report(context: Context) -> None:
    soups = fill(context)
    assert "Notes" not in contents(context)
    annotate(context.store, soups[0].id, name="ours", note="<b>good</b>\nso far", tags=["x", "y"])
    annotate(context.store, context.sweep["run2"].digest, starred=True)
    assert "Notes" in contents(context)
    page = Page(report.report(context))
    assert ["ours", "x, y", "<b>good</b> so far"] in page.cells
    assert ["★ run2", "", ""] in page.cells
