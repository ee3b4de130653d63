import re
from urllib.parse import urlencode

import pytest
import requests
from playwright.sync_api import Page, expect

from tests.browser.conftest import Server


@pytest.mark.parametrize(
    "query",
    [
        {"sweep": "/etc"},
        {"sweep": "/nowhere"},
        {"task": "/etc/passwd:task"},
        {"sweep": "sample_data/../../.."},
    ],
    ids=lambda query: str(query),
)
def test_a_link_cannot_lead_outside_what_the_server_offers(
    page: Page, server: Server, query: dict[str, str]
) -> None:
    page.goto(f"{server.url}/?{urlencode(query)}")
    expect(
        page.get_by_text(re.compile("that this server (cannot open|does not offer)"))
    ).to_be_visible()
    expect(page.get_by_text("Sample: cluttered digits").first).to_be_visible()


def test_names_of_a_link_that_are_not_there_are_left_out(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/ingredients?selection=run-02&selection=nobody&pair=run-01&pair=nobody")
    expect(page.get_by_text("1 of 15 ingredients selected")).to_be_visible()
    expect(page).to_have_url(re.compile(r"\?selection=run-02$"))


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [
        ("/download/nothing/safetensors/soup.safetensors", "127.0.0.1", 404),
        ("/download/..%2F../safetensors/stockpot.sqlite", "127.0.0.1", 400),
        ("/download/nothing/safetensors/..%2F..%2Fstockpot.sqlite", "127.0.0.1", 400),
        ("/download/nothing/safetensors/soup.safetensors", "evil.example", 400),
        ("/", "evil.example", 400),
    ],
)
def test_the_download_route_gives_out_soups_only_and_to_known_hosts_only(
    server: Server, path: str, host: str, status: int
) -> None:
    answer = requests.get(server.url + path, headers={"Host": host}, timeout=60)
    assert answer.status_code == status
