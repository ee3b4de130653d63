"""The files at the URLs of a remote sweep: their kinds, and their paths in its folder."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from soupcore.checkpoints.models import why_distributed
from soupcore.checkpoints.recognition import (
    INDEX_SUFFIXES,
    OTHER_SUFFIXES,
    is_checkpoint_name,
    is_distributed,
    is_leftover,
    stem_of,
    suffix_of,
)
from soupcore.errors import RemoteError
from soupcore.remote import Found, RemoteFile, check_url, source_of
from soupcore.remote.files import CutOffError
from soupcore.remote.urls import safe_name, unique_names

_SMALL = 32 << 20  # bytes of a file beside the weights
_BESIDE = (".json", ".jsonl", ".csv", ".yaml", ".yml", ".txt", ".model", ".md", ".jinja", ".spm")
_OF_MODELS = ("config.json", "adapter_config.json", "model.safetensors", "pytorch_model.bin")
_LONGEST_NAME = 200  # bytes
_MOST_FILES = 20_000


def title_of(urls: Sequence[str]) -> str:
    """Return a name for the folder: that of the repository, the bucket's folder or the file."""
    parts = check_url(urls[0])[1].partition("://")[2].strip("/").split("/")
    plain = [part for part in parts if "*" not in part]
    is_hub = "hf://" in urls[0] and len(parts) > 1
    name = parts[1].partition("@")[0] if is_hub else plain[-1] if plain else "remote"
    title = safe_name(stem_of(Path(name)) or name)[:60]
    return title if len(urls) == 1 else f"{title}-and-{len(urls) - 1}-more"


def find_files(urls: Sequence[str]) -> list[tuple[str, Found]]:
    """Return the files and folders that URLs name, with the names in `NAME=URL`.

    Raises:
        RemoteError: A URL names nothing, or cannot be resolved.
    """
    found: list[tuple[str, Found]] = []
    for text in urls:
        name, url = check_url(text)
        try:
            found += [(name, each) for each in source_of(url).find(url)]
        except CutOffError as error:
            raise RemoteError(
                f"{url} cannot be resolved: {error}. Sweeps whose files are all in the cache "
                "open without a connection."
            ) from None
    return found


def checked(urls: Sequence[str], found: Sequence[tuple[str, Found]]) -> dict[str, RemoteFile]:
    """Return the files that URLs name, by their paths in the folder of the sweep.

    Raises:
        RemoteError: There are no checkpoints among them, or too many files.
    """
    files = dict(_placed(found))
    if not any(kind_of(path, file.size) == "weights" for path, file in files.items()):
        parts = [path for _, each in found for path in each.files if path.endswith(".distcp")]
        if parts:
            problem, way_out = why_distributed(Path("FOLDER", parts[0]).parent)
            raise RemoteError(f"{', '.join(urls)} {problem}. {way_out}")
        raise RemoteError(f"There are no checkpoints at {', '.join(urls)}.")
    if len(files) > _MOST_FILES:
        raise RemoteError(
            f"{', '.join(urls)} contain {len(files):,} files; the limit is {_MOST_FILES:,}. "
            "Use URLs of smaller folders."
        )
    return files


def _placed(found: Sequence[tuple[str, Found]]) -> Iterator[tuple[str, RemoteFile]]:
    """Yield the path in the sweep's folder of each file."""
    models = []
    for name, each in found:
        (first, *_) = each.files
        if each.is_file and kind_of(first, 0) != "weights":
            yield first, each.files[first]  # a table of the runs
        else:
            models.append((name, each))
    alone = len(models) == 1 and not models[0][0] and not models[0][1].is_file
    if alone and not any(name in models[0][1].files for name in _OF_MODELS):
        yield from _plain_ones("", models[0][1].files)  # a folder with a whole sweep
        return
    given = [
        [f"{name}-{each}" for each in one.names]
        if name and sum(other == name for other, _ in models) > 1
        else [name]
        if name
        else one.names
        for name, one in models
    ]
    for name, (_, each) in zip(unique_names(given), models, strict=True):
        if each.is_file:
            ((file, pinned),) = each.files.items()
            suffix = file.removeprefix(stem_of(Path(file))) if suffix_of(Path(file)) else ""
            yield name + (suffix or Path(file).suffix), pinned
        else:
            yield from _plain_ones(f"{name}/", each.files)


def _plain_ones(prefix: str, files: Mapping[str, RemoteFile]) -> Iterator[tuple[str, RemoteFile]]:
    for path, file in files.items():
        is_known = kind_of(path, file.size) or is_distributed(Path(path))
        if is_plain(prefix + path) and is_known:
            yield prefix + path, file


def is_plain(path: str) -> bool:
    """Return whether a path stays in its folder, has no hidden parts and is printable."""
    parts = path.split("/")
    return all(
        part and not part.startswith(".") and part.isprintable() and "\\" not in part
        and len(part.encode()) <= _LONGEST_NAME
        for part in parts
    )  # fmt: skip


def kind_of(path: str, size: int) -> str:
    """Return `weights`, `beside` for a small file that may describe them, or "" for others."""
    name = Path(path)
    if name.name == "training_args.bin":
        return "beside"
    if is_leftover(name):
        return ""
    if is_checkpoint_name(name) and suffix_of(name) not in INDEX_SUFFIXES:
        return "weights"
    if size <= _SMALL and name.name.lower().endswith((*_BESIDE, *INDEX_SUFFIXES)):
        return "beside"
    return "weights" if name.name.lower().endswith(OTHER_SUFFIXES) else ""
