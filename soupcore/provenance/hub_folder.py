"""A soup as a Hugging Face folder, which `from_pretrained` opens."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from soupcore.checkpoints.dtypes import output_dtype
from soupcore.errors import CheckpointError
from soupcore.new_files import new_file
from soupcore.provenance.card import files_for_hub, model_card
from soupcore.recipes.soup import Soup
from soupcore.writers.hub_files import CARD, CONFIG, copy_file

SHARD_SIZE = 5_000_000_000  # bytes, as the libraries of Hugging Face split by default


def write_hub_folder(
    soup: Soup,
    folder: Path,
    dtype: Any = None,
    shard_size: int | None = None,
    *,
    card: str | None = None,
    on_bytes: Callable[[int], None] = lambda nbytes: None,
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
        **card_and_recipe(soup, manifest, card),
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
        shard_size or SHARD_SIZE,
        on_bytes=on_bytes,
    )
    return [*written, *weights]


def card_and_recipe(soup: Soup, manifest: Mapping[str, Any], card: str | None) -> dict[str, str]:
    """Return `{file name: text}` of a soup's card, by default `model_card(soup)`, and manifest."""
    return {
        CARD: model_card(soup) if card is None else card,
        f"{soup.recipe}-{soup.id}.json": json.dumps(manifest, indent=2, ensure_ascii=False),
    }
