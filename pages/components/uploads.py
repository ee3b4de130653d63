"""Uploaded files: written to disk as they arrive, limited in sum, then put into a sweep's folder.

Streamlit keeps an uploaded file in memory as long as the page is open. This module answers the
upload requests instead and gives Streamlit an empty file. It is the only module that depends on how
Streamlit's uploader sends files.
"""

import math
import os
import re
import secrets
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, MultipartState, parse_options_header
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pages.components import access
from pages.components.streamlit_internals import is_active, register_upload
from soupcore import StockpotError

_PREFIX = ".incoming-"
_STALE = 24 * 3600.0  # seconds until files that another server left are removed
_PATIENCE = 900.0  # seconds until the files of a lost session are removed
_PATH = re.compile(r"/_stcore/upload_file/([^/]+)/([^/]+)")
_OVERHEAD = 1 << 16  # bytes of a request in addition to the file
_LONGEST_NAME = 200  # bytes


class NoRoomError(Exception):
    """An upload exceeds the limits."""


@dataclass(frozen=True)
class Received:
    """A file that a browser uploaded.

    Attributes:
        session: Id of the session that sent it.
        name: Its name in the browser.
        path: Its path on this machine.
        nbytes: Its size in bytes.
    """

    session: str
    name: str
    path: Path
    nbytes: int


class Incoming:
    """Uploaded files that do not belong to a sweep yet.

    Args:
        uploads: The folder of all uploaded sweeps.
        total: Limit of all uploads together, in bytes.
        session: Limit of one session's uploads, in bytes.
    """

    def __init__(self, uploads: Path, *, total: int, session: int) -> None:
        self._uploads = uploads
        self._limits = (total, session)
        self._folder: Path | None = None
        self._files: dict[str, Received] = {}
        self._sent: Counter[str] = Counter()
        self._used = 0
        self._under_way = 0
        for left in uploads.glob(f"{_PREFIX}*"):
            if _age(left) > _STALE:
                shutil.rmtree(left, ignore_errors=True)

    def room(self, session: str) -> int:
        """Return the number of bytes that a session may still send."""
        if not self._under_way:
            stats = [f.lstat() for f in self._uploads.rglob("*") if f.is_file()]
            self._used = sum({stat.st_ino: stat.st_size for stat in stats}.values())
        total, of_session = self._limits
        return max(min(total - self._used, of_session - self._sent[session]), 0)

    def folder(self) -> Path:
        """Return the folder of this server's incoming files; only the server's user can read it."""
        if self._folder is None or not self._folder.is_dir():
            self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._uploads))
        return self._folder

    def begin(self) -> None:
        """Record that an upload begins."""
        self._under_way += 1

    def add(self, session: str, nbytes: int) -> None:
        """Count received bytes.

        Raises:
            NoRoomError: They exceed the limits.
        """
        if nbytes > self.room(session):
            raise NoRoomError
        self._used += nbytes
        self._sent[session] += nbytes

    def end(self, session: str, nbytes: int, file_id: str, received: Received | None) -> None:
        """Record a complete file, or release the bytes of an upload that failed."""
        self._under_way -= 1
        if received is not None:
            self._files[file_id] = received
        else:
            self._used -= nbytes
            self._sent[session] -= nbytes

    def get(self, file_id: str) -> Received | None:
        """Return an uploaded file, or None if there is none."""
        return self._files.get(file_id)

    def take(self, file_ids: Sequence[str]) -> list[Received]:
        """Return uploaded files.

        Raises:
            StockpotError: A file was removed, because its session was away for too long.
        """
        found = [self._files[file_id] for file_id in file_ids if file_id in self._files]
        if len(found) < len(file_ids):
            raise StockpotError(
                "The uploaded files are gone. Reload the page and upload them again."
            )
        return found

    def drop(self, file_id: str) -> Received | None:
        """Remove an uploaded file. A sweep that links to it keeps it."""
        received = self._files.pop(file_id, None)
        if received is not None and received.path.is_file():
            if received.path.stat().st_nlink == 1:
                self._sent[received.session] -= received.nbytes
            received.path.unlink()
        return received

    def drop_sessions(self, is_active: Callable[[str], bool]) -> None:
        """Remove the files of ended sessions, except recent ones that may reconnect."""
        for file_id, received in list(self._files.items()):
            if not is_active(received.session) and _age(received.path) > _PATIENCE:
                self.drop(file_id)

    def close(self) -> None:
        """Remove all files that do not belong to a sweep."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class UploadsToDisk:
    """Answers upload requests.

    Args:
        app: The application that answers all other requests.
        incoming: Returns the incoming files.
        base: Path prefix of all pages.
        is_active: Whether a session exists.
        register: Called with the session, id and name of each uploaded file.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        incoming: Callable[[], Incoming],
        base: str = "",
        is_active: Callable[[str], bool] = is_active,
        register: Callable[[str, str, str], None] = register_upload,
    ) -> None:
        self._app = app
        self._incoming = incoming
        self._base = base
        self._is_active = is_active
        self._register = register

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an upload request; pass others on to the application."""
        found = None
        if scope["type"] == "http" and scope["path"].startswith(self._base):
            found = _PATH.fullmatch(scope["path"].removeprefix(self._base))
        if found is None or scope["method"] not in ("PUT", "DELETE"):
            await self._app(scope, receive, send)
            return
        session, file_id = found.groups()
        if scope["method"] == "DELETE":
            dropped = self._incoming().drop(file_id)
            if dropped is not None:
                access.log("removed", f"upload {dropped.name}", access.address_of(scope))
            await self._app(scope, receive, send)
            return
        answer = await self._take(Request(scope, receive), session, file_id)
        await answer(scope, receive, send)

    async def _take(self, request: Request, session: str, file_id: str) -> Response:
        incoming = self._incoming()
        incoming.drop_sessions(self._is_active)
        if not self._is_active(session) or incoming.get(file_id) is not None:
            return PlainTextResponse("Unknown session; reload the page.", 400)
        declared = request.headers.get("content-length", "0")
        if not declared.isdigit() or int(declared) > incoming.room(session) + _OVERHEAD:
            return _no_room(request, incoming.room(session))
        try:
            path = incoming.folder() / secrets.token_hex(16)
        except OSError as error:
            return _cannot_keep(error)
        taken, received = 0, None
        incoming.begin()
        try:
            with open(path, "xb", opener=_private) as file:
                form = _Form(request.headers.get("content-type", ""), file)
                async for chunk in request.stream():
                    incoming.add(session, len(chunk))
                    taken += len(chunk)
                    form.write(chunk)
                name = form.finish()
            received = Received(session, name, path, taken)
            self._register(session, file_id, name)
        except NoRoomError:
            return _no_room(request, incoming.room(session))
        except FormParserError:
            return PlainTextResponse("The request does not contain exactly one file.", 400)
        except ClientDisconnect:
            return PlainTextResponse("The upload was interrupted.", 400)
        except OSError as error:
            return _cannot_keep(error)
        finally:
            if received is None:
                path.unlink(missing_ok=True)
            incoming.end(session, taken, file_id, received)
        access.log("uploaded", name, access.address_of(request.scope))
        return Response(status_code=204)


def keep(files: Iterable[tuple[str, Path]], uploads: Path, name: str) -> Path:
    """Link uploaded files into a new folder that only this server's user can read.

    Args:
        files: Pairs of the name that the browser sent and the file's path. The files stay in place.
        uploads: Parent of the new folder.
        name: Wanted name of the folder; characters that are unsafe in file names are replaced.

    Returns:
        The folder.

    Raises:
        StockpotError: A file name is invalid or occurs twice. The folder is removed again.
    """
    safe = "".join(c if c.isalnum() or c in "-_" else "-" for c in name)[:60] or "uploaded"
    folder = uploads / f"{safe}-{secrets.token_hex(3)}"
    folder.mkdir(mode=0o700)
    try:
        for sent, file in files:
            _link(file, folder / place_of(sent))
    except BaseException:
        shutil.rmtree(folder)
        raise
    return folder


def place_of(sent: str) -> PurePosixPath:
    """Return the path of an uploaded file, relative to its sweep's folder.

    A browser may send any name, so parts that lead out of the folder are dropped. The name of an
    uploaded folder is dropped too, so that its checkpoints lie directly in the sweep's folder.

    Args:
        sent: The name that the browser sent, with its folders if a folder was uploaded.

    Raises:
        StockpotError: The file name is invalid. It is not corrected, because a table or an index
            may refer to it.
    """
    parts = [part for part in sent.replace("\\", "/").split("/") if part.strip(". ")]
    parts = parts[1:] or parts
    if not parts or not all(p.isprintable() and len(p.encode()) <= _LONGEST_NAME for p in parts):
        raise StockpotError(f"{sent!r} is not a valid file name; rename the file.")
    return PurePosixPath(*parts)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


class _Form:
    """Writes the only file of a form to disk while the form arrives."""

    def __init__(self, content_type: str, file: BinaryIO) -> None:
        _, options = parse_options_header(content_type)
        self._file = file
        self._header = (bytearray(), bytearray())
        self._names: list[str] = []
        self._parser = MultipartParser(
            options.get(b"boundary", b""),
            {
                "on_part_data": lambda data, start, end: self._write(data[start:end]),
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._end_header,
            },
        )

    def write(self, chunk: bytes) -> None:
        """Parse a chunk of the form."""
        self._parser.write(chunk)

    def finish(self) -> str:
        """Return the file's name.

        Raises:
            FormParserError: The form is incomplete or does not contain exactly one file.
        """
        self._parser.finalize()
        if len(self._names) != 1 or self._parser.state != MultipartState.END:
            raise FormParserError
        return self._names[0]

    def _end_header(self) -> None:
        field, value = map(bytes, self._header)
        self._header = (bytearray(), bytearray())
        if field.lower() == b"content-disposition":
            _, options = parse_options_header(value)
            self._names.append(options.get(b"filename", b"").decode("utf-8", "replace"))

    def _write(self, data: bytes) -> None:
        if len(self._names) != 1:
            raise FormParserError
        self._file.write(data)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _cannot_keep(error: OSError) -> Response:
    return PlainTextResponse(f"The file cannot be written ({error.strerror}).", 507)


def _no_room(request: Request, room: int) -> Response:
    reason = (
        f"Uploads may take {room / 1e6:.0f} MB more. Put the sweep in a folder on the server, or "
        "remove uploaded sweeps there."
    )
    access.log("refused", f"an upload: {reason}", access.address_of(request.scope))
    return PlainTextResponse(reason, 413)


def _link(file: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.link(file, target)
    except FileExistsError:
        raise StockpotError(f"Two uploaded files are named {target.name!r}; rename one.") from None
