"""URLs of remote checkpoints: their form, wildcards in them, and names for the ingredients.

- `hf://org/repo`, `hf://org/repo@revision` and `hf://org/repo@revision/path`, where the revision is
  a branch, a tag or a commit, by default `main`. A `/` in a revision is written `%2F`, except in
  `refs/pr/N` and `refs/convert/NAME`.
- `s3://bucket/path`, and the URLs of other file systems of fsspec.

Revisions and paths may contain the wildcards `*`, `?` and `[…]`. `NAME=URL` names an ingredient.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import unquote, urlsplit

from natsort import natsorted

from soupcore.checkpoints.recognition import stem_of
from soupcore.errors import RemoteError

_URL = re.compile(
    r"(?:(?P<name>[^=/:?#\s]+)=)?(?P<url>(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>.*))"
)
_REPO = re.compile(r"[\w.-]+/[\w.-]+")
_SPECIAL = re.compile(r"(refs/(?:pr|convert)/[^/]+)(?:/(.*))?")
_WILD = re.compile(r"[*?[]")
_UNSAFE = re.compile(r"[^\w.@-]+")
# Parameters of signed URLs (S3, Google, Azure, the Hub's CDN), and names of secrets.
_SECRET = re.compile(
    r"signature|credential|token|secret|password|^sig$|^key$|access.?key|policy|^expires$",
    re.IGNORECASE,
)
_USER = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*@")
_QUERY = re.compile(r"(://[^\s?#]*)\?[^\s'\")]*")

HUB = "hf"
#: Pages open no other schemes: `file://` would leave the roots, and `http://` reach other servers.
HUB_AND_S3 = (HUB, "s3")


@dataclass(frozen=True)
class HubUrl:
    """A URL of the Hub.

    Attributes:
        repo: `org/name`.
        revision: A branch, tag or commit, or a pattern of these.
        path: A file, folder or pattern in the repository; empty for all of it.
    """

    repo: str
    revision: str
    path: str


def is_url(text: str) -> bool:
    """Return whether a text is a URL of remote checkpoints, perhaps as `NAME=URL`."""
    return _URL.fullmatch(text.strip()) is not None


def check_url(text: str) -> tuple[str, str]:
    """Return the name and the URL in `NAME=URL`; the name is empty if there is none.

    Raises:
        RemoteError: It is not a URL, or contains credentials, which would end up in manifests.
    """
    match = _URL.fullmatch(text.strip())
    if match is None:
        raise RemoteError(
            f"{without_credentials(text)!r} is not a URL such as hf://org/repo@revision or "
            "s3://bucket/path."
        )
    url = match["url"]
    query = urlsplit(url).query if match["scheme"] != HUB else ""
    names = [part.partition("=")[0] for part in query.split("&")]
    authority = match["rest"].partition("/")[0]
    has_user = "@" in authority and match["scheme"] != HUB
    if has_user or _USER.search(url) or any(map(_SECRET.search, names)):
        raise RemoteError(
            f"{without_credentials(url)} contains credentials, which would be stored with the "
            "sweep. Remove them, and log in instead: `hf auth login` or $HF_TOKEN for the Hub, an "
            "AWS profile or $AWS_ACCESS_KEY_ID for S3."
        )
    if match["scheme"] == HUB:
        parse_hub_url(url)
    return match["name"] or "", url


def scheme_of(url: str) -> str:
    """Return the scheme of a URL, such as `s3`, also of `NAME=URL`."""
    return url.partition("://")[0].rpartition("=")[2]


def without_credentials(text: str) -> str:
    """Return a text without users and passwords in its URLs, and without their queries."""
    return _QUERY.sub(r"\1", _USER.sub("", text))


def parse_hub_url(url: str) -> HubUrl:
    """Return the parts of a URL of the Hub.

    Raises:
        RemoteError: It has another form, or names a dataset or Space.
    """
    rest = url.removeprefix(f"{HUB}://").strip("/")
    kind, _, after = rest.partition("/")
    if kind in ("datasets", "spaces", "buckets"):
        raise RemoteError(f"{url} names one of the {kind}; name a model, as hf://org/repo.")
    if kind == "models":
        rest = after
    owner, _, after = rest.partition("/")
    name, _, tail = after.partition("/")
    name, at, revision = name.partition("@")
    if at and (special := _SPECIAL.fullmatch(f"{revision}/{tail}")):
        revision, tail = special[1], special[2] or ""
    repo = f"{owner}/{name}"
    parts = tail.split("/") if tail else []
    is_plain = not any(part in ("", ".", "..") for part in parts) and ".." not in repo
    if not _REPO.fullmatch(repo) or (at and not revision) or not is_plain:
        raise RemoteError(
            f"{without_credentials(url)} is not a URL of the Hub. Its form is hf://org/repo, "
            "hf://org/repo@revision or hf://org/repo@revision/path."
        )
    return HubUrl(repo, unquote(revision) or "main", tail)


def is_pattern(text: str) -> bool:
    """Return whether a text contains a wildcard."""
    return _WILD.search(text) is not None


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Return the names that match a pattern, in natural order."""
    return natsorted({name for name in names if fnmatchcase(name, pattern)})


def select(pattern: str, paths: Collection[str]) -> dict[str, list[str]]:
    """Return the files and folders that a path or a pattern names, with the files in each.

    Args:
        pattern: A path, or a pattern whose wildcards do not match `/`; empty for everything.
        paths: All files.

    Returns:
        `{path: files}` in natural order; `files` is the path itself for a file.
    """
    parts = pattern.strip("/").split("/") if pattern.strip("/") else []
    found: dict[str, list[str]] = {}
    for path in natsorted(paths):
        beginning = path.split("/")[: len(parts)]
        if len(beginning) == len(parts) and all(map(fnmatchcase, beginning, parts)):
            found.setdefault("/".join(beginning), []).append(path)
    return found


def safe_name(text: str) -> str:
    """Return a text as a file name: characters other than letters, digits and `_.@-` become `-`."""
    return _UNSAFE.sub("-", text).strip("-.")[:100] or "checkpoint"


def names_of(url: str) -> tuple[str, ...]:
    """Return possible names for the checkpoint at a URL, the shortest first.

    Raises:
        RemoteError: It is not a URL of the Hub, although its scheme is.
    """
    if scheme_of(url) == HUB:
        parsed = parse_hub_url(url)
        _, _, name = parsed.repo.partition("/")
        inside = f"-{parsed.path}" if parsed.path else ""
        short = stem_of(Path(parsed.path)) if parsed.path else name
        at = f"@{parsed.revision}{inside}"
        return short, f"{name}{at}", f"{parsed.repo}{at}"
    path = url.partition("://")[2].strip("/")
    above, _, last = path.rpartition("/")
    stem = stem_of(Path(last)) or last
    return stem, f"{above.rpartition('/')[2]}-{stem}", path


def unique_names(candidates: Sequence[Sequence[str]]) -> list[str]:
    """Return a name for each of several checkpoints, so that no two are equal, ignoring case.

    Each gets its shortest candidate that is unique: equal names are lengthened, the others stay. If
    equal names have no longer candidates, all but the first get a number.

    Args:
        candidates: The possible names of each checkpoint, the shortest first.
    """
    levels = [0] * len(candidates)
    while True:
        names = [safe_name(each[level]) for each, level in zip(candidates, levels, strict=True)]
        counts = Counter(name.lower() for name in names)
        longer = [
            index
            for index, name in enumerate(names)
            if counts[name.lower()] > 1 and levels[index] + 1 < len(candidates[index])
        ]
        if not longer:
            break
        for index in longer:
            levels[index] += 1
    taken: set[str] = set()
    for index, name in enumerate(names):
        count = 1
        while names[index].lower() in taken:
            count += 1
            names[index] = f"{name}-{count}"
        taken.add(names[index].lower())
    return names
