import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from pages.components import settings, uploads
from pages.components.uploads import Incoming, UploadsToDisk
from soupcore import StockpotError


@pytest.mark.parametrize(
    ("sent", "place"),
    [
        ("a.pt", "a.pt"),
        ("my-sweep/a.pt", "a.pt"),
        ("my-sweep/run/model.safetensors", "run/model.safetensors"),
        ("../../etc/passwd", "passwd"),
        ("/etc/cron.d/x.pt", "cron.d/x.pt"),
        ("sweep/../../x.pt", "x.pt"),
        ("sweep/./.../x.pt", "x.pt"),
        ("C:\\runs\\x.pt", "runs/x.pt"),
        ("..\\..\\x.pt", "x.pt"),
        ("epoch=3-loss=0.1 (best).ckpt", "epoch=3-loss=0.1 (best).ckpt"),
        ("模型.pt", "模型.pt"),
    ],
)
def test_an_uploaded_file_cannot_climb_out_of_its_folder(sent: str, place: str) -> None:
    assert uploads.place_of(sent).as_posix() == place


@pytest.mark.parametrize(
    "sent", ["", "..", "/", "a\0.pt", "a\n.pt", "a\x1b[2J.pt", "x" * 201, "é" * 101]
)
def test_invalid_names_are_refused(sent: str) -> None:
    with pytest.raises(StockpotError, match="is not a valid file name"):
        uploads.place_of(sent)


def test_only_the_user_of_the_server_can_read_uploads(tmp_path: Path) -> None:
    files = [("s/a.pt", sent(tmp_path, b"one")), ("s/run/b.pt", sent(tmp_path, b"two"))]
    folder = uploads.keep(files, tmp_path, "my sweep/../x")
    assert folder.parent == tmp_path
    assert folder.name.startswith("my-sweep----x-")
    assert (folder / "run" / "b.pt").read_bytes() == b"two"
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


def sent(folder: Path, content: bytes) -> Path:
    path = folder / f"sent-{content.decode()}"
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("second", ["other/a.pt", "..", "a\0"])
def test_a_failed_copy_leaves_no_folder(tmp_path: Path, second: str) -> None:
    files = [("s/a.pt", sent(tmp_path, b"1")), (second, sent(tmp_path, b"2"))]
    with pytest.raises(StockpotError):
        uploads.keep(files, tmp_path, "x")
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_the_folder_of_all_uploads_is_private() -> None:
    folder = settings.configure([]).uploads
    folder.chmod(0o755)
    assert stat.S_IMODE(settings.configure([]).uploads.stat().st_mode) == 0o700


URL = "/_stcore/upload_file/here"
NAME = "my sweep/run ![x](https:evil).pt"


async def pass_on(request: Request) -> PlainTextResponse:
    return PlainTextResponse("passed on")


@pytest.fixture
def incoming(tmp_path: Path) -> Incoming:
    return Incoming(tmp_path, total=10_000, session=5_000)


@pytest.fixture
def registered() -> list[tuple[str, str, str]]:
    return []


@pytest.fixture
def client(incoming: Incoming, registered: list[tuple[str, str, str]]) -> TestClient:
    app = UploadsToDisk(
        Starlette(routes=[Route("/{path:path}", pass_on, methods=["GET", "PUT", "DELETE"])]),
        incoming=lambda: incoming,
        is_active=lambda session: session in ("here", "there"),
        register=lambda *what: registered.append(what),
    )
    return TestClient(app)


def put(client: TestClient, file_id: str, content: bytes, session: str = "here") -> int:
    url = f"/_stcore/upload_file/{session}/{file_id}"
    status: int = client.put(url, files={"file": (NAME, content)}).status_code
    return status


def on_disk(folder: Path) -> list[bytes]:
    return sorted(file.read_bytes() for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("content", [b"", b"one", bytes(range(256)) * 15, b"\r\n--" * 900])
def test_a_file_goes_to_disk_as_it_was_sent(
    client: TestClient,
    incoming: Incoming,
    registered: list[tuple[str, str, str]],
    tmp_path: Path,
    content: bytes,
) -> None:
    assert put(client, "1", content) == 204
    received = incoming.get("1")
    assert received is not None
    assert received.name == NAME
    assert received.path.read_bytes() == content
    assert stat.S_IMODE(received.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(received.path.parent.stat().st_mode) == 0o700
    assert received.path.is_relative_to(tmp_path)
    assert registered == [("here", "1", NAME)]


def test_uploads_are_bounded_a_session_and_in_all(
    client: TestClient, incoming: Incoming, tmp_path: Path
) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "a.pt").write_bytes(bytes(3_000))
    assert put(client, "1", bytes(4_000)) == 204
    assert put(client, "2", bytes(4_000)) == 413  # of 5,000 a session
    assert put(client, "3", bytes(4_000), session="there") == 413  # of 10,000 in all
    assert put(client, "4", bytes(2_000), session="there") == 204
    assert on_disk(tmp_path) == [bytes(2_000), bytes(3_000), bytes(4_000)]
    assert client.delete(f"{URL}/1").text == "passed on"
    assert on_disk(tmp_path) == [bytes(2_000), bytes(3_000)]
    assert put(client, "5", bytes(4_000)) == 204


def test_an_upload_of_undeclared_size_is_limited(
    client: TestClient, incoming: Incoming, tmp_path: Path
) -> None:
    def body() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n'
        for _ in range(100):
            yield bytes(1_000)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.put(f"{URL}/1", content=body(), headers=headers).status_code == 413
    assert on_disk(tmp_path) == []
    assert incoming.room("here") == 5_000


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"--x--\r\n"),
        ("multipart/form-data; boundary=x", b"nothing of the kind"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\ncut',
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n1\r\n'
            b'--x\r\nContent-Disposition: form-data; name="g"; filename="b"\r\n\r\n2\r\n--x--\r\n',
        ),
    ],
)
def test_a_request_without_one_whole_file_leaves_nothing(
    client: TestClient, tmp_path: Path, content_type: str, body: bytes
) -> None:
    headers = {"Content-Type": content_type}
    assert client.put(f"{URL}/1", content=body, headers=headers).status_code == 400
    assert on_disk(tmp_path) == []


def test_files_of_sessions_that_ended_are_removed_but_those_of_sweeps_stay(
    client: TestClient, incoming: Incoming, tmp_path: Path
) -> None:
    assert put(client, "1", b"dropped") == put(client, "2", b"kept") == 204
    kept = incoming.get("2")
    assert kept is not None
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "b.pt").hardlink_to(kept.path)
    room = incoming.room("here")
    incoming.drop_sessions(lambda session: False)  # it may connect again
    assert on_disk(tmp_path) == [b"dropped", b"kept", b"kept"]
    for file in kept.path.parent.iterdir():
        os.utime(file, (0, 0))
    incoming.drop_sessions(lambda session: False)
    assert on_disk(tmp_path) == [b"kept"]
    assert incoming.get("1") is incoming.get("2") is None
    assert room < incoming.room("here") < 5_000  # what a session sent for a sweep counts
    incoming.close()
    assert [path.name for path in tmp_path.iterdir()] == ["sweep"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"{URL}/1", 200),
        ("PUT", "/elsewhere", 200),
        ("PUT", "/_stcore/upload_file/ended/1", 400),
        ("PUT", f"{URL}/1/2", 200),
    ],
)
def test_other_requests_are_passed_on(
    client: TestClient, method: str, path: str, status: int, tmp_path: Path
) -> None:
    answer = client.request(method, path, content=b"x")
    assert answer.status_code == status
    assert (answer.text == "passed on") == (status == 200)
    assert on_disk(tmp_path) == []


def test_taking_a_removed_upload_is_an_error(client: TestClient, incoming: Incoming) -> None:
    assert put(client, "1", b"one") == put(client, "2", b"two") == 204
    assert [file.path.read_bytes() for file in incoming.take(["2", "1"])] == [b"two", b"one"]
    incoming.drop("1")
    with pytest.raises(StockpotError, match="upload them again"):
        incoming.take(["2", "1"])
