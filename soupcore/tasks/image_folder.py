"""Image classifiers on folders of images, described by a TOML file.

    architecture = "timm:resnet18"   # or "torchvision:resnet18"
    metrics = ["accuracy", "macro F1"]

    [splits]
    val = "data/val"                 # data/val/CLASS/image.jpg
    test = "data/test"

In place of `architecture`, `checkpoint = "runs/1/model_best.pth.tar"` takes it from the arguments
that the training script of timm or of torchvision left in a checkpoint, and `model = "runs/1"` from
the config.json of a folder that transformers or timm wrote.

Images are preprocessed as the architecture's own configuration says; `size`, `resize`, `mean`,
`std` and `interpolation` replace parts of that. Classes are the names of the folders of the
`select` split in their order, unless the config.json names them or `classes` lists them.

`group = "folder"` takes the group of each image from the folder below that of its class, as in
data/val/CLASS/GROUP/image.jpg, for `worst-group accuracy` and `accuracy by group`; and
`group = "groups.csv"` from the columns `image`, a path seen from the description's folder, and
`group`.

The folder of a CLIP of transformers as `model`, or `architecture = "open_clip:ViT-B-32"`, needs no
trained head: classes are compared with images by their names in `prompts = ["a photo of a {}."]`.
The names are those of the folders with spaces for underscores, or `class_names` in the order of the
classes (see `soupcore.tasks.zero_shot`).

`precision = "bfloat16"` evaluates in another precision than float32 (see `Task`). Without test
data, `hold_out = 0.3` holds out 30 % of the images of `val` to report on, drawn with the seed
`hold_out_seed = 0`.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import nn

from soupcore.checkpoints import open_checkpoint
from soupcore.errors import TaskError
from soupcore.tasks.classification import ClassificationTask
from soupcore.tasks.description import Role
from soupcore.tasks.hugging_face_folder import image_network
from soupcore.tasks.images import SUFFIXES, Preprocessing, picture_split
from soupcore.tasks.splits import Split
from soupcore.tasks.task import Task
from soupcore.tasks.toml_file import COMMON_KEYS, TomlFile, json_object, read_text
from soupcore.tasks.zero_shot import PROMPTS, of_open_clip, of_transformers

_KEYS = {
    "architecture", "checkpoint", "model", "classes", "metrics", "splits", "name", "group",
    "prompts", "class_names", "size", "resize", "mean", "std", "interpolation", *COMMON_KEYS,
}  # fmt: skip
_FOLDER = "folder"  # as `group`: the name of the folder below that of the class
_SOURCES = ("architecture", "checkpoint", "model")
_PACKAGES = ("timm", "torchvision", "open_clip")
_CLIP = "clip"  # model_type in a config.json of transformers
_DATA = {"img_size", "input_size", "crop_pct", "mean", "std", "interpolation", "crop_mode"}


def signature(path: Path) -> str:
    """Return the identity of a description and of the configuration that it names.

    Raises:
        TaskError: The file is invalid.
    """
    return _Description(path).identity


def load(path: Path) -> Task:
    """Load the task that a TOML file describes.

    Raises:
        TaskError: The file is not of this form, names folders that are missing, or needs a package
            that is not installed.
    """
    description = _Description(path)
    folders = description.splits("folder", "data/val")
    classes = description.classes(folders)
    images = {}
    for name, (role, folder) in folders.items():
        files, numbers = _labelled(folder, classes)
        images[name] = role, files, numbers, description.groups(folder, files)
    build, make = _network(description, classes)
    splits = {name: make(*of_split) for name, of_split in images.items()}
    task = ClassificationTask(
        build,
        description.held_out(splits),
        name=description.name,
        metrics=description.texts("metrics"),
        precision=description.precision,
    )
    task.source_digest = description.identity
    return task


class _Description(TomlFile):
    """A TOML file that describes a classifier of images.

    Attributes:
        package: The package of the architecture: timm, torchvision, open_clip or transformers.
        architecture: Its name in that package; "" for transformers.
        config: The settings of a config.json, or the arguments in a checkpoint.
        identity: A digest of everything that defines the task except the images: 64 hex digits.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _KEYS)
        named = [key for key in _SOURCES if key in self.settings]
        if len(named) != 1:
            raise TaskError(f"{path} needs one of {', '.join(_SOURCES)}, the architecture.")
        self.config: dict[str, Any] = {}
        value = self.text(named[0])
        if named[0] == "architecture":
            self.package, _, self.architecture = value.partition(":")
        elif named[0] == "checkpoint":
            self._of_checkpoint(path.parent / value)
        else:
            self._of_folder(path.parent / value)
        if self.package not in (*_PACKAGES, "transformers"):
            raise TaskError(
                f'{path}: `architecture` is such as "timm:resnet18" or "torchvision:resnet18", not '
                f"{value!r}."
            )
        if not self.is_zero_shot and (given := {"prompts", "class_names"} & self.settings.keys()):
            raise TaskError(
                f"{path}: {' and '.join(sorted(given))} need a CLIP, which compares images with "
                "texts, as `model` or an `architecture` of open_clip."
            )
        self.identity = self.digest(
            json.dumps(self.config, sort_keys=True, default=str), self._group_text
        )

    def _of_checkpoint(self, path: Path) -> None:
        self.config = dict(open_checkpoint(path).details)
        name = self.config.get("model") or self.config.get("arch")
        if not isinstance(name, str):
            raise TaskError(
                f"{path} does not say its architecture: it has no arguments with `model`. Write "
                'architecture = "timm:…" or "torchvision:…" instead of `checkpoint`.'
            )
        # Only timm's training script has crop_pct; torchvision's has data_path.
        self.package = "torchvision" if "data_path" in self.config else "timm"
        self.architecture = name

    def _of_folder(self, folder: Path) -> None:
        self.folder = folder
        config = folder / "config.json"
        if not config.is_file():
            raise TaskError(f"{self.path}: {config} does not exist.")
        self.config = json_object(config, read_text(config))
        self.package = "timm" if "architecture" in self.config else "transformers"
        self.architecture = self.config.get("architecture", "")

    @property
    def is_zero_shot(self) -> bool:
        """Whether classes are compared with images by their names."""
        is_clip = self.package == "transformers" and self.config.get("model_type") == _CLIP
        return is_clip or self.package == "open_clip"

    def prompts(self) -> list[str]:
        """Return the prompts for class names."""
        return self.texts("prompts") or list(PROMPTS)

    def class_names(self, classes: Sequence[str]) -> list[str]:
        """Return the names of the classes for prompts, in the order of the classes."""
        names = self.texts("class_names") or [name.replace("_", " ") for name in classes]
        if len(names) != len(classes):
            raise TaskError(
                f"{self.path}: `class_names` has {len(names)} names, and there are {len(classes)} "
                "classes."
            )
        return names

    @property
    def _group_text(self) -> str:
        """The text of the file with groups; "" without one."""
        if self.settings.get("group", _FOLDER) == _FOLDER:
            return ""
        return read_text(self.path.parent / self.text("group"))

    def groups(self, folder: Path, files: Sequence[Path]) -> list[str] | None:
        """Return the group of each image of a split; None without groups.

        Args:
            folder: The folder of the split.
            files: The images.

        Raises:
            TaskError: An image has none.
        """
        if "group" not in self.settings:
            return None
        if self.text("group") == _FOLDER:
            below = [file.relative_to(folder).parts for file in files]
            lacking = [f for f, parts in zip(files, below, strict=True) if len(parts) < 3]
            if lacking:
                raise TaskError(
                    f'{self.path}: `group` is "folder", but {lacking[0]} is not in a group folder: '
                    "expected CLASS/GROUP/image."
                )
            return [parts[1] for parts in below]
        place = self.path.parent / self.text("group")
        table = csv.DictReader(io.StringIO(self._group_text))
        if not {"image", "group"} <= set(table.fieldnames or ()):
            raise TaskError(f"{place} needs the columns image and group.")
        known = {(self.path.parent / row["image"]).resolve(): row["group"] for row in table}
        lacking = [file for file in files if not known.get(file.resolve())]
        if lacking:
            raise TaskError(f"{place} has no group of {lacking[0]}.")
        return [known[file.resolve()] for file in files]

    def classes(self, folders: Mapping[str, tuple[Role, Path]]) -> list[str]:
        """Return the names of the classes in the order of their numbers."""
        if "classes" in self.settings:
            return self.texts("classes")
        numbers = self.config.get("label2id") or {}
        names: list[str] = self.config.get("label_names") or sorted(
            numbers, key=numbers.__getitem__
        )
        selects = [folder for role, folder in folders.values() if role == "select"]
        if selects and not selects[0].is_dir():
            raise TaskError(f"{selects[0]} does not exist. Give folders relative to {self.path}.")
        found = (
            sorted(each.name for each in selects[0].iterdir() if each.is_dir()) if selects else []
        )
        # A configuration without names of its own calls classes LABEL_0, LABEL_1, ….
        return names if set(found) <= set(names) else found

    def preprocessing(self, found: Preprocessing) -> Preprocessing:
        """Return a preprocessing with the parts that the file replaces."""
        changes: dict[str, Any] = {}
        if (size := self.number("size")) is not None:
            changes |= {"size": (size, size), "resize": found.resize * size // found.size[0]}
        if (resize := self.number("resize")) is not None:
            changes["resize"] = resize
        for key in ("mean", "std"):
            if key in self.settings:
                changes[key] = self._three(key)
        if "interpolation" in self.settings:
            changes["interpolation"] = self.text("interpolation")
        return replace(found, **changes)

    def _three(self, key: str) -> tuple[float, ...]:
        value = self.settings[key]
        is_list = isinstance(value, list) and len(value) == 3
        if not is_list or not all(isinstance(each, int | float) for each in value):
            raise TaskError(f"{self.path}: `{key}` is a list of three numbers.")
        return tuple(map(float, value))


def _labelled(folder: Path, classes: list[str]) -> tuple[list[Path], list[int]]:
    """Return the images in the folders of the classes, in the order of classes and names."""
    if not folder.is_dir():
        raise TaskError(f"{folder} does not exist, or is no folder.")
    found = sorted(each.name for each in folder.iterdir() if each.is_dir())
    unknown = [name for name in found if name not in classes]
    if unknown:
        raise TaskError(
            f"{folder} has folders of unknown classes: {', '.join(unknown[:5])}. The classes are "
            f"{', '.join(classes[:5])}{', …' if len(classes) > 5 else ''}."
        )
    files, numbers = [], []
    for name in found:
        images = sorted(f for f in (folder / name).rglob("*") if f.suffix.lower() in SUFFIXES)
        files += images
        numbers += [classes.index(name)] * len(images)
    if not files:
        raise TaskError(f"{folder} holds no images in folders of classes.")
    return files, numbers


Make = Callable[[Role, list[Path], list[int], list[str] | None], Split]


def _network(
    description: _Description, classes: Sequence[str]
) -> tuple[Callable[[], nn.Module], Make]:
    """Return the builder of the network, and a function that makes a split for it."""
    if description.package == "transformers":
        return _of_transformers(description, classes)
    if description.package == "open_clip":
        names = description.class_names(classes)
        found, build = of_open_clip(
            description.path, description.architecture, names, description.prompts()
        )
    else:
        of_package = _of_timm if description.package == "timm" else _of_torchvision
        found, build = of_package(description, len(classes))
    preprocessing = description.preprocessing(found)

    def make(role: Role, files: list[Path], numbers: list[int], groups: list[str] | None) -> Split:
        identity, prepare = json.dumps(asdict(preprocessing)), preprocessing.normalise
        named = [classes[number] for number in numbers]
        return picture_split(
            role, files, numbers, preprocessing, identity, prepare, groups, names=named
        )

    return build, make


def _of_timm(
    description: _Description, classes: int
) -> tuple[Preprocessing, Callable[[], nn.Module]]:
    try:
        import timm
        from timm.data import resolve_data_config
    except (ImportError, RuntimeError) as error:
        raise _missing(description, "timm", error) from None

    def build() -> nn.Module:
        network: nn.Module = timm.create_model(
            description.architecture, pretrained=False, num_classes=classes
        )
        return network

    settings = {key: value for key, value in description.config.items() if key in _DATA and value}
    for key in ("mean", "std"):  # a checkpoint's details have lists as texts
        if isinstance(settings.get(key), str):
            settings[key] = [float(each) for each in settings[key].split(",")]
    pretrained = description.config.get("pretrained_cfg")
    try:
        config = resolve_data_config(settings, pretrained_cfg=pretrained, model=build())
    except RuntimeError as error:  # no such architecture
        raise TaskError(f"{description.path}: {error}") from error
    return Preprocessing.of_timm(config), build


def _of_torchvision(
    description: _Description, classes: int
) -> tuple[Preprocessing, Callable[[], nn.Module]]:
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:
        raise _missing(description, "torchvision", error) from None
    try:
        weights = models.get_model_weights(description.architecture).DEFAULT
    except ValueError as error:
        raise TaskError(f"{description.path}: {error}") from error
    preset = weights.transforms()

    def build() -> nn.Module:
        network: nn.Module = models.get_model(
            description.architecture, weights=None, num_classes=classes
        )
        return network

    size = preset.crop_size[0]
    found = Preprocessing(
        (size, size),
        preset.resize_size[0],
        tuple(preset.mean),
        tuple(preset.std),
        preset.interpolation.value,
    )
    return found, build


def _missing(description: _Description, package: str, error: Exception) -> TaskError:
    return TaskError(
        f"{description.path} needs the package {package}: pip install {package} "
        f"({str(error).strip()})."
    )


def _of_transformers(
    description: _Description, classes: Sequence[str]
) -> tuple[Callable[[], nn.Module], Make]:
    if description.is_zero_shot:
        names = description.class_names(classes)
        build, read, identity = of_transformers(
            description.path, description.folder, names, description.prompts()
        )
    else:
        build, read, identity = image_network(description.path, description.folder)

    def make(role: Role, files: list[Path], numbers: list[int], groups: list[str] | None) -> Split:
        named = [classes[number] for number in numbers]
        return picture_split(role, files, numbers, read, identity, groups=groups, names=named)

    return build, make
