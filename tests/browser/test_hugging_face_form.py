"""From a folder of fine-tuned transformers to a downloaded soup, by the form on the page."""

import csv
import re
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from playwright.sync_api import Page, expect
from safetensors.torch import load_file

from soupcore import Evaluator, Store, Sweep, greedy, load_task
from tests.browser import steps
from tests.browser.conftest import start_server, stop_server
from tests.helpers import same_weights
from tests.tasks.test_hugging_face import network, texts, tokenizer

FORM = "Describe a Hugging Face network"


def make_runs(root: Path) -> None:
    """Write a base, two runs and two tables of texts."""
    for seed, name in enumerate(["base", "run-1", "run-2"]):
        torch.manual_seed(seed)
        network("SequenceClassification").save_pretrained(root / "runs" / name)
        tokenizer().save_pretrained(root / "runs" / name)
    for seed, name in enumerate(["val", "test"]):
        with (root / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["label", "message"])
            writer.writerows(
                (["ham", "spam"]["free" in text or "win" in text], text) for text in texts(60, seed)
            )


@pytest.mark.integration
def test_the_form_leads_from_a_folder_of_runs_to_a_soup(
    page: Page, tmp_path: Path, store: Store
) -> None:
    root = tmp_path / "sms"
    make_runs(root)
    server = start_server(tmp_path, str(root / "runs"), f"--root={root}")
    try:
        steps.open_app(page, server.url)
        page.get_by_test_id("stSidebar").get_by_role("button", name="Choose a task").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_text(FORM, exact=True).click()
        expect(dialog.get_by_label("Model folder")).to_have_value(str(root / "runs" / "base"))
        expect(dialog.get_by_label("Validation data")).to_have_value(str(root / "val.csv"))
        dialog.get_by_role("button", name="Create the task").click()
        expect(page.get_by_text("task Text classification")).to_be_visible()
        expect(page).to_have_url(re.compile("task=hf"))
        steps.go_to(page, "Soups")
        steps.build(page, "Greedy")
        steps.open_built(page, "Download")
        page.get_by_role("button", name="Create folder").click()
        with page.expect_download() as taken:
            page.get_by_role("link", name=re.compile("^Download ")).click()
        with ZipFile(steps.save(taken.value, tmp_path)) as archive:
            archive.extractall(tmp_path / "soup")
        (file,) = (tmp_path / "soup").rglob("*.safetensors")
        (toml,) = (server.workspace / "tasks").glob("*.toml")
    finally:
        stop_server(server)
    evaluator = Evaluator(load_task(f"hf:{toml}"), store, device="cpu")
    expected = greedy(Sweep.from_folder(root / "runs"), evaluator).state_dict()
    assert same_weights(load_file(file), expected)
