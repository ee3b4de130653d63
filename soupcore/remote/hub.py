"""Models on the Hugging Face Hub: pinned to a commit, read by range requests.

huggingface_hub resolves names, finds the token (`$HF_TOKEN` or `hf auth login`) and sends requests.
Files are read by plain range requests and not by its download functions, so that one cache with one
budget holds the files of all sources, and so that a header costs one request.
"""

import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soupcore.checkpoints.recognition import stem_of
from soupcore.errors import RemoteError
from soupcore.remote.files import CutOffError, Found, RemoteFile
from soupcore.remote.urls import HubUrl, is_pattern, matching, parse_hub_url, select

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT = 60.0  # seconds without an answer
_OVERLOADED = (408, 429, 500, 502, 503, 504)
_MOST_SHOWN = 8
_LOUD = ("huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2")


class Hub:
    """The models of the Hub at `$HF_ENDPOINT`, by default https://huggingface.co."""

    def __init__(self) -> None:
        try:
            import huggingface_hub  # noqa: F401
        except ImportError:
            raise RemoteError(
                "hf:// needs the package huggingface_hub. Install it: pip install 'stockpot[hub]'."
            ) from None

    def find(self, url: str) -> list[Found]:
        """Return the files and folders that a URL names; see `Source`."""
        parsed = parse_hub_url(url)
        revisions = [parsed.revision]
        if is_pattern(parsed.revision):
            revisions = self._revisions(parsed, url)
        found = []
        for revision in revisions:
            found += self._find(parsed, revision, url)
        return found

    def _revisions(self, parsed: HubUrl, url: str) -> list[str]:
        with hub_errors(url):
            refs = api().list_repo_refs(parsed.repo)
        names = [ref.name for ref in (*refs.branches, *refs.tags)]
        revisions = matching(parsed.revision, names)
        if not revisions:
            shown = ", ".join(names[:_MOST_SHOWN]) + (", …" if len(names) > _MOST_SHOWN else "")
            raise RemoteError(f"{url}: no branch or tag matches. The repository has {shown}.")
        return revisions

    def _find(self, parsed: HubUrl, revision: str, url: str) -> list[Found]:
        commit = revision
        with hub_errors(url):
            if not _COMMIT.fullmatch(revision):
                commit = str(api().model_info(parsed.repo, revision=revision).sha)
            tree = list(api().list_repo_tree(parsed.repo, recursive=True, revision=commit))
        files = {}
        for entry in tree:
            if hasattr(entry, "size"):  # a file, not a folder
                files[entry.path] = RemoteFile(
                    f"hf://{parsed.repo}@{commit}/{entry.path}",
                    entry.size,
                    sha256=entry.lfs.sha256 if entry.lfs else "",
                    git="" if entry.lfs else entry.blob_id,
                )
        selected = select(parsed.path, files) if parsed.path else {"": [*files]}
        if not any(selected.values()):
            what = f"has no {parsed.path!r}" if parsed.path else "is empty"
            raise RemoteError(f"{url}: the repository {what} at revision {revision!r}.")
        return [
            Found(
                _names(parsed, revision, path),
                {file.removeprefix(f"{path}/") if path else file: files[file] for file in inside}
                if inside != [path]
                else {path.rpartition("/")[2]: files[path]},
                inside == [path],
            )
            for path, inside in selected.items()
        ]

    def read(self, file: RemoteFile, start: int, stop: int) -> bytes:
        """Read a range by one request; see `Source`."""
        content = b""
        for block in self._blocks(file, start, stop):
            content += block
            if len(content) >= stop - start:
                break
        if len(content) < min(stop, file.size) - start:
            raise CutOffError("the connection ended early")
        return content[: stop - start]

    def stream(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        """Yield the bytes from `start` on; see `Source`."""
        return self._blocks(file, start, None)

    def _blocks(self, file: RemoteFile, start: int, stop: int | None) -> Iterator[bytes]:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        parsed = parse_hub_url(file.url)
        url = hf_hub_url(parsed.repo, parsed.path, revision=parsed.revision, endpoint=_endpoint())
        last = "" if stop is None else str(stop - 1)
        headers = build_hf_headers() | {
            "Range": f"bytes={start}-{last}",
            "Accept-Encoding": "identity",
        }
        with (
            hub_errors(file.url),
            get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT) as response,
        ):
            if response.status_code in _OVERLOADED:
                raise CutOffError(f"the server answers {response.status_code}")
            if response.status_code >= 400:
                response.read()
            hf_raise_for_status(response)
            # A server without ranges sends the file from its beginning.
            skip = start if response.status_code == 200 else 0
            for block in response.iter_raw():
                if skip >= len(block):
                    skip -= len(block)
                    continue
                yield block[skip:]
                skip = 0

    def check_same(self, file: RemoteFile) -> None:
        """Do nothing: a commit cannot change."""

    def is_md5(self, file: RemoteFile) -> bool:
        """Return False: ETags of the Hub are other digests."""
        return False


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def api() -> "HfApi":
    """Return the API of the Hub at `$HF_ENDPOINT`."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=_endpoint())


def _names(parsed: HubUrl, revision: str, path: str) -> tuple[str, ...]:
    owner, _, name = parsed.repo.partition("/")
    stem = stem_of(Path(path))
    short = [revision] if is_pattern(parsed.revision) else [name]
    if path and (is_pattern(parsed.path) or not is_pattern(parsed.revision)):
        short = [stem]
    return (
        *short,
        f"{name}@{revision}" + (f"-{stem}" if path and is_pattern(parsed.path) else ""),
        f"{owner}-{name}@{revision}" + (f"-{path}" if path else ""),
    )


class _Silence:
    """Silences huggingface_hub and its HTTP client, whose messages contain signed URLs.

    Several threads may use the Hub at once: the last one to end restores the levels of the loggers.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._levels: dict[logging.Logger, int] = {}

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            # A logger below a package follows it, unless it has a level of its own.
            names = [n for n in [*logging.root.manager.loggerDict] if n.partition(".")[0] in _LOUD]
            below = [logger for logger in map(logging.getLogger, names) if logger.level]
            self._levels = {each: each.level for each in (*map(logging.getLogger, _LOUD), *below)}
            for logger in self._levels:
                logger.setLevel(logging.CRITICAL + 1)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                for logger, level in self._levels.items():
                    logger.setLevel(level)


without_logs = _Silence()


@contextmanager
def hub_errors(url: str) -> Iterator[None]:
    """Replace errors of huggingface_hub by `RemoteError` or `CutOffError`, and silence its logs.

    The messages of the library may contain signed URLs.
    """
    from huggingface_hub import errors, get_token

    has_token = get_token() is not None
    try:
        with without_logs:
            yield
    except errors.GatedRepoError:
        raise RemoteError(
            f"{url}: access to this repository has to be requested on its page on the Hub, with "
            "the account of your token."
        ) from None
    except errors.RevisionNotFoundError:
        raise RemoteError(f"{url}: the repository has no such branch, tag or commit.") from None
    except errors.EntryNotFoundError:
        raise RemoteError(f"{url} does not exist.") from None
    except errors.RepositoryNotFoundError:
        who = "your token may not read it" if has_token else "it is private and you have no token"
        raise RemoteError(
            f"{url}: the repository does not exist, or {who}. Check the name, or log in: `hf auth "
            "login`, or $HF_TOKEN."
        ) from None
    except errors.OfflineModeIsEnabled:
        raise RemoteError(
            f"{url} cannot be read offline: it is not in the cache, and HF_HUB_OFFLINE is set."
        ) from None
    except errors.HfHubHTTPError as error:
        raise _refused(url, error, has_token=has_token) from None
    except errors.HFValidationError as error:
        raise RemoteError(f"{url} is not a valid name on the Hub: {error}") from None
    except errors.HTTPError as error:  # of its HTTP client
        kind = type(error).__name__
        is_away = kind in ("ConnectError", "ConnectTimeout")
        problem = "the Hub cannot be reached" if is_away else f"the connection was lost ({kind})"
        raise CutOffError(problem) from None


def _refused(url: str, error: Any, *, has_token: bool) -> RemoteError | CutOffError:
    status = error.response.status_code
    if status == 401 and has_token:
        return RemoteError(
            f"{url}: the Hub refuses your token. Set $HF_TOKEN to a valid one, or run `hf auth "
            "login`."
        )
    if status in (401, 403):
        return RemoteError(
            f"{url}: access refused ({status}). Use a token with the right permissions: $HF_TOKEN, "
            "or `hf auth login`."
        )
    if status in _OVERLOADED:
        return CutOffError(f"the server answers {status}")
    return RemoteError(f"{url}: the Hub answers {status}.")
