"""Uploaded files, copied to a private place before anything looks into them."""

import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from soupcore import StockpotError

_COPY_BLOCK = 1 << 20
_LONGEST_NAME = 200  # bytes


def copy(files: Iterable[tuple[str, BinaryIO]], uploads: Path, name: str) -> Path:
    """Copy uploaded files into a folder of their own, which only this server's user can read.

    Args:
        files: The names that the browser sent, and the files.
        uploads: Where the folder is made.
        name: What it is called, as far as that can be a folder's name.

    Returns:
        The folder.

    Raises:
        StockpotError: A name cannot be that of a file, or two are one; nothing is left behind.
    """
    safe = "".join(c if c.isalnum() or c in "-_" else "-" for c in name)[:60] or "uploaded"
    folder = uploads / f"{safe}-{secrets.token_hex(3)}"
    folder.mkdir(mode=0o700)
    try:
        for sent, file in files:
            _copy(file, folder / place_of(sent))
    except BaseException:
        shutil.rmtree(folder)
        raise
    return folder


def place_of(sent: str) -> PurePosixPath:
    """Return where an uploaded file goes in the folder of its sweep.

    A browser may send any name: what would climb out is dropped. The name of an uploaded folder
    itself is dropped too, so that its checkpoints lie directly in the sweep's.

    Args:
        sent: The name that the browser sent, with folders before it where one was uploaded.

    Raises:
        StockpotError: It cannot be the name of a file. It is not mended, because a table or an
            index may name the file so.
    """
    parts = [part for part in sent.replace("\\", "/").split("/") if part.strip(". ")]
    parts = parts[1:] or parts
    if not parts or not all(p.isprintable() and len(p.encode()) <= _LONGEST_NAME for p in parts):
        raise StockpotError(f"{sent!r} cannot be the name of a file here; rename it.")
    return PurePosixPath(*parts)


def _copy(file: BinaryIO, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise StockpotError(f"{target.name!r} was uploaded twice; rename one of the two.") from None
    with os.fdopen(descriptor, "wb") as output:
        while block := file.read(_COPY_BLOCK):
            output.write(block)
