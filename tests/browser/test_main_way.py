import hashlib
import json
import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, expect
from safetensors import safe_open
from safetensors.torch import load_file

from soupcore import Evaluator, Sweep, load_task, uniform
from tests.browser import steps
from tests.browser.conftest import SAMPLE, TASK, Server, start_server, stop_server


@pytest.fixture(scope="module")
def fresh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as a first user starts it."""
    server = start_server(tmp_path_factory.mktemp("fresh-server"))
    yield server
    stop_server(server)


@pytest.fixture(scope="module")
def folder(server: Server) -> Path:
    return server.copy_of_sample("main way")


@pytest.mark.integration
def test_a_deep_link_on_a_cold_server_opens_the_page_in_its_frame(
    page: Page, fresh_server: Server
) -> None:
    query = "selection=run-02&selection=run-05&pair=base&pair=run-02"
    page.goto(f"{fresh_server.url}/connectivity?{query}")
    expect(steps.heading(page, "Connectivity")).to_be_visible()
    expect(page.get_by_test_id("stSidebarNav")).to_be_visible()
    expect(page.get_by_text("base → run-02").first).to_be_visible()
    steps.go_to(page, "Ingredients")
    expect(page.get_by_text("2 of 15 ingredients selected")).to_be_visible()


def test_a_researcher_goes_from_the_sweep_to_the_greedy_soups_weights(
    page: Page, server: Server, folder: Path, tmp_path: Path
) -> None:
    steps.follow(page, server.link("ingredients", folder))
    page.get_by_role("button", name="Evaluate all ingredients").click()
    expect(page.get_by_role("button", name="Evaluate all ingredients")).to_have_count(
        0, timeout=90_000
    )

    steps.click_row(page, 0)  # the best ingredient
    steps.expect_selected(page, "run-02")
    steps.click_point(page, "overview", 14)  # drawn from the bottom up, the best at the top
    steps.expect_selected(page)
    steps.click_row(page, 0)
    steps.expect_selected(page, "run-02")
    steps.click_point(page, "overview", 13)  # the second best
    steps.expect_selected(page, "run-02", "run-05")

    steps.go_to(page, "Connectivity")
    page.get_by_role("button", name=re.compile("Run about")).click()
    expect(page.get_by_text("1 of 1 pairs evaluated on select. Click")).to_be_visible()
    steps.wait_until_idle(page)
    cell = page.locator(".st-key-heatmap .scatterlayer .point").first
    cell.click(force=True)
    expect(page).to_have_url(re.compile("pair=run-02&pair=run-05"))
    expect(page.get_by_text(re.compile(r"run-02 → run-05 · barrier"))).to_be_visible()

    steps.go_to(page, "Ingredients")
    page.get_by_role("button", name="Clear", exact=True).click()
    steps.expect_selected(page)
    steps.go_to(page, "Soups")
    steps.build(page, "Uniform")
    steps.build(page, "Greedy")
    steps.go_to(page, "Compare")
    expect(page.get_by_text("The shaded column was used for choosing")).to_be_visible()

    steps.go_to(page, "Soups")
    steps.open_built(page, "Download")
    file = steps.save(steps.download(page, "Greedy"), tmp_path)
    expect(page.get_by_text(hashlib.sha256(file.read_bytes()).hexdigest())).to_be_visible()
    shown = page.get_by_test_id("stMetric").filter(has_text="accuracy on validation (select)")
    assert_is_the_mean_of_what_it_says(file, folder)
    assert_reaches(file, float(shown.inner_text().split()[-2]))


def test_three_clicks_lead_from_a_first_visit_to_the_best_soups_weights(
    page: Page, fresh_server: Server, tmp_path: Path
) -> None:
    page.goto(fresh_server.url)
    page.get_by_role("button", name=re.compile("Analyze this sweep, about")).click()
    expect(page.get_by_text("Screen all 105 pairs for barriers").first).to_be_visible()
    verdict = page.locator(".st-key-verdict")
    download = verdict.get_by_role("button", name=re.compile("Download .* soup"))
    ended = page.get_by_test_id("stSidebar").get_by_text("Analyze Sample: cluttered digits · done")
    expect(ended).to_be_visible(timeout=300_000)
    expect(download).to_have_count(1)  # the page is drawn twice while it changes
    expect(verdict.get_by_text(re.compile("13 of 15 runs share a basin"))).to_be_visible()
    first = re.compile(r"beats the best run, run-02, by .* on test .report. .95 % interval \+")
    expect(verdict.get_by_text(first)).to_be_visible()
    steps.wait_until_idle(page)
    download.click()
    steps.expect_section(page, "Download")
    with page.expect_download() as taken:
        page.get_by_role("link", name=re.compile("Download .*safetensors")).click()
    assert_is_the_sum_of_what_it_says(steps.save(taken.value, tmp_path))
    steps.go_to(page, "Report")
    with page.expect_download() as taken:
        page.get_by_role("button", name="Download report").click()
    assert_opens_without_a_network(page, steps.save(taken.value, tmp_path))


def assert_opens_without_a_network(page: Page, report: Path) -> None:
    asked: list[str] = []
    troubles: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(report.as_uri())
    expect(page.get_by_role("heading", name="Evidence", exact=True)).to_be_visible()
    expect(page.locator("figure .main-svg").first).to_be_visible()
    assert page.locator("figure").count() == page.locator("figure .plot-container").count() >= 4
    for form in ("PNG", "SVG"):
        with page.expect_download() as taken:
            page.get_by_role("button", name=form, exact=True).first.click()
        saved = Path(taken.value.path()).read_bytes()
        assert taken.value.suggested_filename == f"stockpot-scores.{form.lower()}"
        assert saved.startswith(b"\x89PNG" if form == "PNG" else b"<svg")
        assert len(saved) > 5_000
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert troubles == []


@pytest.mark.integration
def test_two_soups_of_the_same_size_are_not_served_for_each_other(
    page: Page, server: Server, folder: Path, tmp_path: Path
) -> None:
    taken = []
    for pair in two_pairs_with_files_of_one_size(folder, tmp_path):
        steps.follow(page, server.link("soups", folder, selection=pair))
        expect(steps.heading(page, "Soups")).to_be_visible()
        steps.build(page, "Uniform")
        steps.open_built(page, "Download")
        prepare = page.get_by_role("button", name="Create file")
        link = page.get_by_role("link", name=re.compile("Download uniform"))
        prepare.click()
        with page.expect_download() as download:
            link.click()
        taken.append(steps.save(download.value, tmp_path))
        assert_is_the_mean_of_what_it_says(taken[-1], folder)
    one, two = taken
    assert one.stat().st_size == two.stat().st_size
    assert not torch.equal(load_file(one)["head.weight"], load_file(two)["head.weight"])


def two_pairs_with_files_of_one_size(folder: Path, scratch: Path) -> list[tuple[str, str]]:
    """Find two soups whose files are equally long, recipe and scores in them included."""
    sweep = Sweep.from_folder(folder)
    evaluator = Evaluator(load_task(TASK), device="cpu")
    pair_of_size: dict[int, tuple[str, str]] = {}
    for pair in combinations(sweep.names()[:6], 2):
        file = scratch / "trial.safetensors"
        uniform(sweep, pair).evaluate(evaluator).save(file)
        size = file.stat().st_size
        if size in pair_of_size:
            return [pair_of_size[size], pair]
        pair_of_size[size] = pair
    raise AssertionError("no two soups of the sample have files of one size")


def assert_is_the_mean_of_what_it_says(file: Path, folder: Path) -> None:
    with safe_open(file, framework="pt") as opened:
        names = json.loads(opened.metadata()["stockpot"])["coefficients"]
    members = [load_file(folder / f"{name}.safetensors") for name in names]
    for name, tensor in load_file(file).items():
        mean = torch.stack([member[name].double() for member in members]).mean(dim=0)
        torch.testing.assert_close(tensor, mean.float(), rtol=1e-6, atol=1e-9)


def assert_is_the_sum_of_what_it_says(file: Path) -> None:
    with safe_open(file, framework="pt") as opened:
        terms = json.loads(opened.metadata()["stockpot"])["coefficients"]
    members = {name: load_file(SAMPLE / "sweep" / f"{name}.safetensors") for name in terms}
    for key, tensor in load_file(file).items():
        total = sum(float(Fraction(c)) * members[name][key].double() for name, c in terms.items())
        torch.testing.assert_close(tensor.double(), total, rtol=1e-5, atol=1e-7)


@torch.inference_mode()
def assert_reaches(file: Path, percent: float) -> None:
    task = load_task(TASK)
    model = task.build_model().eval()
    model.load_state_dict(load_file(file))
    split = task.split("select")
    accuracy = (model(split.inputs).argmax(dim=1) == split.targets).double().mean()
    assert f"{accuracy:.2%}" == f"{percent:.2f}%"
