"""Folders in the form of transformers: networks, tokenizers and image processors.

The network is built from `config.json` alone, and no code in a folder is run.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from soupcore.errors import TaskError
from soupcore.tasks.toml_file import read_text

if TYPE_CHECKING:
    from PIL.Image import Image


def network_of(path: Path, folder: Path, kind: str) -> Callable[[], nn.Module]:
    """Return a builder of the network of a config.json, with random weights.

    Args:
        path: The file that describes the task.
        folder: The folder with config.json.
        kind: Head of the network, such as "SequenceClassification"; "" for the bare network.

    Raises:
        TaskError: transformers is not installed, or the file cannot be opened.
    """
    transformers = _transformers(path)
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise TaskError(f"{folder / 'config.json'} cannot be opened: {error}") from error

    def build() -> nn.Module:
        auto = getattr(transformers, f"AutoModelFor{kind}" if kind else "AutoModel")
        network: nn.Module = auto.from_config(config, trust_remote_code=False)
        saved = _saved_names(network)
        if any(name != own for own, name in saved.items()):
            hooks: Any = network
            hooks.register_state_dict_post_hook(partial(_rename, saved))
        return network

    return build


def _saved_names(network: nn.Module) -> dict[str, str]:
    """Return the name that each tensor of a network has in a file, by its own name.

    Since transformers 5, many networks have other tensor names in memory than in their files.
    """
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # version 4
        return {}
    own = network.state_dict()
    names = {tensor.data_ptr(): name for name, tensor in own.items() if tensor.numel()}
    saved: Mapping[str, Tensor] = revert_weight_conversion(network, dict(own))
    found = {names.get(tensor.data_ptr(), name): name for name, tensor in saved.items()}
    return found if len(found) == len(saved) else {}  # tied tensors, whose names stay


def _rename(
    names: Mapping[str, str], network: nn.Module, state: dict[str, Any], *rest: Any
) -> None:
    """Give the tensors in a state dict their names in files."""
    renamed = {names.get(name, name): tensor for name, tensor in state.items()}
    state.clear()
    state.update(renamed)


def image_network(
    path: Path, folder: Path
) -> tuple[Callable[[], nn.Module], Callable[["Image"], Tensor], str]:
    """Return the builder of an image classifier, its input function and a description of both.

    Args:
        path: The file that describes the task.
        folder: The folder with config.json and preprocessor_config.json.

    Raises:
        TaskError: transformers is not installed, or one of these files cannot be opened.
    """
    read, identity = image_reader(path, folder)
    return network_of(path, folder, "ImageClassification"), read, identity


def image_reader(path: Path, folder: Path) -> tuple[Callable[["Image"], Tensor], str]:
    """Return the input function of the processor in a folder, and a description of it.

    Args:
        path: The file that describes the task.
        folder: The folder with preprocessor_config.json.

    Raises:
        TaskError: transformers is not installed, or the file cannot be opened.
    """
    settings = folder / "preprocessor_config.json"
    try:
        # Pillow's, as torchvision need not be installed.
        processor = _transformers(path).AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, backend="pil"
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise TaskError(
            f"{settings} cannot be opened: {error} Save the image processor beside config.json."
        ) from error

    def read(image: "Image") -> Tensor:
        found: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return found

    return read, read_text(settings)


def open_tokenizer(path: Path, folder: Path) -> Any:
    """Return the tokenizer in a folder.

    Args:
        path: The file that describes the task.
        folder: The folder.

    Raises:
        TaskError: transformers is not installed, or the tokenizer cannot be opened.
    """
    try:
        return _transformers(path).AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise TaskError(
            f"The tokenizer in {folder} cannot be opened: {error} Put the tokenizer's "
            "files (tokenizer.json, tokenizer_config.json) beside config.json, or name their "
            "folder as `tokenizer`."
        ) from error


def _transformers(path: Path) -> Any:
    try:
        import transformers
    except ImportError:
        raise TaskError(
            f"{path} needs the package transformers: pip install transformers."
        ) from None
    return transformers
