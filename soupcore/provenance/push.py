"""Uploads a soup to the Hugging Face Hub, with its card and its recipe."""

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soupcore.errors import RemoteError
from soupcore.new_files import new_file
from soupcore.progress import is_watched
from soupcore.provenance.card import model_card
from soupcore.provenance.hub_folder import files_for_hub, write_hub_folder
from soupcore.recipes.soup import Soup
from soupcore.remote.files import CutOffError
from soupcore.workspace import workspace_folder
from soupcore.writers.hub_files import CARD

_REPO = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def check_repo(repo: str) -> None:
    """Check that a text names a repository of the Hub, as `org/name`.

    Raises:
        RemoteError: It does not.
    """
    if not _REPO.fullmatch(repo):
        raise RemoteError(f"{repo!r} is not a repository of the Hub; its form is org/name.")


def push_to_hub(
    soup: Soup,
    repo: str,
    *,
    public: bool = False,
    revision: str | None = None,
    dtype: Any = None,
    card: str | None = None,
    on_bytes: Callable[[int], None] = lambda nbytes: None,
) -> str:
    """Upload a soup, its card and its recipe to the Hugging Face Hub, with the user's own token.

    If the ingredients are Hugging Face folders, so is the soup there, with configuration and
    tokenizer. Otherwise, it is a `model.safetensors`.

    Args:
        soup: The soup.
        repo: `org/name`. It is created if it does not exist.
        public: Whether a new repository is public. An existing one stays as it is.
        revision: Branch to commit to; by default, `main`.
        dtype: Dtype of all floats; by default, as in the first ingredient.
        card: Text of the README.md; by default, `model_card(soup)`.
        on_bytes: Called with the number of bytes of weights written since the last call, before the
            upload.

    Returns:
        The URL of the commit.

    Raises:
        RemoteError: There is no token, or it may not write there; or huggingface_hub is missing.
        CheckpointError: The weights cannot be written.
    """
    check_repo(repo)
    from soupcore.remote.hub import Hub, api, hub_errors

    Hub()  # says it if the package is missing
    if not is_watched():
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
    url = f"hf://{repo}"
    with tempfile.TemporaryDirectory(dir=workspace_folder(), prefix=".push-") as name:
        folder = Path(name) / "soup"
        _write(soup, folder, dtype, card, on_bytes)
        try:
            with hub_errors(url):
                hub = api()
                hub.create_repo(repo, private=not public, exist_ok=True)
                if revision is not None:
                    hub.create_branch(repo, branch=revision, exist_ok=True)
                commit = hub.upload_folder(
                    repo_id=repo,
                    folder_path=folder,
                    revision=revision,
                    commit_message=f"Add the {soup.recipe} soup {soup.id}",
                )
        except RuntimeError:  # its message may hold the signed address of the upload
            raise RemoteError(f"{url}: the upload of the weights failed. Try again.") from None
        except CutOffError as error:
            raise RemoteError(f"{url} cannot be written: {error}. Try again.") from None
    return str(commit.commit_url)


def _write(
    soup: Soup, folder: Path, dtype: Any, card: str | None, on_bytes: Callable[[int], None]
) -> None:
    if files_for_hub(soup) is not None:
        write_hub_folder(soup, folder, dtype, card=card, on_bytes=on_bytes)
        return
    folder.mkdir()
    soup.save(folder / "model.safetensors", dtype, on_bytes=on_bytes)
    texts = {
        CARD: model_card(soup) if card is None else card,
        f"{soup.recipe}-{soup.id}.json": json.dumps(soup.to_json(), indent=2, ensure_ascii=False),
    }
    for name, text in texts.items():
        with new_file(folder / name, durable=False) as file:
            file.write(text.encode())
