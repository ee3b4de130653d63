"""Settings from the command line: folders, tasks and limits, the server's address and token."""

import argparse
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import streamlit as st

from pages.components import access
from soupcore.cli import parse_dashboard
from soupcore.errors import StockpotError, StoreError, TaskError
from soupcore.remote.cache import REMOTE
from soupcore.workspace import private_folder, workspace_folder

_PROJECT = Path(__file__).parents[2]
_SHORTEST_TOKEN = 16  # characters
_GRACE = 15.0  # seconds for the server to exit by itself
_WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not bound to
SAMPLE_SWEEP = str(_PROJECT / "sample_data" / "digits" / "sweep")
SAMPLE_TASK = f"{_PROJECT / 'sample_data' / 'digits' / 'task.py'}:task"


@dataclass(frozen=True)
class Settings:
    """The server's settings.

    Attributes:
        sweep: The sweep that is shown first.
        roots: Folders that contain sweeps. Nothing outside them is opened.
        named: The tasks named at startup, `file.py:attribute`. No other code is run.
        hosts: Additional host names of the server.
        origins: Additional origins of its pages, for proxies that change the `Host`.
        requires_token: Whether a token is required on a loopback address too.
        uploads: Folder of uploaded sweeps; one of the roots.
        uploads_total: Limit of all uploads together, in bytes.
        uploads_session: Limit of one session's uploads, in bytes.
        devices: Devices of the workers, one worker each.
        database: URL of the store's database; None for SQLite in the workspace.
        ray: Address of a Ray cluster that evaluates the points; None for none.
        auto_s: Jobs that are known to take fewer seconds start without a click; 0 for none.
    """

    sweep: str
    roots: tuple[Path, ...]
    named: tuple[str, ...]
    hosts: tuple[str, ...]
    origins: tuple[str, ...]
    requires_token: bool
    uploads: Path
    uploads_total: int
    uploads_session: int
    devices: tuple[str, ...]
    database: str | None
    ray: str | None = None
    auto_s: float = 0.0

    def allows(self, folder: Path) -> bool:
        """Whether a folder lies in one of the roots, after resolving links."""
        try:
            resolved = folder.resolve()
        except (OSError, ValueError):  # not a valid file name
            return False
        return any(resolved.is_relative_to(root) for root in self.roots)

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks that workers may load: named, described on a page, and that of the sample."""
        return tuple(dict.fromkeys([*self.named, *self.described, SAMPLE_TASK]))

    @property
    def described_in(self) -> Path:
        """The folder of the tasks that were described on a page."""
        return self.uploads.parent / "tasks"

    @property
    def described(self) -> tuple[str, ...]:
        """The tasks that were described on a page and whose files this server may open."""
        from soupcore.tasks.hugging_face_file import paths_of  # loads torch

        found = []
        for path in sorted(self.described_in.glob("*.toml")):
            with suppress(TaskError):
                if all(map(self.allows, paths_of(path))):
                    found.append(f"hf:{path}")
        return tuple(found)

    def tasks_for(self, folder: str) -> tuple[str, ...]:
        """Return the tasks on offer for a sweep. The sample's task fits no other sweep."""
        own = (*self.named, *self.described)
        return tuple(dict.fromkeys([*own, SAMPLE_TASK])) if is_sample(folder) else own

    def task_of(self, folder: str) -> str:
        """Return the task that a sweep is opened with; "" for none."""
        if is_sample(folder):
            return SAMPLE_TASK
        return self.named[0] if self.named else ""


def is_sample(folder: str) -> bool:
    """Whether a sweep is the bundled one."""
    return Path(folder).resolve() == Path(SAMPLE_SWEEP).resolve()


_current: Settings | None = None


def configure(arguments: Sequence[str]) -> Settings:
    """Read the command line. Exits with a message if it is invalid."""
    global _current
    parsed = parse_dashboard(arguments)
    try:
        uploads = workspace_folder() / "uploads"
    except StoreError as error:
        sys.exit(f"stockpot: {error}")
    remote = uploads.parent / REMOTE
    with suppress(StoreError):  # a read-only workspace accepts no uploads
        private_folder(uploads)
        private_folder(remote)
    if parsed.urls:
        parsed.folder = _remote_folder(parsed.urls)
    folder = None if parsed.folder is None else parsed.folder.resolve()
    parsed.root = [root.resolve() for root in parsed.root]
    roots = [
        *([folder] if folder else []),
        *parsed.root,
        _PROJECT / "sample_data",
        *(own for own in (uploads, remote) if own.is_dir()),
    ]
    _current = Settings(
        sweep=str(folder or next(iter(parsed.root), SAMPLE_SWEEP)),
        roots=tuple(dict.fromkeys(root.resolve() for root in roots)),
        named=tuple(dict.fromkeys(parsed.task)),
        hosts=tuple(parsed.host),
        origins=tuple(parsed.origin),
        requires_token=parsed.token,
        uploads=uploads.resolve(),
        uploads_total=round(parsed.uploads_total * 1e9),
        uploads_session=round(parsed.uploads_session * 1e9),
        devices=tuple(dict.fromkeys(parsed.device)) or ("auto",),
        database=parsed.database,
        ray=parsed.ray,
        auto_s=parsed.auto,
    )
    return _current


def current() -> Settings:
    """Return the settings; the defaults if there was no command line."""
    return _current or configure([])


def address() -> str:
    """Return the address that Streamlit binds to; all addresses if none is set."""
    return st.get_option("server.address") or "0.0.0.0"  # noqa: S104


def base_path() -> str:
    """Return the path prefix of all pages, such as "/stockpot", or ""."""
    path = st.get_option("server.baseUrlPath").strip("/")
    return f"/{path}" if path else ""


def requested_address(arguments: Sequence[str]) -> str | None:
    """Return the address on the command line; None if Streamlit listens there already."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--address")
    requested: str | None = parser.parse_known_args(arguments)[0].address
    return requested if requested != address() else None


def listen_on(requested: str) -> None:
    """Restart the process so that Streamlit listens on an address.

    Streamlit binds its socket before it imports the app, and reads the address only from its own
    options.
    """
    if os.environ.get("STREAMLIT_SERVER_ADDRESS") == requested:  # its command line overrides it
        sys.exit(f"--address {requested} and --server.address {address()} contradict each other.")
    os.environ["STREAMLIT_SERVER_ADDRESS"] = requested
    for descriptor in range(3, 256):  # the bound socket among them
        with suppress(OSError):
            os.set_inheritable(descriptor, False)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def is_exposed() -> bool:
    """Whether other machines can reach the server."""
    return not access.is_loopback(address())


def token(*, required: bool) -> str | None:
    """Return the token that every request has to carry; None if no token is needed.

    The token is `$STOCKPOT_TOKEN`, or generated if it is required or if other machines can reach
    the server. It is never an argument, since other users of the machine could read that.

    Args:
        required: Whether a token is required on a loopback address too.
    """
    given = os.environ.pop("STOCKPOT_TOKEN", None)  # workers run task code and must not inherit it
    if given is not None and len(given) < _SHORTEST_TOKEN:
        sys.exit(f"$STOCKPOT_TOKEN is shorter than {_SHORTEST_TOKEN} characters; make it longer.")
    if given is None and (required or is_exposed()):
        return secrets.token_urlsafe()
    return given


def end_soon() -> None:
    """Exit the process soon, even if threads are still drawing pages.

    The interpreter waits for these threads, and a large page on a busy machine takes minutes.
    Nothing is lost: workers write the results, and exit by themselves after this process.
    """

    def end() -> None:
        time.sleep(_GRACE)
        os._exit(0)

    threading.Thread(target=end, name="end", daemon=True).start()


def hosts(named: Collection[str]) -> tuple[str, ...]:
    """Return the names and addresses of the server, including those on the command line."""
    own = (address(), socket.gethostname()) if is_exposed() else ()
    return (*access.LOOPBACK, *own, *named)


def log_name() -> str:
    """Return the name of this server's log; several servers may share a workspace."""
    return f"server-{socket.gethostname()}-{st.get_option('server.port')}.log"


def index_html() -> str:
    """Return the HTML that Streamlit serves for every page."""
    return (Path(st.__file__).parent / "static" / "index.html").read_text()


def links(token: str | None) -> list[str]:
    """Return the URLs to open, with the token if there is one."""
    scheme = "https" if st.get_option("server.sslCertFile") else "http"
    names = ["127.0.0.1"] if address() in _WILDCARDS else [address()]
    if is_exposed() and address() in _WILDCARDS:
        names.insert(0, socket.gethostname())
    query = f"?token={quote(token)}" if token else ""
    port = st.get_option("server.port")
    return [
        f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}{base_path()}/{query}"
        for name in names
    ]


def _remote_folder(urls: Sequence[str]) -> Path:
    from soupcore.sweeps.remote import RemoteSweep  # loads torch

    try:
        return RemoteSweep.of(urls).folder
    except StockpotError as error:
        sys.exit(f"stockpot: {error}")
