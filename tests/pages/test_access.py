import logging
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from pages.components import access
from pages.components.access import Boundary, is_loopback

HOST = "127.0.0.1:8501"
URL = f"http://{HOST}"
SOCKET = f"ws://{HOST}/ws"
TOKEN = "correct-horse-battery-staple"  # noqa: S105 - the tests' own


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{request.method} {request.headers.get('origin')}")


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(socket.headers["origin"])
    await socket.close()


def client(url: str = URL, **options: Any) -> TestClient:
    methods = ["GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE"]
    routes = [WebSocketRoute("/ws", talk), Route("/{path:path}", answer, methods=methods)]
    app = Boundary(Starlette(routes=routes), **options)
    return TestClient(app, url, follow_redirects=False)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (HOST, 200),
        ("127.0.0.1", 200),
        ("localhost:1", 200),
        ("LOCALHOST:8501", 200),
        ("[::1]:8501", 200),
        ("stockpot.example", 200),
        ("evil.example", 400),
        ("localhost.evil.example", 400),
        ("evil.example:8501", 400),
        ("192.0.2.1:8501", 400),
        ("user@localhost", 400),
        ("localhost/evil.example", 400),
        ("localhost:port", 400),
        ("[::1", 400),
        ("", 400),
    ],
)
def test_a_request_names_a_host_of_the_server(host: str, status: int) -> None:
    hosts = ["127.0.0.1", "localhost", "::1", "stockpot.example"]
    assert client(hosts=hosts).get("/", headers={"Host": host}).status_code == status


SITES = [
    (URL, True),
    (f"https://{HOST}", True),  # a proxy ends TLS
    ("https://stockpot.example", True),  # named by --origin
    ("http://127.0.0.1:9999", False),
    ("http://localhost:8501", False),
    ("http://127.0.0.1", False),
    ("http://evil.example", False),
    ("https://stockpot.example.evil.example", False),
    ("http://stockpot.example", False),
    ("null", False),
    ("", False),
    ("file://", False),
]


@pytest.mark.parametrize(("origin", "passes"), SITES)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE"])
def test_requests_from_other_origins_are_refused(method: str, origin: str, passes: bool) -> None:
    found = client(origins=["https://stockpot.example"]).request(
        method, "/x", headers={"Origin": origin}
    )
    assert found.status_code == (200 if passes else 403)


@pytest.mark.parametrize(("origin", "passes"), SITES)
def test_websockets_from_other_origins_are_refused(origin: str, passes: bool) -> None:
    tested = client(origins=["https://stockpot.example"])
    if not passes:
        with (
            pytest.raises(WebSocketDisconnect),
            tested.websocket_connect(SOCKET, headers={"Origin": origin}),
        ):
            pass
        return
    with tested.websocket_connect(SOCKET, headers={"Origin": origin}) as socket:
        # Streamlit compares it with the host, and would look up its address if they differed.
        assert urlsplit(socket.receive_text()).netloc == HOST


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
def test_unsafe_requests_need_an_origin(method: str) -> None:
    assert client().request(method, "/").status_code == 403
    with pytest.raises(WebSocketDisconnect), client().websocket_connect(SOCKET):
        pass


@pytest.mark.parametrize(
    ("site", "mode", "destination", "status"),
    [
        ("same-origin", "cors", "script", 200),
        ("none", "navigate", "document", 200),
        ("cross-site", "navigate", "document", 200),
        ("cross-site", "navigate", "iframe", 403),
        ("same-site", "navigate", "iframe", 403),
        ("cross-site", "no-cors", "image", 403),
        ("same-site", "no-cors", "script", 403),
        ("cross-site", "no-cors", "empty", 403),
    ],
)
def test_other_sites_may_link_to_a_page_only(
    site: str, mode: str, destination: str, status: int
) -> None:
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": destination}
    assert client().get("/", headers=headers).status_code == status


@given(st.text(st.characters(max_codepoint=126, min_codepoint=32)), st.sampled_from(["", HOST]))
def test_only_the_origin_of_the_host_passes(text: str, end: str) -> None:
    found = client().get("/", headers={"Origin": text + end})
    assert (found.status_code == 200) == ((text + end).strip().lower() in (URL, f"https://{HOST}"))


@pytest.mark.parametrize("path", ["/", "/static/x.js", "/download/a/b/c", "/_stcore/health"])
@pytest.mark.parametrize(
    ("query", "cookie"), [("", ""), ("?token=wrong", ""), ("?token=", ""), ("", TOKEN)]
)
def test_requests_without_the_token_are_refused(path: str, query: str, cookie: str) -> None:
    headers = {"Cookie": f"stockpot-8501={cookie}"} if cookie else {}
    found = client(token=TOKEN).get(path + query, headers=headers)
    assert found.status_code == 401
    assert "GET" not in found.text
    assert "set-cookie" not in found.headers


def test_the_token_is_exchanged_for_a_cookie_and_leaves_the_url() -> None:
    tested = client(token=TOKEN)
    found = tested.get(f"/connectivity?sweep=%2Fa%26b&token={TOKEN}&pair=x&pair=y")
    assert found.status_code == 303
    assert found.headers["location"] == "./connectivity?sweep=%2Fa%26b&pair=x&pair=y"
    cookie = found.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict"} <= set(cookie.split("; "))
    assert TOKEN not in cookie
    assert "Secure" not in cookie
    assert tested.get("/static/x.js").status_code == 200
    assert tested.put("/", headers={"Origin": URL}).status_code == 200
    assert tested.put("/", headers={"Origin": "http://evil.example"}).status_code == 403
    with tested.websocket_connect(SOCKET, headers={"Origin": URL}) as socket:
        assert socket.receive_text() == URL


def test_a_websocket_takes_no_token_but_the_cookie() -> None:
    for url in (SOCKET, f"{SOCKET}?token={TOKEN}"):
        with (
            pytest.raises(WebSocketDisconnect),
            client(token=TOKEN).websocket_connect(url, headers={"Origin": URL}),
        ):
            pass


@pytest.mark.parametrize(("base", "path"), [("", None), ("/stockpot", "/stockpot")])
def test_the_cookie_is_kept_to_the_pages_and_to_tls(base: str, path: str | None) -> None:
    tested = client("https://127.0.0.1:8501", token=TOKEN, base=base)
    cookie = tested.get(f"{base}/?token={TOKEN}").headers["set-cookie"]
    assert "Secure" in cookie
    # Without a path, browsers keep it to the folder of the page: a proxy may cut that off.
    assert (f"Path={path}" in cookie) if path else ("Path" not in cookie)


def test_a_page_opened_from_another_site_requests_itself_again() -> None:
    headers = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    tested = client(token=TOKEN)
    assert 'http-equiv="refresh"' in tested.get("/", headers=headers).text
    again = tested.get("/", headers=headers | {"Sec-Fetch-Site": "same-origin"})
    assert 'http-equiv="refresh"' not in again.text


@pytest.mark.parametrize(
    ("bound", "token", "status"),
    [
        ("http://192.0.2.7:8501", None, 403),
        ("http://192.0.2.7:8501", TOKEN, 200),
        ("http://[2001:db8::7]:8501", None, 403),
        ("http://[2001:db8::7]:8501", TOKEN, 200),
        ("http://evil.example:8501", TOKEN, 400),
        (URL, None, 200),
    ],
)
def test_requests_beyond_loopback_need_a_token(bound: str, token: str | None, status: int) -> None:
    tested = client(bound, token=token)
    if token:
        tested.get(f"/?token={token}")
    assert tested.get("/").status_code == status


@pytest.mark.parametrize(
    ("url", "options"),
    [("/", {}), ("/?token=x", {"token": TOKEN}), ("/", {"hosts": ["elsewhere"]})],
)
def test_every_response_has_security_headers(url: str, options: dict[str, Any]) -> None:
    html = "<script>\n  window.ready = false\n</script><script src='x.js'></script>"
    headers = client(**options, html=html).get(url).headers
    policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["object-src"] == "'none'"
    assert policy["script-src"].count("sha256-") == 1
    assert "unsafe" not in policy["script-src"]
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_refusals_are_logged_in_a_line_and_without_the_token(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="stockpot"):
        client(token=TOKEN).get("/?token=guess", headers={"Origin": "http://evil.example"})
        client(token=TOKEN).get("/?token=guess")
    foreign, wrong = (record.getMessage() for record in caplog.records)
    assert foreign.startswith("testclient refused The request comes from 'http://evil.example'")
    assert wrong == "testclient refused a wrong token"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("192.0.2.1", False),
        ("node7", False),
        ("", False),
    ],
)
def test_loopback_addresses(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "server.log"
    handler = access.PrivateFile(path)
    access.logger.addHandler(handler)
    level = access.logger.level
    access.logger.setLevel(logging.INFO)
    yield path
    access.logger.setLevel(level)
    access.logger.removeHandler(handler)
    handler.close()


def test_each_event_is_a_line_whatever_the_names_hold(log: Path) -> None:
    access.log("opened", "/data/a\n2026-01-01 127.0.0.1 removed all\x1b[2J\u202e\udcff 模型", "::1")
    (line,) = log.read_text().splitlines()
    assert line.startswith("::1 opened /data/a\\n2026-01-01")
    assert line.endswith("\\x1b[2J\\u202e\\udcff 模型")
    access.note("ran", "Evaluate 3 checkpoints")
    assert log.read_text().splitlines()[1:] == ["127.0.0.1 ran Evaluate 3 checkpoints"]


def test_the_log_is_private_and_bounded(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (handler,) = [h for h in access.logger.handlers if isinstance(h, access.PrivateFile)]
    monkeypatch.setattr(handler, "maxBytes", 1000)
    for number in range(200):
        access.log("ran", f"job {number}", "192.0.2.1")
    files = sorted(log.parent.iterdir())
    assert 1 < len(files) <= 1 + handler.backupCount
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert max(file.stat().st_size for file in files) <= 1000
    assert log.read_text().splitlines()[-1].endswith("job 199")


@pytest.mark.parametrize(
    ("path", "method", "logged"),
    [
        ("/file", "GET", "testclient downloaded greedy soup.safetensors"),
        ("/file", "HEAD", None),
        ("/text", "GET", None),
        ("/missing", "GET", None),
    ],
)
def test_downloads_are_logged(
    log: Path, tmp_path: Path, path: str, method: str, logged: str | None
) -> None:
    (tmp_path / "x").write_bytes(b"weights")

    async def answer(request: Request) -> Response:
        if request.url.path == "/file":
            return FileResponse(tmp_path / "x", filename="greedy soup.safetensors")
        return PlainTextResponse("text")

    routes = [Route("/file", answer, methods=["GET", "HEAD"]), Route("/text", answer)]
    client = TestClient(access.LogDownloads(Starlette(routes=routes)))
    client.request(method, path)
    assert log.read_text().splitlines() == ([logged] if logged else [])
