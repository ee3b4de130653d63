import io
import stat
from pathlib import Path

import pytest

from pages.components import settings, uploads
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
def test_what_cannot_be_a_name_is_refused(sent: str) -> None:
    with pytest.raises(StockpotError, match="cannot be the name of a file"):
        uploads.place_of(sent)


def test_uploads_are_copied_to_a_place_that_only_we_can_read(tmp_path: Path) -> None:
    files = [("s/a.pt", io.BytesIO(b"one")), ("s/run/b.pt", io.BytesIO(b"two"))]
    folder = uploads.copy(files, tmp_path, "my sweep/../x")
    assert folder.parent == tmp_path
    assert folder.name.startswith("my-sweep----x-")
    assert (folder / "run" / "b.pt").read_bytes() == b"two"
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


@pytest.mark.parametrize("second", ["other/a.pt", "..", "a\0"])
def test_where_a_file_cannot_be_copied_nothing_is_left_behind(tmp_path: Path, second: str) -> None:
    with pytest.raises(StockpotError):
        uploads.copy([("s/a.pt", io.BytesIO(b"1")), (second, io.BytesIO(b"2"))], tmp_path, "x")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_all_uploads_is_private() -> None:
    folder = settings.configure([]).uploads
    folder.chmod(0o755)
    assert stat.S_IMODE(settings.configure([]).uploads.stat().st_mode) == 0o700
