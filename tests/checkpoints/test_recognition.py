import bz2
import lzma
from pathlib import Path

import pytest

from soupcore import CheckpointError, open_checkpoint

POINTER = b"oid sha256:00\nsize 9\n"
BOM = b"\xef\xbb\xbf"
PAGE = "is a web page, not the weights"
LFS = "Git LFS pointer, not the weights. Run `git lfs pull`"
AGAIN = "If you downloaded it, download it again"


@pytest.mark.parametrize("suffix", [".pt", ".pth.tar", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n" + POINTER, LFS, id="pointer"),
        pytest.param(BOM + b"version https://git-lfs.x/spec/v1\n" + POINTER, LFS, id="its mark"),
        pytest.param(b"version https://hawser.github.com/spec/v1\n" + POINTER, LFS, id="old"),
        pytest.param(BOM + b"<!DOCTYPE html><html>", PAGE, id="page after a mark"),
        pytest.param(b"<!-- error --><html>", PAGE, id="comment"),
        pytest.param(b"\r\n<head><title>x</title>", PAGE, id="head"),
        pytest.param("<html>é</html>".encode("utf-16"), PAGE, id="UTF-16"),
        pytest.param("<html>é</html>".encode("utf-16-le"), PAGE, id="UTF-16 without a mark"),
        pytest.param("<html>é</html>".encode("utf-16-be"), PAGE, id="big-endian"),
        pytest.param("<html>é</html>".encode("latin-1"), PAGE, id="Latin-1"),
        pytest.param(b"<p>" + "é".encode() * 300, PAGE, id="a character cut"),
        pytest.param(b'[{"error": "gone"}]', r"is JSON, not the weights", id="JSON"),
        pytest.param(
            b"404: Not Found", rf"text file, .* begins with '404: Not Found'\. {AGAIN}", id="404"
        ),
        pytest.param(b"Entry not found", "begins with 'Entry not found'", id="no entry"),
        pytest.param(
            b"Invalid username or password.\n", "begins with 'Invalid .*log in first", id="login"
        ),
        pytest.param(b"a" * 999 + b"\n", f"begins with '{'a' * 60}'", id="long"),
        pytest.param(b"\x28\xb5\x2f\xfd\0\0", "is compressed with zstd.* Unpack it", id="zstd"),
        pytest.param(lzma.compress(b"x"), "is compressed with xz.* Unpack it", id="xz"),
        pytest.param(bz2.compress(b"x"), "is compressed with bzip2.* Unpack it", id="bzip2"),
        pytest.param(b"\x93NUMPY\1\0", "is a NumPy array.* Convert", id="NumPy"),
        pytest.param(b"\x08\x08\x12\x07pytorch\x1a", "is an ONNX file", id="ONNX"),
    ],
)
def test_other_files_are_recognised_under_any_suffix(
    tmp_path: Path, suffix: str, content: bytes, problem: str
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=problem) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)


def test_a_shard_that_is_a_web_page_is_named_without_an_index_too(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"m-0000{number}-of-00002.safetensors").write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match=r"m-00001-of-00002\.safetensors is a web page"):
        open_checkpoint(tmp_path)
