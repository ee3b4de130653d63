"""Detectors of Ultralytics, described by the data.yaml that they were trained with.

`ultralytics:data.yaml` evaluates on the images of `val` and, where there are some, of `test`. The
network is built of the description in a checkpoint, and no code in the checkpoint is run. It is the
first `best.pt` or `last.pt` below `runs`, in the folder of data.yaml or one of the two above it.
With a TOML file, `ultralytics:yolo.toml`, all of that can be chosen:

    data = "data.yaml"
    model = "runs/detect/train/weights/best.pt"   # any run of the sweep
    imgsz = 640                                   # the one of the run unless given
    iou = 0.7                                     # of non-maximum suppression
    conf = 0.001
    max_det = 300

    [splits]                                      # name = key in data.yaml
    val = "val"
    test = "test"
    "shift/night" = "night"

The numbers are those of `YOLO(checkpoint).val()`: images are padded in batches of 16 of similar
shape, predictions are those of the one-to-many head, and non-maximum suppression has no time limit.
An image or a label that cannot be read is an error here.
"""

import copy
import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from soupcore.checkpoints import open_checkpoint
from soupcore.checkpoints.torch_format import TorchCheckpoint
from soupcore.errors import TaskError
from soupcore.tasks.description import Role
from soupcore.tasks.detections import DETECTION_METRICS, Limits, counts, detect, record
from soupcore.tasks.task import Split, Task
from soupcore.tasks.toml_file import ROLES, TomlFile, read_text

_KEYS = {"data", "model", "imgsz", "iou", "conf", "max_det", "splits", "name"}
_IMAGES = {
    "avif", "bmp", "dng", "heic", "heif", "jp2", "jpeg", "jpeg2000", "jpg", "mpo", "png", "tif",
    "tiff", "webp",
}  # fmt: skip
_BATCH = 16  # images that are padded to one shape
_STRIDE = 32  # pixels
_GREY = 114  # of what pads an image
_SIZE = 640  # pixels, where neither file says it
_ABOVE = 2  # folders above data.yaml in which runs are looked for
_BOX = 5  # numbers in a label: the class and the box
_OUTSIDE = 0.01  # by how much a label may lie outside of its image
_NO_OBJECT = -1.0


def signature(path: Path) -> str:
    """Return the identity of a description, of its data.yaml and of the network's.

    Raises:
        TaskError: The file is not of this form.
    """
    return _Description(path).digest


def load(path: Path) -> Task:
    """Load the task that a data.yaml, or a TOML file that names one, describes.

    Raises:
        TaskError: The file is not of this form, names files that are missing, or ultralytics is not
            installed.
    """
    return DetectionTask(_Description(path))


class _Description:
    """What a task file, its data.yaml and the checkpoint that it names say.

    Attributes:
        path: The file.
        name: What people call the task.
        size: Pixels of the longer side of an image.
        most: Detections in an image at most.
        limits: Which candidates are detections.
        network: What the network is built of.
        classes: How many classes it has.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        told: dict[str, Any] = {}
        self._text = ""
        self.name = path.stem
        if path.suffix.lower() == ".toml":
            file = TomlFile(path, _KEYS)
            told, self.name, self._text = file.told, file.name, file.digest()
            self.data_path = path.parent / file.text("data")
        else:
            self.data_path = path
        text = read_text(self.data_path)
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise TaskError(f"{self.data_path} is not valid YAML: {error}") from None
        if not isinstance(data, dict) or "val" not in data:
            raise TaskError(
                f"{self.data_path} needs `val`, the folder of the validation images, as in a "
                "data.yaml of Ultralytics."
            )
        self._data: dict[str, Any] = data
        checkpoint = _opened(self._model(told.get("model")))
        assert checkpoint.contents.network is not None  # noqa: S101 - _opened has checked it
        self.network = checkpoint.contents.network
        self.classes = int(self.network.get("nc", 0))
        self.size = int(_number(path, told, "imgsz", checkpoint.details.get("imgsz") or _SIZE))
        self.size = math.ceil(self.size / _STRIDE) * _STRIDE
        self.most = int(_number(path, told, "max_det", 300))
        self.limits = Limits(_number(path, told, "conf", 0.001), _number(path, told, "iou", 0.7))
        splits = told.get("splits") or {key: key for key in ("val", "test") if data.get(key)}
        self._splits: dict[str, str] = splits
        parts = [self._text, text, str(self.network), str(self.size)]
        self.digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _model(self, told: Any) -> Path:
        """Return the checkpoint whose description the network is built of."""
        if isinstance(told, str):
            return self.path.parent / told
        near = [self.path.resolve().parent, *self.path.resolve().parents[1 : 1 + _ABOVE]]
        for folder in near:
            for name in ("best.pt", "last.pt"):
                found = sorted(folder.glob(f"runs/**/weights/{name}"))
                if found:
                    return found[0]
        raise TaskError(
            f"No runs/detect/…/weights/best.pt lies beside {self.path} or in the two folders above "
            'it. Write a TOML file with data = "data.yaml" and model = "path/to/best.pt", a '
            "checkpoint of the sweep, and give that as the task."
        )

    def splits(self) -> dict[str, Split]:
        """Return the splits, whose images are decoded when they are first needed."""
        found = {}
        for name, key in self._splits.items():
            role: Role | None = "shift" if name.startswith("shift") else ROLES.get(name)
            if role is None or not isinstance(key, str) or not self._data.get(key):
                raise TaskError(
                    f"{self.path}: the split {name!r} is called val, test or shift/…, and its "
                    f"value is a key of {self.data_path} with images."
                )
            images = _labelled(self._files(self._data[key]), self.classes)
            dataset = _Images(images, self.size)
            found[name] = Split.from_dataset(role, dataset, version=dataset.identity)
        return found

    def _files(self, told: Any) -> list[Path]:
        """Return the image files that an entry of data.yaml stands for, in the order of names."""
        root = self.data_path.parent
        if self._data.get("path"):
            root = root / str(self._data["path"])
        files: list[Path] = []
        for each in told if isinstance(told, list) else [told]:
            place = root / str(each)
            if place.is_dir():
                files += place.rglob("*.*")
            elif place.is_file():
                lines = [line for line in read_text(place).splitlines() if line.strip()]
                files += [place.parent / line for line in lines]
            else:
                raise TaskError(
                    f"{place} does not exist. It is named in {self.data_path}; give paths relative "
                    "to that file, or to its `path`."
                )
        files = sorted(file for file in files if file.suffix[1:].lower() in _IMAGES)
        if not files:
            raise TaskError(f"{told!r} in {self.data_path} names no images.")
        return files


def _number(path: Path, told: dict[str, Any], key: str, default: Any) -> float:
    value = told.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise TaskError(f"{path}: `{key}` is a number above 0, not {value!r}.")
    return value


def _opened(path: Path) -> TorchCheckpoint:
    """Return a checkpoint of Ultralytics that describes a detector."""
    checkpoint = open_checkpoint(path)
    network = checkpoint.contents.network if isinstance(checkpoint, TorchCheckpoint) else None
    if network is None:
        raise TaskError(
            f"{path} has no description of an Ultralytics network, or one with layers that are not "
            "known to be harmless. Give as `model` a best.pt or last.pt that Ultralytics wrote."
        )
    head = (network.get("head") or [[None] * 4])[-1][2]
    if not isinstance(head, str) or not head.endswith("Detect") or head == "RTDETRDecoder":
        raise TaskError(
            f"{path} is no detector: its last layer is {head!r}. For segmentation, poses, oriented "
            "boxes and classification use a command task around `yolo val`."
        )
    if checkpoint.details.get("single_cls"):
        raise TaskError(
            f"{path} was trained with single_cls, which this task does not know. Use a command "
            "task around `yolo val`."
        )
    assert isinstance(checkpoint, TorchCheckpoint)  # noqa: S101 - others have no network
    return checkpoint


@dataclass(frozen=True)
class _Image:
    """An image file and its objects: a class and a box a row, shape [objects, 5].

    Boxes are centre, width and height, as shares of the image.
    """

    path: Path
    objects: NDArray[np.float32]


def _labelled(files: Iterable[Path], classes: int) -> list[_Image]:
    return [_Image(file, _objects(_label_file(file), classes)) for file in files]


def _label_file(image: Path) -> Path:
    """Return the file beside `images` with the labels of an image in it."""
    parts = list(image.with_suffix(".txt").parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


def _objects(path: Path, classes: int) -> NDArray[np.float32]:
    """Return the objects of a label file; none where there is no file. Equal ones count once."""
    if not path.is_file():
        return np.zeros((0, _BOX), dtype=np.float32)
    lines = [line.split() for line in read_text(path).splitlines() if line.strip()]
    try:
        rows = [np.array(line, dtype=np.float32) for line in lines]
    except ValueError:
        raise TaskError(f"{path} holds something that is no number.") from None
    if any(len(row) > _BOX + 1 for row in rows):
        rows = [np.concatenate([row[:1], _around(row[1:])]) for row in rows if len(row) % 2]
    if any(len(row) != _BOX for row in rows) or len(rows) != len(lines):
        raise TaskError(
            f"{path} needs five numbers a line, the class and the box, or a class and a polygon."
        )
    found = np.array(rows, dtype=np.float32).reshape(-1, _BOX)
    numbers, boxes = found[:, 0], found[:, 1:]
    if ((boxes > 1 + _OUTSIDE) | (boxes < -_OUTSIDE)).any() or (boxes[:, 2:] < 0).any():
        raise TaskError(f"{path} has a box outside of its image; boxes are shares, from 0 to 1.")
    if (numbers % 1 != 0).any() or (numbers < 0).any() or (numbers >= classes).any():
        raise TaskError(f"{path} has a class that is none of 0 to {classes - 1}.")
    alone = np.unique(found, axis=0)
    return alone if len(alone) < len(found) else found


def _around(polygon: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the box around a polygon: centre, width and height."""
    corners = polygon.reshape(-1, 2)
    low, high = corners.min(0), corners.max(0)
    return np.concatenate([(low + high) / 2, high - low])


class _Images(Dataset[Any]):
    """Images as the network is given them, and their objects in pixels.

    Args:
        images: The images.
        size: Pixels of the longer side.
    """

    def __init__(self, images: Sequence[_Image], size: int) -> None:
        self._images = images
        self._size = size
        self._most = max(1, *(len(image.objects) for image in images))
        self._canvases: list[tuple[int, int]] | None = None

    @property
    def identity(self) -> str:
        """A digest of the labels, the sizes of the image files, and the size that they get."""
        sha = hashlib.sha256(f"{self._size}".encode())
        for image in self._images:
            sha.update(f"{image.path.name} {image.path.stat().st_size}".encode())
            sha.update(image.objects.tobytes())
        return sha.hexdigest()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> tuple[dict[str, Tensor], Tensor]:
        import cv2  # comes with ultralytics

        image = self._images[row]
        pixels = _decoded(image.path)
        height, width = pixels.shape[:2]
        ratio = self._size / max(height, width)
        if ratio != 1:
            width, height = (min(math.ceil(side * ratio), self._size) for side in (width, height))
            pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
        tall, wide = self._canvas(row)
        # Half a pixel too many goes to the right and the bottom.
        top, left = (
            round((full - part) / 2 - 0.1) for full, part in ((tall, height), (wide, width))
        )
        canvas = np.full((tall, wide, 3), _GREY, dtype=np.uint8)
        canvas[top : top + height, left : left + width] = pixels
        objects = np.full((self._most, _BOX), _NO_OBJECT, dtype=np.float32)
        centres, sides = image.objects[:, 1:3], image.objects[:, 3:]
        scale, shift = np.array([width, height], "f4"), np.array([left, top], "f4")
        count = len(centres)
        objects[:count, 0] = image.objects[:, 0]
        objects[:count, 1:3] = (centres - sides / 2) * scale + shift
        objects[:count, 3:] = (centres + sides / 2) * scale + shift
        channels_first = np.ascontiguousarray(canvas.transpose(2, 0, 1)).ravel()
        inputs = {"pixels": torch.from_numpy(channels_first), "shape": torch.tensor([tall, wide])}
        return inputs, torch.from_numpy(objects)

    def _canvas(self, row: int) -> tuple[int, int]:
        """Return height and width that an image is padded to, with the others of its batch."""
        if self._canvases is None:
            self._canvases = _canvases([_shape(image.path) for image in self._images], self._size)
        return self._canvases[row]


def _margin(padding: int) -> int:
    """Return how many of some rows or columns of padding come first: half, or one less."""
    return padding // 2


def _canvases(shapes: Sequence[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Return the shape that each image is padded to.

    Images are put in batches of 16 in the order of height ⁄ width. All of a batch get one shape:
    the smallest one that holds each of them at its size, and half a stride more, in strides.

    Args:
        shapes: Height and width of each image.
        size: Pixels of the longer side.
    """
    ratios = np.array([height / width for height, width in shapes])
    order = ratios.argsort(kind="stable")
    found = [(0, 0)] * len(shapes)
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        flattest, tallest = ratios[rows].min(), ratios[rows].max()
        shares = (tallest, 1.0) if tallest < 1 else (1.0, 1 / flattest) if flattest > 1 else (1, 1)
        tall, wide = (math.ceil(share * size / _STRIDE + 0.5) * _STRIDE for share in shares)
        for row in rows:
            found[row] = (tall, wide)
    return found


def _shape(path: Path) -> tuple[int, int]:
    """Return the height and width of an image as it is seen, from its header."""
    from PIL import Image, UnidentifiedImageError

    turned = (5, 6, 7, 8)
    try:
        with Image.open(path) as image:
            width, height = image.size
            is_turned = image.getexif().get(274) in turned  # the tag of the orientation
    except (OSError, UnidentifiedImageError) as error:
        raise TaskError(f"{path} cannot be read as an image: {error}") from None
    return (width, height) if is_turned else (height, width)


def _decoded(path: Path) -> NDArray[np.uint8]:
    """Return an image in red, green and blue, shape [height, width, 3]."""
    import cv2

    found = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if found is None:
        raise TaskError(f"{path} cannot be read as an image.")
    pixels: NDArray[np.uint8] = found[..., ::-1]
    return np.ascontiguousarray(pixels)


@dataclass(frozen=True)
class _Predictions:
    """What a detector says of one image.

    Attributes:
        found: Centre, width, height, and a confidence for each class: shape [4 + classes, boxes].
        raw: What its loss is computed from.
    """

    found: Tensor
    raw: dict[str, Any]


class _Detector(nn.Module):
    """A network of Ultralytics that takes images of several shapes in one batch.

    Args:
        network: The network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        if hasattr(network, "end2end"):
            setattr(network, "end2end", False)  # noqa: B010 - no buffer; as `val` does: the head that is trained one-to-many

    def forward(self, pixels: Tensor, shape: Tensor) -> list[_Predictions]:
        """Return the predictions of each image.

        Args:
            pixels: Channels, rows and columns of each image, padded at the end: bytes, shape
                [m, values].
            shape: Height and width of each, shape [m, 2].
        """
        answers: list[_Predictions | None] = [None] * len(pixels)
        for height, width in sorted(set(map(tuple, shape.tolist()))):
            rows = (shape == shape.new_tensor([height, width])).all(1).nonzero().flatten()
            images = pixels[rows, : 3 * height * width].view(-1, 3, height, width)
            found, raw = self.network(images.float() / 255)
            raw = raw.get("one2many", raw)
            for place, row in enumerate(rows.tolist()):
                of_one = {"boxes": raw["boxes"], "scores": raw["scores"]}
                alone = {name: tensor[place : place + 1] for name, tensor in of_one.items()}
                alone["feats"] = [tensor[place : place + 1] for tensor in raw["feats"]]
                answers[row] = _Predictions(found[place], alone)
        return [answer for answer in answers if answer is not None]


class DetectionTask(Task):
    """Detection by a network of Ultralytics.

    The loss of an image is that of Ultralytics for a batch of it alone, of the one-to-many head and
    with the gains that are its defaults.
    """

    score_name = "negative loss"
    loss_name = "detection loss"
    has_gradients = False
    batch_size = _BATCH

    def __init__(self, told: _Description) -> None:
        _ultralytics(told.path)
        self._told = told
        super().__init__(self._build, told.splits(), name=told.name, metrics=DETECTION_METRICS)
        self.source_digest = told.digest
        self._criterion: Any = None

    def _build(self) -> nn.Module:
        from ultralytics.cfg import get_cfg
        from ultralytics.nn.tasks import DetectionModel
        from ultralytics.utils.loss import v8DetectionLoss

        description = copy.deepcopy(self._told.network)
        network = DetectionModel(description, ch=description.get("channels", 3), verbose=False)
        network.args = get_cfg()  # the gains of the loss
        self._criterion = v8DetectionLoss(network)
        return _Detector(network)

    def record(self, outputs: Any, inputs: Any, targets: Any) -> Tensor:
        """Return the record of each image (see `soupcore.tasks.detections`)."""
        most = max(self._told.most, targets.shape[1])
        rows = []
        for each, objects, shape in zip(outputs, targets, inputs["shape"], strict=True):
            centres, sides, scores = each.found.float().split([2, 2, len(each.found) - 4])
            boxes = torch.cat([centres - sides / 2, centres + sides / 2]).T.cpu().numpy()
            found = detect(boxes, scores.T.cpu().numpy(), self._told.limits, most)
            loss = self._loss_of(each, objects, shape)
            rows.append(record(found, objects.cpu().numpy(), most, loss))
        return torch.stack(rows)

    def _loss_of(self, each: _Predictions, objects: Tensor, shape: Tensor) -> float:
        objects = objects[objects[:, 0] >= 0]
        height, width = shape.tolist()
        scale = objects.new_tensor([width, height])
        low, high = objects[:, 1:3] / scale, objects[:, 3:] / scale
        batch = {
            "batch_idx": objects.new_zeros(len(objects)),
            "cls": objects[:, 0],
            "bboxes": torch.cat([(low + high) / 2, high - low], dim=1),
        }
        loss, _ = self._criterion(each.raw, batch)
        return float(loss.sum())

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each image."""
        return outputs[:, 0, 0]

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the number of detections of each image, and of those right at IoU 0.5."""
        return counts(outputs)


def _ultralytics(path: Path) -> None:
    try:
        import cv2  # noqa: F401
        import ultralytics  # noqa: F401
    except ImportError as error:
        raise TaskError(
            f"{path} needs the package ultralytics: pip install ultralytics ({error})."
        ) from None
