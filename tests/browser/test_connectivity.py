import csv
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect
from plotly.offline import get_plotlyjs

from soupcore import Evaluator, Store, Sweep, figures, linear_path, load_task
from tests.browser import steps
from tests.browser.conftest import TASK, Server

FEW = ("run-01", "run-02", "run-03", "run-14", "stranger")


@pytest.fixture(scope="module")
def folder(server: Server) -> Path:
    return server.copy_of_sample("connectivity")


@pytest.fixture
def few(page: Page, server: Server, folder: Path) -> Page:
    """The page of pairs, looking at five ingredients."""
    steps.follow(page, server.link("connectivity", folder, selection=FEW))
    expect(steps.heading(page, "Connectivity")).to_be_visible()
    return page


def cells(page: Page) -> Locator:
    return page.locator(".st-key-heatmap .scatterlayer .trace").last.locator(".point")


def know_all_pairs(page: Page) -> None:
    ask = page.get_by_role("button", name=re.compile("Run about"))
    known = page.get_by_text("10 of 10 pairs evaluated on select. Click")
    expect(ask.or_(known)).to_be_visible()
    steps.wait_until_idle(page)  # while a page is being drawn, what stands on it moves
    if ask.is_visible():  # unless a test before this one did
        ask.click()
    expect(known).to_be_visible()


def choose(page: Page, label: str, option: str) -> None:
    steps.wait_until_idle(page)
    page.get_by_role("combobox", name=label).click()
    page.get_by_role("option", name=option, exact=True).click()
    steps.wait_until_idle(page)


def test_a_screen_fills_the_matrix_and_a_click_on_a_cell_refines_it_to_a_curve(
    few: Page, folder: Path, store: Store
) -> None:
    few.get_by_role("button", name="Quick screen (200 examples)").click()
    expect(few.get_by_text("Screen 10 pairs on select · done")).to_be_visible()
    expect(few.get_by_text("0 of 10 pairs evaluated on select; 10 preliminary")).to_be_visible()
    choose(few, "α values per pair", "11 (Model Soups)")
    expect(few.get_by_text("0 of 10 pairs evaluated")).to_have_count(0)  # of another grid
    choose(few, "α values per pair", "adaptive (tolerance 0.01)")
    cells(few).first.click(force=True)
    expect(few).to_have_url(re.compile(r"pair=[\w-]+&pair=[\w-]+$"))
    pair = re.findall(r"pair=([\w-]+)", few.url)
    expect(few.get_by_text(f"Evaluate {pair[1]} → {pair[0]} on select · done").or_(
        few.get_by_text(f"Evaluate {pair[0]} → {pair[1]} on select · done")
    )).to_be_visible()  # fmt: skip
    expect(few.get_by_text("1 of 10 pairs evaluated on select; 9 preliminary")).to_be_visible()
    sweep = Sweep.from_folder(folder)
    evaluator = Evaluator(load_task(TASK), store, device="cpu")
    low, _ = linear_path(sweep[pair[0]], sweep[pair[1]], evaluator).barrier_bracket
    expect(few.get_by_text(f"{pair[0]} → {pair[1]} · barrier {low:.3f}")).to_be_visible()


def test_cells_of_many_ingredients_are_not_drawn_but_clicked(page: Page) -> None:
    """Of a matrix that only the lines from the best ingredient are known of."""
    names = [f"run-{number}" for number in range(41)]
    values = np.full((41, 41), np.nan)
    values[7, :], values[:, 7] = 0.5, 0.5
    figure = figures.pair_heatmap(names, values, figures.MEASURES["loss"])
    figure.update_layout(clickmode="event+select", width=900)
    page.set_content("<div id='matrix'></div>")
    page.add_script_tag(content=get_plotlyjs())
    page.evaluate(
        """async (figure) => {
          const {data, layout} = JSON.parse(figure);
          const config = {doubleClick: false};  // two clicks in a row would zoom
          const matrix = await Plotly.newPlot("matrix", data, layout, config);
          window.clicked = [];
          matrix.on("plotly_selected", event => event?.points.forEach(
            point => window.clicked.push(point.customdata.slice(0, 2))));
        }""",
        figure.to_json(),
    )
    expect(page.locator(".scatterlayer .point")).to_have_count(2)
    for row, column in ((7, 20), (30, 7), (3, 33)):  # evaluated, evaluated, empty
        x, y = page.evaluate(
            """([row, column]) => {
              const matrix = document.getElementById("matrix");
              const {xaxis, yaxis} = matrix._fullLayout, box = matrix.getBoundingClientRect();
              return [box.left + xaxis._offset + xaxis.d2p(column),
                      box.top + yaxis._offset + yaxis.d2p(row)];
            }""",
            [row, column],
        )
        page.mouse.move(x, y)
        expect(page.locator(".hovertext").first).to_contain_text(f"run-{row} → run-{column}")
        page.mouse.click(x, y)
        page.wait_for_function("clicked.length")
        assert page.evaluate("clicked.splice(0)") == [[f"run-{row}", f"run-{column}"]]


@pytest.mark.integration
def test_a_grid_without_a_middle_says_so(few: Page) -> None:
    choose(few, "α values per pair", "30 (Frankle et al.)")
    few.get_by_role("radio", name="midpoint").or_(
        few.get_by_role("button", name="midpoint")
    ).click()
    expect(few.get_by_text("A grid of 30 α values has no midpoint")).to_be_visible()


@pytest.mark.integration
def test_a_basin_is_named_and_selected(few: Page) -> None:
    know_all_pairs(few)
    shared = few.get_by_text("3 of 5 ingredients share a basin (B1): run-01, run-02, run-03")
    expect(shared).to_be_visible()
    alone = few.get_by_text("2 ingredients share no basin with another: run-14, stranger")
    expect(alone).to_be_visible()
    limit = few.get_by_role("spinbutton", name=re.compile("Basin threshold"))
    limit.fill("9")
    limit.press("Enter")
    expect(few.get_by_text("All 5 ingredients share a basin")).to_be_visible()
    limit.fill("0.1")
    limit.press("Enter")
    few.get_by_role("button", name="Select these 3").click()
    steps.expect_selected(few, *FEW[:3])
    expect(few.get_by_text("3 of 3 pairs evaluated on select")).to_be_visible()
    few.get_by_role("button", name="Clear selection (show all 15)").click()
    steps.expect_selected(few)


@pytest.mark.integration
def test_a_zoom_outlives_a_click_on_a_cell(few: Page) -> None:
    figure = few.locator(".st-key-heatmap .js-plotly-plot")
    know_all_pairs(few)
    steps.wait_until_idle(few)
    figure.hover()
    few.locator(".st-key-heatmap [data-title='Zoom in']").click()
    zoomed = few.locator(".st-key-heatmap .xaxislayer-above .x2tick")
    expect(zoomed).not_to_have_count(5)
    shown = zoomed.count()
    cells(few).nth(9).click(force=True)  # in the middle, where it is still to be seen
    expect(few).to_have_url(re.compile("pair="))
    steps.wait_until_idle(few)
    expect(zoomed).to_have_count(shown)


@pytest.mark.integration
def test_a_plane_is_refined_and_no_point_is_evaluated_twice(
    page: Page, server: Server, folder: Path
) -> None:
    steps.follow(page, server.link("plane", folder))
    expect(page.get_by_text("This plane has not been evaluated yet")).to_be_visible()
    choose(page, "Grid", "7×7")
    page.get_by_role("button", name="Run 49 evaluations").click()
    expect(page.get_by_text("7×7 grid on select. Models off the plane")).to_be_visible()
    expect(page.locator(".st-key-plane .contourlayer").first).to_be_attached()
    choose(page, "Grid", "13×13")
    page.get_by_role("button", name="Run 120 evaluations").click()
    expect(page.get_by_text("13×13 grid on select. Models off the plane")).to_be_visible()
    choose(page, "Model B", "base")
    expect(page.get_by_text("The three corners lie on one line")).to_be_visible()


@pytest.mark.integration
def test_a_plane_shows_what_it_has_when_it_is_cancelled_and_goes_on_from_there(
    page: Page, server: Server, folder: Path
) -> None:
    steps.follow(page, server.link("plane", folder, selection=["run-05", "run-06"]))
    # Two of the 625 are corners, which other tests may have had evaluated.
    page.get_by_role("button", name=re.compile("Run 62[345] evaluations")).click()
    expect(
        page.get_by_text(re.compile(r"×\d+ grid on select; \d+ evaluations left"))
    ).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("run-05, run-06 on select · cancelled")).to_be_visible()
    page.reload()  # the panel shows the end of the job before the page is drawn again
    missing = points_missing(page)
    assert 0 < missing < 625
    before = evaluations(server)
    page.get_by_role("button", name="Resume").first.click()
    whole = page.get_by_text("25×25 grid on select. Models off the plane")
    expect(whole).to_be_visible(timeout=300_000)
    expect(page.get_by_role("button", name="Run ")).to_have_count(0)
    assert evaluations(server) - before == missing


def evaluations(server: Server) -> int:
    with closing(sqlite3.connect(server.workspace / "stockpot.sqlite")) as database:
        (count,) = database.execute("SELECT count(*) FROM evaluations").fetchone()
    return int(count)


def points_missing(page: Page) -> int:
    steps.wait_until_idle(page)
    found = re.search(r"\d+", page.get_by_role("button", name="Run ").inner_text())
    assert found is not None
    return int(found.group())


@pytest.mark.integration
def test_geometry_and_its_export_as_html_csv_and_svg(
    page: Page, server: Server, folder: Path, tmp_path: Path
) -> None:
    steps.follow(page, server.link("geometry", folder))
    measure = page.get_by_role("button", name="Compute angles and distances")
    figure = page.locator(".st-key-layers .js-plotly-plot")
    expect(measure.or_(figure).first).to_be_visible()
    if measure.is_visible():  # unless a plane was evaluated before
        measure.click()
    expect(figure).to_be_visible()
    with page.expect_download() as taken:
        page.get_by_role("button", name="HTML").click()
    html = steps.save(taken.value, tmp_path).read_text()
    assert "<script src=" not in html  # it stands alone
    assert "features.0" in html
    with page.expect_download() as taken:
        page.get_by_role("button", name="CSV").click()
    with steps.save(taken.value, tmp_path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows][::6] == ["features.0", "head"]
    with page.expect_download() as taken:
        page.get_by_role("button", name="SVG").click()
    assert taken.value.suggested_filename == "stockpot-layers.svg"
    image = steps.save(taken.value, tmp_path).read_text()
    assert image.startswith("<svg")
    assert "Distance, % of layer norm" in image  # the title
    assert "rgb(255, 255, 255)" in image
    title = figure.evaluate("figure => figure.layout.title.text")
    assert "Distance" not in title  # as it was


@pytest.mark.integration
def test_midpoints_feed_the_comparison_with_ensembles_and_the_theory(
    page: Page, server: Server, folder: Path
) -> None:
    three = ["run-01", "run-02", "run-04"]
    steps.follow(page, server.link("soup_vs_ensemble", folder, selection=three))
    expect(steps.heading(page, "Ensembles")).to_be_visible()
    page.get_by_role("button", name=re.compile(r"Run \d evaluations?\b")).click()
    expect(
        page.get_by_text(re.compile(r"matches or beats the ensemble in \d of 3 pairs"))
    ).to_be_visible()
    page.get_by_role("button", name="Compare 3 pairs").click()
    expect(
        page.get_by_text("over 3 pairs. The theory is a second-order approximation")
    ).to_be_visible()
