"""Detectors of Ultralytics, described by the data.yaml that they were trained with.

`ultralytics:data.yaml` evaluates on the images of `val` and, if there are any, of `test`. The
network is built from the description in a checkpoint, and no code in the checkpoint is run. It is
the first `best.pt` or `last.pt` below `runs`, in the folder of data.yaml or one of the two above
it. With a TOML file, `ultralytics:yolo.toml`, all of that can be chosen:

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

`precision = "bfloat16"` evaluates in another precision than float32 (see `Task`). Without test
images, `hold_out = 0.3` holds out 30 % of the images of `val` for reporting, drawn with the seed
`hold_out_seed = 0`.

The numbers are those of `YOLO(checkpoint).val()`: images are padded in batches of 16 of similar
shape, predictions are those of the one-to-many head, and non-maximum suppression has no time limit.
An image or a label that cannot be read is an error here.
"""

import copy
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from soupcore.checkpoints import open_checkpoint
from soupcore.checkpoints.torch_format import TorchCheckpoint
from soupcore.errors import TaskError
from soupcore.tasks.description import Role
from soupcore.tasks.detections import DETECTION_METRICS, Limits, counts, detect, record
from soupcore.tasks.networks import Precision
from soupcore.tasks.splits import Split
from soupcore.tasks.task import Task
from soupcore.tasks.toml_file import COMMON_KEYS, ROLES, TomlFile, read_text
from soupcore.tasks.yolo_images import BATCH, STRIDE, SUFFIXES, Images, labelled

_KEYS = {"data", "model", "imgsz", "iou", "conf", "max_det", "splits", "name", *COMMON_KEYS}
_SIZE = 640  # pixels, the default
_ABOVE = 2  # folders above data.yaml to search for runs


def signature(path: Path) -> str:
    """Return the identity of a description, of its data.yaml and of the network's description.

    Raises:
        TaskError: The file is invalid.
    """
    return _Description(path).digest


def load(path: Path) -> Task:
    """Load the task that a data.yaml, or a TOML file that names one, describes.

    Raises:
        TaskError: The file is invalid or names missing files, or ultralytics is not installed.
    """
    return DetectionTask(_Description(path))


class _Description:
    """The contents of a task file, its data.yaml and its checkpoint.

    Attributes:
        path: The file.
        name: Name of the task, for display.
        size: Pixels of the longer side of an image.
        most: Maximum number of detections in an image.
        limits: The limits of non-maximum suppression.
        network: The description of the network.
        classes: Number of its classes.
        precision: Precision of evaluation.
        digest: Identity of the task except for its images: 64 hex digits.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        settings: dict[str, Any] = {}
        self._text = ""
        self.name = path.stem
        self.precision: Precision = "float32"
        self._file: TomlFile | None = None
        if path.suffix.lower() == ".toml":
            file = self._file = TomlFile(path, _KEYS)
            settings, self.name, self._text = file.settings, file.name, file.digest()
            self.precision = file.precision
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
        self._splits = settings.get("splits") or {k: k for k in ("val", "test") if data.get(k)}
        if not isinstance(self._splits, dict):
            raise TaskError(f'{path} needs a table [splits], such as val = "val".')
        checkpoint = _opened(self._model(settings.get("model")))
        assert checkpoint.contents.network is not None  # noqa: S101 - _opened has checked it
        self.network = checkpoint.contents.network
        self.classes = int(self.network.get("nc", 0))
        self.size = int(_number(path, settings, "imgsz", checkpoint.details.get("imgsz") or _SIZE))
        self.size = math.ceil(self.size / STRIDE) * STRIDE
        self.most = int(_number(path, settings, "max_det", 300))
        self.limits = Limits(
            _number(path, settings, "conf", 0.001), _number(path, settings, "iou", 0.7)
        )
        parts = [self._text, text, str(self.network), str(self.size)]
        self.digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _model(self, named: Any) -> Path:
        """Return the checkpoint with the description of the network."""
        if isinstance(named, str):
            return self.path.parent / named
        near = [self.path.resolve().parent, *self.path.resolve().parents[1 : 1 + _ABOVE]]
        for folder in near:
            for name in ("best.pt", "last.pt"):
                found = sorted(folder.glob(f"runs/**/weights/{name}"))
                if found:
                    return found[0]
        raise TaskError(
            f"No runs/detect/…/weights/best.pt was found beside {self.path} or in the two folders "
            'above it. Write a TOML file with data = "data.yaml" and model = "path/to/best.pt", a '
            "checkpoint of the sweep, and use that file as the task."
        )

    def splits(self) -> dict[str, Split]:
        """Return the splits, whose images are decoded when first needed."""
        found = {}
        for name, key in self._splits.items():
            role: Role | None = "shift" if name.startswith("shift") else ROLES.get(name)
            if role is None or not isinstance(key, str) or not self._data.get(key):
                raise TaskError(
                    f"{self.path}: the split {name!r} must be called val, test or shift/…, and its "
                    f"value must be a key of {self.data_path} with images."
                )
            images = labelled(self._files(self._data[key]), self.classes)
            dataset = Images(images, self.size)
            found[name] = Split.from_dataset(role, dataset, version=dataset.identity)
        return found if self._file is None else self._file.held_out(found)

    def _files(self, entry: Any) -> list[Path]:
        """Return the image files of an entry of data.yaml, sorted by name."""
        root = self.data_path.parent
        if self._data.get("path"):
            root = root / str(self._data["path"])
        files: list[Path] = []
        for each in entry if isinstance(entry, list) else [entry]:
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
        files = sorted(file for file in files if file.suffix[1:].lower() in SUFFIXES)
        if not files:
            raise TaskError(f"{entry!r} in {self.data_path} names no images.")
        return files


def _number(path: Path, settings: dict[str, Any], key: str, default: Any) -> float:
    value = settings.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise TaskError(f"{path}: `{key}` must be a number > 0, not {value!r}.")
    return value


def _opened(path: Path) -> TorchCheckpoint:
    """Return a checkpoint of Ultralytics that describes a detector."""
    checkpoint = open_checkpoint(path)
    network = checkpoint.contents.network if isinstance(checkpoint, TorchCheckpoint) else None
    if network is None:
        raise TaskError(
            f"{path} has no description of an Ultralytics network, or one with layers that are not "
            "known to be safe. `model` must be a best.pt or last.pt written by Ultralytics."
        )
    head = (network.get("head") or [[None] * 4])[-1][2]
    if not isinstance(head, str) or not head.endswith("Detect"):
        raise TaskError(
            f"{path} is not a detector: its last layer is {head!r}. For segmentation, poses, "
            "oriented boxes and classification use a command task around `yolo val`."
        )
    if checkpoint.details.get("single_cls"):
        raise TaskError(
            f"{path} was trained with single_cls, which this task does not support. Use a command "
            "task around `yolo val`."
        )
    assert isinstance(checkpoint, TorchCheckpoint)  # noqa: S101 - others have no network
    return checkpoint


@dataclass(frozen=True)
class _Predictions:
    """The predictions of a detector for one image.

    Attributes:
        found: Centre, width, height, and a confidence for each class: shape [4 + classes, boxes].
        raw: The inputs of its loss.
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
            setattr(network, "end2end", False)  # noqa: B010 - not a buffer; as `val` does

    def forward(self, pixels: Tensor, shape: Tensor) -> list[_Predictions]:
        """Return the predictions of each image.

        Args:
            pixels: Channels, rows and columns of each image, padded at the end: bytes, shape
                [m, values].
            shape: Height and width of each, shape [m, 2].
        """
        answers: list[_Predictions | None] = [None] * len(pixels)
        dtype = next(self.network.parameters()).dtype
        for height, width in sorted(set(map(tuple, shape.tolist()))):
            rows = (shape == shape.new_tensor([height, width])).all(1).nonzero().flatten()
            images = pixels[rows, : 3 * height * width].view(-1, 3, height, width)
            found, raw = self.network(images.to(dtype) / 255)
            raw = raw.get("one2many", raw)
            for place, row in enumerate(rows.tolist()):
                of_one = {"boxes": raw["boxes"], "scores": raw["scores"]}
                alone = {name: tensor[place : place + 1].float() for name, tensor in of_one.items()}
                alone["feats"] = [tensor[place : place + 1].float() for tensor in raw["feats"]]
                answers[row] = _Predictions(found[place], alone)
        return [answer for answer in answers if answer is not None]


class DetectionTask(Task):
    """Detection by a network of Ultralytics.

    The loss of an image is that of Ultralytics for a batch of one, with the one-to-many head and
    the default gains.
    """

    score_name = "negative loss"
    loss_name = "detection loss"
    has_gradients = False
    batch_size = BATCH

    def __init__(self, description: _Description) -> None:
        _ultralytics(description.path)
        self._description = description
        super().__init__(
            self._build,
            description.splits(),
            name=description.name,
            metrics=DETECTION_METRICS,
            precision=description.precision,
        )
        self.source_digest = description.digest
        self._criteria: list[Any] = []  # the loss of the network; copies of the task share it

    def _build(self) -> nn.Module:
        from ultralytics.cfg import get_cfg
        from ultralytics.nn.tasks import DetectionModel
        from ultralytics.utils.loss import v8DetectionLoss

        description = copy.deepcopy(self._description.network)
        network = DetectionModel(description, ch=description.get("channels", 3), verbose=False)
        network.args = get_cfg()  # the gains of the loss
        self._criteria[:] = [v8DetectionLoss(network)]
        return _Detector(network)

    def record(self, outputs: Any, inputs: Any, targets: Any) -> Tensor:
        """Return the record of each image (see `soupcore.tasks.detections`)."""
        most = max(self._description.most, targets.shape[1])
        rows = []
        for each, objects, shape in zip(outputs, targets, inputs["shape"], strict=True):
            centres, sides, scores = each.found.float().split([2, 2, len(each.found) - 4])
            boxes = torch.cat([centres - sides / 2, centres + sides / 2]).T.cpu().numpy()
            found = detect(boxes, scores.T.cpu().numpy(), self._description.limits, most)
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
        # In float32 also under autocast: the loss is not part of the network.
        with torch.autocast(objects.device.type, enabled=False):
            loss, _ = self._criteria[0](each.raw, batch)
        return float(loss.sum())

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each image."""
        return outputs[:, 0, 0]

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the number of detections of each image, and of those correct at IoU 0.5."""
        return counts(outputs)


def _ultralytics(path: Path) -> None:
    try:
        import cv2  # noqa: F401
        import ultralytics  # noqa: F401
    except ImportError as error:
        raise TaskError(
            f"{path} needs the package ultralytics: pip install ultralytics ({error})."
        ) from None
