"""A soup as a Hugging Face folder, which `from_pretrained` opens, and its upload to the Hub.

An upload sends the weights first, and then one commit adds all files, so an interrupted upload
leaves no files in the repository. Files are uploaded as streams, which huggingface_hub sends in the
calling thread, so that each block reports progress and can cancel the upload.
"""

import io
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soupcore.checkpoints.dtypes import output_dtype
from soupcore.errors import CheckpointError, RemoteError
from soupcore.new_files import new_file
from soupcore.progress import is_watched
from soupcore.provenance.card import files_for_hub, model_card
from soupcore.recipes.soup import Soup
from soupcore.remote.files import CutOffError
from soupcore.workspace import workspace_folder
from soupcore.writers.hub_files import CARD, CONFIG, copy_file

if TYPE_CHECKING:
    from huggingface_hub import HfApi

OnBytes = Callable[[int], None]

PASSES = 3  # over the weights: they are written, hashed and uploaded
_SHARD_SIZE = 5_000_000_000  # bytes, as the libraries of Hugging Face split by default
_REPO = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def write_hub_folder(
    soup: Soup,
    folder: Path,
    dtype: Any = None,
    shard_size: int | None = None,
    *,
    card: str | None = None,
    on_bytes: OnBytes = lambda nbytes: None,
) -> list[Path]:
    """Write the weights, the configuration, the tokenizer and a card; see `Soup.save`.

    Args:
        soup: The soup.
        folder: The folder, which is created if its parent exists.
        dtype: Dtype of all floats; by default, as in the first ingredient.
        shard_size: Largest size of a shard in bytes; 5 GB by default.
        card: Text of the README.md; by default, `model_card(soup)`.
        on_bytes: Called with the number of bytes of weights written since the last call.

    Returns:
        The files, the weights last.

    Raises:
        CheckpointError: The first ingredient has no `config.json`, the parent of the folder does
            not exist, or the weights cannot be written.
    """
    known = files_for_hub(soup)
    if known is None:
        raise CheckpointError(
            f"There is no {CONFIG} of a Hugging Face model beside the weights of {soup.form.name}, "
            "so the soup cannot be saved as a folder.",
            "Save it as a file: .safetensors, or the format of the first ingredient.",
        )
    if not folder.parent.is_dir():
        raise CheckpointError(f"Folder {folder.parent} does not exist.", "Create it first.")
    folder.mkdir(exist_ok=True)
    manifest = soup.to_json()
    texts = {
        CONFIG: known.config_text(output_dtype(dtype)),
        **_card_and_recipe(soup, manifest, card),
    }
    written = []
    for name, text in texts.items():
        with new_file(folder / name) as file:
            file.write(text.encode())
        written.append(folder / name)
    for name, source in known.copied.items():
        with new_file(folder / name) as file:
            copy_file(source, file)
        written.append(folder / name)
    weights = soup.output.save(
        folder / f"{known.stem}.safetensors",
        manifest,
        dtype,
        shard_size or _SHARD_SIZE,
        on_bytes=on_bytes,
    )
    return [*written, *weights]


def check_repo(repo: str) -> None:
    """Check that a text names a repository of the Hub, as `org/name`.

    Raises:
        RemoteError: It does not.
    """
    if not _REPO.fullmatch(repo):
        raise RemoteError(f"{repo!r} is not a repository on the Hub. Name it as org/name.")


def push_to_hub(
    soup: Soup,
    repo: str,
    *,
    public: bool = False,
    revision: str | None = None,
    dtype: Any = None,
    card: str | None = None,
    on_bytes: OnBytes = lambda nbytes: None,
) -> str:
    """Upload a soup, its card and its recipe to the Hugging Face Hub, with the user's own token.

    If the ingredients are Hugging Face folders, the soup becomes one too, with configuration and
    tokenizer. Otherwise, its weights are in one `model.safetensors`.

    Args:
        soup: The soup.
        repo: `org/name`. It is created if it does not exist.
        public: Whether a new repository is public. An existing one keeps its visibility.
        revision: Branch to commit to; by default, `main`.
        dtype: Dtype of all floats; by default, as in the first ingredient.
        card: Text of the README.md; by default, `model_card(soup)`.
        on_bytes: Called with the number of bytes written, hashed or uploaded since the last call,
            `PASSES` times the size of the weights in total, or more if a request is repeated. Raise
            an exception in it to cancel: nothing is committed, but a new repository stays, empty.

    Returns:
        The URL of the commit.

    Raises:
        RemoteError: There is no token, it has no write access, the Hub cannot be reached, or
            huggingface_hub is not installed.
        CheckpointError: The weights cannot be written.
    """
    check_repo(repo)
    from soupcore.remote.hub import Hub, api, hub_errors

    Hub()  # raises if the package is missing
    if not is_watched():
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
    url = f"hf://{repo}"
    with tempfile.TemporaryDirectory(dir=workspace_folder(), prefix=".push-") as name:
        folder = Path(name) / "soup"
        _write(soup, folder, dtype, card, on_bytes)
        message = f"Add the {soup.recipe} soup {soup.id}"
        watch = _Watch(on_bytes)
        try:
            with hub_errors(url):
                hub = api()
                hub.create_repo(repo, private=not public, exist_ok=True)
                if revision is not None:
                    hub.create_branch(repo, branch=revision, exist_ok=True)
                return _commit(hub, repo, folder, revision, message, watch)
        except (RuntimeError, ValueError):  # its message may contain the signed URL of the upload
            if watch.reason is not None:
                raise watch.reason from None
            raise RemoteError(f"{url}: the upload of the weights failed. Try again.") from None
        except CutOffError as error:
            raise RemoteError(f"{url} cannot be written: {error}. Try again.") from None


class _Watch:
    """Passes on bytes, and keeps the exception that cancels the upload.

    huggingface_hub replaces exceptions during an upload by a `RuntimeError`.
    """

    def __init__(self, on_bytes: OnBytes) -> None:
        self.reason: Exception | None = None
        self._on_bytes = on_bytes

    def __call__(self, nbytes: int) -> None:
        try:
            self._on_bytes(nbytes)
        except Exception as reason:
            self.reason = reason
            raise


class _Watched(io.BufferedReader):
    """A file whose reads are reported."""

    def __init__(self, path: Path, watch: _Watch) -> None:
        super().__init__(io.FileIO(path))
        self._watch = watch

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size)
        self._watch(len(block))
        return block


def _commit(
    hub: "HfApi", repo: str, folder: Path, revision: str | None, message: str, watch: _Watch
) -> str:
    """Upload the files of a folder, add them by one commit, and return its URL."""
    from huggingface_hub import CommitOperationAdd

    with ExitStack() as opened:
        additions = [
            CommitOperationAdd(
                path.relative_to(folder).as_posix(), opened.enter_context(_Watched(path, watch))
            )
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        for addition in additions:  # of several at once, each would have a thread
            hub.preupload_lfs_files(repo, [addition], revision=revision, free_memory=False)
        watch(0)
        commit = hub.create_commit(repo, additions, commit_message=message, revision=revision)
    return str(commit.commit_url)


def _write(soup: Soup, folder: Path, dtype: Any, card: str | None, on_bytes: OnBytes) -> None:
    if files_for_hub(soup) is not None:
        write_hub_folder(soup, folder, dtype, card=card, on_bytes=on_bytes)
        return
    folder.mkdir()
    soup.save(folder / "model.safetensors", dtype, on_bytes=on_bytes)
    for name, text in _card_and_recipe(soup, soup.to_json(), card).items():
        with new_file(folder / name, durable=False) as file:
            file.write(text.encode())


def _card_and_recipe(soup: Soup, manifest: Mapping[str, Any], card: str | None) -> dict[str, str]:
    """Return `{file name: text}` of a soup's card, by default `model_card(soup)`, and manifest."""
    return {
        CARD: model_card(soup) if card is None else card,
        f"{soup.recipe}-{soup.id}.json": json.dumps(manifest, indent=2, ensure_ascii=False),
    }
