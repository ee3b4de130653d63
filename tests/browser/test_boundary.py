"""What others can reach, and what a team's users have to be able to."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.browser.conftest import Server, free_port, start_server, stop_server
from tests.browser.proxy import Proxy
from tests.pages import hostile

TOKEN = "a-token-that-nobody-guesses"  # noqa: S105 - the tests' own
PREFIX = "/user/anna/stockpot"  # of the URL, from a proxy
PAGES = [
    "Overview",
    "Ingredients",
    "Soups",
    "Report",
    "Connectivity",
    "Compare",
    "Paths",
    "Plane",
    "Geometry",
    "Ensembles",
]


@pytest.fixture
def strays(page: Page) -> list[str]:
    """What the browser asks of others or refuses to do."""
    found: list[str] = []
    page.on(
        "console",
        lambda message: found.append(message.text) if "Content Security" in message.text else None,
    )
    page.on(
        "request",
        lambda request: (
            found.append(request.url)
            if urlsplit(request.url).hostname not in ("127.0.0.1", None)
            else None
        ),
    )
    return found


@pytest.mark.integration
def test_every_page_does_all_it_can_under_the_policy(
    page: Page, server: Server, strays: list[str]
) -> None:
    folder = server.copy_of_sample("policy")
    steps.follow(page, server.link("ingredients", folder))
    steps.evaluate_everything(page)
    steps.go_to(page, "Soups")
    steps.build(page, "Uniform")
    for section in ("Evidence", "Download"):
        page.goto(server.link("soup", folder, section=section.lower()))
        steps.expect_section(page, section)
    page.goto(server.link("", folder, pair=["run-01", "run-02"]))
    expect(steps.heading(page, "Overview")).to_be_visible()
    for name in [*PAGES, "Ingredients"]:
        steps.go_to(page, name)
    steps.wait_until_idle(page)
    page.locator(".st-key-overview .js-plotly-plot").hover()
    with page.expect_download() as image:
        page.locator(".st-key-overview .modebar-btn").first.click()
    assert image.value.suggested_filename == "stockpot-overview.png"
    assert strays == []


def test_no_site_frames_the_app(page: Page, server: Server) -> None:
    body = f'<iframe src="{server.url}/"></iframe>'
    page.route(
        "http://evil.example/*", lambda route: route.fulfill(content_type="text/html", body=body)
    )
    page.goto("http://evil.example/")
    expect(page.frame_locator("iframe").get_by_text("Overview")).to_have_count(0)
    assert "Overview" not in "".join(frame.content() for frame in page.frames)


@pytest.mark.integration
def test_names_are_shown_letter_by_letter_and_call_nobody(
    page: Page, server: Server, strays: list[str]
) -> None:
    (sweep,) = server.workspace.with_name("names").glob("sweep *")
    (task,) = server.workspace.with_name("names").glob("tasks */task.py")
    steps.open_app(page, server.link("", sweep, task=f"{task}:task"))
    steps.evaluate_everything(page)
    body = page.get_by_test_id("stMain")
    name = f"sweep {hostile.MARKUP}"
    shown = (body.text_content() or "").replace("\u2060", "")
    assert name in shown
    expect(page.locator(".st-key-overview .ytick")).to_have_count(hostile.RUNS)
    ticks = page.locator(".st-key-overview .ytick text").all_text_contents()
    assert f"run 0 {hostile.MARKUP}" in [tick.replace("\xa0", " ") for tick in ticks]
    inside = page.get_by_test_id("stMarkdownContainer")
    assert inside.locator("img, b, code").count() == 0
    elsewhere = "[...document.links].filter(a => a.host != location.host).map(a => a.href)"
    assert page.evaluate(elsewhere) == []
    assert strays == []


@dataclass(frozen=True)
class Guarded:
    """A server with a token.

    Attributes:
        server: The server.
        proxy_port: Port of a proxy whose origin it knows.
    """

    server: Server
    proxy_port: int


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STOCKPOT_TOKEN", TOKEN)
        folder = tmp_path_factory.mktemp("guarded")
        server = start_server(folder, f"--origin=http://127.0.0.1:{port}")
    yield Guarded(server, port)
    stop_server(server)


@pytest.mark.integration
def test_with_a_token_nothing_is_seen_without_it(page: Page, guarded: Guarded) -> None:
    server = guarded.server
    assert f"{server.url}/?token={TOKEN}" in server.log.read_text()
    for path in ("/", "/_stcore/health", "/static/js/x.js", "/download/a/b/c", "/media/x"):
        assert requests.get(server.url + path, timeout=60).status_code == 401
    page.goto(f"{server.url}/soups?soup=x")
    expect(page.get_by_text("This server requires a token")).to_be_visible()
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Open").click()
    expect(steps.heading(page, "Soups")).to_be_visible()
    assert "token" not in page.url
    assert page.evaluate("document.cookie").find("stockpot") == -1
    processes = [*Path("/proc").glob("[0-9]*/cmdline")]
    assert not any(TOKEN.encode() in read(process) for process in processes)
    workers = [p.parent for p in processes if str(server.workspace).encode() in read(p)]
    assert workers
    assert not any(TOKEN.encode() in read(worker / "environ") for worker in workers)


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has just ended
        return b""


@pytest.mark.integration
def test_bound_beyond_this_machine_it_asks_for_a_token(tmp_path: Path) -> None:
    server = start_server(tmp_path, "--address=0.0.0.0")
    try:
        (link,) = re.findall(rf"{server.url}/\?token=\S+", server.log.read_text())
        assert requests.get(server.url, timeout=60).status_code == 401
        with requests.Session() as session:
            answer = session.get(link, timeout=60)
            assert (answer.status_code, answer.url) == (200, f"{server.url}/")
            assert "<title>" in answer.text
            assert session.get(server.url, timeout=60).status_code == 200
    finally:
        stop_server(server)


@pytest.mark.integration
def test_behind_a_proxy_that_keeps_nothing_pages_sockets_and_downloads_work(
    page: Page, guarded: Guarded, tmp_path: Path
) -> None:
    upstream = urlsplit(guarded.server.url).netloc
    proxy = Proxy(guarded.proxy_port, upstream, PREFIX, keeps_path=False, keeps_host=False)
    assert_works_behind(proxy, page, tmp_path)


@pytest.mark.integration
def test_behind_a_proxy_that_keeps_path_and_host_pages_sockets_and_downloads_work(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPOT_TOKEN", TOKEN)
    monkeypatch.setenv("STREAMLIT_SERVER_BASE_URL_PATH", PREFIX.lstrip("/"))
    server = start_server(tmp_path)
    upstream = urlsplit(server.url).netloc
    try:
        proxy = Proxy(free_port(), upstream, PREFIX, keeps_path=True, keeps_host=True)
        assert_works_behind(proxy, page, tmp_path)
    finally:
        stop_server(server)


def assert_works_behind(proxy: Proxy, page: Page, tmp_path: Path) -> None:
    with proxy.running() as url:
        page.goto(f"{url}/?token={TOKEN}")
        expect(steps.heading(page, "Overview")).to_be_visible()
        assert page.url == f"{url}/"
        (cookie,) = [c for c in page.context.cookies() if c["name"].startswith("stockpot")]
        assert cookie["path"] == PREFIX
        steps.go_to(page, "Soups")
        steps.build(page, "Uniform")
        steps.open_built(page, "Download")
        assert page.url.startswith(f"{url}/soup?")
        taken = steps.download(page, "Uniform")
        assert taken.url.startswith(f"{url}/download/")
        steps.save(taken, tmp_path)
        with page.expect_download() as recipe:
            page.get_by_role("button", name="Recipe (JSON)").click()
        assert recipe.value.url.startswith(f"{url}/media/")
        assert "coefficients" in steps.save(recipe.value, tmp_path).read_text()
