"""Image classifiers without a trained head: CLIP compares an image with the names of the classes.

The logit of a class is the cosine of an image's embedding and that of the class, times the scale
that the network learned (Radford et al. 2021, arXiv:2103.00020). The embedding of a class is the
normalised mean of the normalised embeddings of its name in each prompt. It is computed with the
same weights, so a soup averages the text encoder and the image encoder.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from soupcore.errors import TaskError
from soupcore.tasks.hugging_face_folder import image_reader, network_of, open_tokenizer
from soupcore.tasks.images import Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image

PROMPTS = ("a photo of a {}.",)

_TEXTS = 256  # embedded at a time
_VISION = ("vision_model.", "visual.", "visual_projection.")  # prefixes of names of tensors

Embed = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Texts:
    """The texts of the classes, and functions that embed images and texts.

    Attributes:
        tokens: The tokens of each text, tensors of shape [classes · prompts, length], class by
            class.
        classes: Number of classes.
        embed_images: Embeds a batch of images with the network.
        embed_texts: Embeds texts with the network, from their tokens.
    """

    tokens: dict[str, Tensor]
    classes: int
    embed_images: Embed
    embed_texts: Embed


class ZeroShot(nn.Module):
    """A network with an image and a text encoder, as a classifier of images.

    The embeddings of the classes are recomputed only if the weights of the text encoder changed.

    Args:
        encoders: The network, with `logit_scale`, the logarithm of the scale.
        texts: The classes.
    """

    def __init__(self, encoders: nn.Module, texts: Texts) -> None:
        super().__init__()
        self.encoders = encoders
        self._texts = texts
        self._known: tuple[list[Tensor], Tensor] | None = None  # weights and embeddings

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the classes, shape [m, classes].

        Args:
            images: Preprocessed images, shape [m, 3, height, width].
        """
        if not isinstance(images, Tensor):
            raise TypeError("The embeddings of the classes depend on the weights: no tracing.")
        found = normalize(self._texts.embed_images(self.encoders, images), dim=-1)
        network: Any = self.encoders
        logits: Tensor = network.logit_scale.exp() * found @ self._classes().T
        bias = getattr(network, "logit_bias", None)
        return logits if bias is None else logits + bias

    def _classes(self) -> Tensor:
        """Return the embeddings of the classes, shape [classes, dimensions]."""
        if torch.is_grad_enabled():
            return self._embedded()
        weights = [
            tensor for name, tensor in self.encoders.state_dict().items()
            if not name.startswith(_VISION)
        ]  # fmt: skip
        known = self._known
        if known is None or not all(map(torch.equal, weights, known[0])):
            self._known = known = [tensor.clone() for tensor in weights], self._embedded()
        return known[1]

    def _embedded(self) -> Tensor:
        texts = self._texts
        device = next(self.encoders.parameters()).device
        count = len(next(iter(texts.tokens.values())))
        found = []
        for start in range(0, count, _TEXTS):
            some = {
                name: tokens[start : start + _TEXTS].to(device)
                for name, tokens in texts.tokens.items()
            }
            found.append(normalize(texts.embed_texts(self.encoders, some), dim=-1))
        by_class = torch.cat(found).view(texts.classes, count // texts.classes, -1)
        return normalize(by_class.mean(1), dim=-1)


def texts_of(path: Path, names: Sequence[str], prompts: Sequence[str]) -> list[str]:
    """Return each class name in each prompt, class by class.

    Raises:
        TaskError: A prompt has no placeholder for the name.
    """
    lacking = next((prompt for prompt in prompts if "{}" not in prompt), None)
    if lacking is not None:
        raise TaskError(
            f"{path}: the prompt {lacking!r} needs {{}}, the placeholder of the class name."
        )
    return [prompt.replace("{}", name) for name in names for prompt in prompts]


def of_transformers(
    path: Path, folder: Path, names: Sequence[str], prompts: Sequence[str]
) -> tuple[Callable[[], nn.Module], Callable[["Image"], Tensor], str]:
    """Return the builder of a CLIP of transformers, its input function and a description of both.

    Args:
        path: The file that describes the task.
        folder: The folder with config.json, preprocessor_config.json and the tokenizer.
        names: The names of the classes.
        prompts: The prompts, with {} for the name.

    Raises:
        TaskError: transformers is not installed, or one of these files cannot be opened.
    """
    build = network_of(path, folder, "")
    read, identity = image_reader(path, folder)
    tokenizer = open_tokenizer(path, folder)
    tokens = tokenizer(
        texts_of(path, names, prompts), padding=True, truncation=True, return_tensors="pt"
    )
    needed = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    texts = Texts(
        needed,
        len(names),
        lambda network, images: _pooled(network.get_image_features(pixel_values=images)),
        lambda network, some: _pooled(network.get_text_features(**some)),
    )
    return lambda: ZeroShot(build(), texts), read, identity


def _pooled(found: Any) -> Tensor:
    """Return an embedding; transformers 5 returns it in an object."""
    pooled: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return pooled


def of_open_clip(
    path: Path, name: str, names: Sequence[str], prompts: Sequence[str]
) -> tuple[Preprocessing, Callable[[], nn.Module]]:
    """Return the preprocessing and the builder of a network of open_clip.

    Args:
        path: The file that describes the task.
        name: Name of the architecture, such as "ViT-B-32".
        names: The names of the classes.
        prompts: The prompts, with {} for the name.

    Raises:
        TaskError: open_clip is not installed, has no such architecture, or would download its
            tokenizer.
    """
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:
        raise TaskError(
            f"{path} needs the package open_clip: pip install open_clip_torch "
            f"({str(error).strip()})."
        ) from None
    config = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if config is None:
        raise TaskError(
            f"{path}: open_clip has no architecture {name!r}, such as ViT-B-32. "
            "open_clip.list_models() lists them."
        )
    if config.get("text_cfg", {}).get("hf_tokenizer_name"):
        raise TaskError(
            f"{path}: the tokenizer of {name} would be downloaded. Save the network as a folder of "
            'transformers, and set `model = "folder"`.'
        )

    def build() -> nn.Module:
        network: nn.Module = open_clip.create_model(name, pretrained=None, pretrained_hf=False)
        return ZeroShot(network, texts)

    tokens: Tensor = open_clip.get_tokenizer(name)(texts_of(path, names, prompts))
    texts = Texts(
        {"tokens": tokens},
        len(names),
        lambda network, images: network.encode_image(images),
        lambda network, some: network.encode_text(some["tokens"]),
    )
    built: Any = build()
    config = open_clip.get_model_preprocess_cfg(built.encoders)
    if config["resize_mode"] == "longest":
        raise TaskError(f"{path}: the resize mode 'longest' of {name} is not supported.")
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else size
    return (
        Preprocessing(
            (height, width),
            min(height, width),
            tuple(config["mean"]),
            tuple(config["std"]),
            config["interpolation"],
            is_squashed=config["resize_mode"] == "squash",
        ),
        build,
    )
