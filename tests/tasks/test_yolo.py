"""Tasks of Ultralytics: their files, and by the numbers of `val()` where it can run."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from soupcore.errors import TaskError
from soupcore.tasks.loading import load_task, task_signature
from soupcore.tasks.yolo_images import canvases, label_file, labelled


@pytest.mark.parametrize(
    ("shapes", "size", "expected"),
    [
        ([(64, 64)], 64, [(96, 96)]),
        ([(480, 640)] * 2, 640, [(512, 672)] * 2),
        ([(640, 480)], 640, [(672, 512)]),
        ([(480, 640), (640, 480)], 640, [(672, 672)] * 2),
        ([(640, 480)] + [(480, 640)] * 16, 640, [(672, 512)] + [(512, 672)] * 16),
    ],
)
def test_images_are_padded_by_batches_of_similar_shape(
    shapes: list[tuple[int, int]], size: int, expected: list[tuple[int, int]]
) -> None:
    assert canvases(shapes, size) == expected


def test_labels_lie_beside_the_last_folder_of_images() -> None:
    assert label_file(Path("/images/a/images/val/x.y.png")) == Path("/images/a/labels/val/x.y.txt")
    assert label_file(Path("/data/x.png")) == Path("/data/x.txt")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 .5 .5 .2 .4\n", [[0, 0.5, 0.5, 0.2, 0.4]]),
        ("1 .5 .5 .2 .4\n\n1 .5 .5 .2 .4\n", [[1, 0.5, 0.5, 0.2, 0.4]]),
        ("1 .2 .1 .6 .1 .4 .5\n", [[1, 0.4, 0.3, 0.4, 0.4]]),
        ("", []),
    ],
)
def test_labels_are_boxes_or_polygons(
    tmp_path: Path, text: str, expected: list[list[float]]
) -> None:
    (tmp_path / "x.txt").write_text(text)
    (image,) = labelled([tmp_path / "x.png"], 2)
    np.testing.assert_allclose(image.objects, np.reshape(expected, (-1, 5)), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("2 .5 .5 .2 .4", "class numbers must be 0 to 1"),
        ("0 5 5 2 4", "outside of its image"),
        ("0 .5 .5 .2", "five numbers per line"),
        ("0 .5 .5 .2 x", "not a number"),
        ("0.5 .5 .5 .2 .2", "class numbers must be 0 to 1"),
    ],
)
def test_a_label_that_cannot_be_used_is_an_error(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "x.txt").write_text(text)
    with pytest.raises(TaskError, match=problem):
        labelled([tmp_path / "x.png"], 2)


def test_files_that_describe_no_task_say_what_to_do(tmp_path: Path) -> None:
    data = tmp_path / "a" / "b" / "data.yaml"
    data.parent.mkdir(parents=True)
    data.write_text("val: images/val\nnames: [circle, square]\n")
    with pytest.raises(TaskError, match="Write a TOML file with data"):
        task_signature(f"ultralytics:{data}")
    weights = tmp_path / "a" / "runs" / "detect" / "train" / "weights" / "best.pt"
    weights.parent.mkdir(parents=True)
    torch.save({"model": {"w": torch.ones(1)}}, weights)
    with pytest.raises(TaskError, match="no description of an Ultralytics network"):
        load_task(f"ultralytics:{data}")
    data.write_text("names: [circle, square]\n")
    with pytest.raises(TaskError, match="needs `val`"):
        load_task(f"ultralytics:{data}")
    file = tmp_path / "yolo.toml"
    file.write_text('data = "a/b/data.yaml"\nimgz = 64\n')
    with pytest.raises(TaskError, match="unknown setting imgz; "):
        load_task(f"ultralytics:{file}")
    data.write_text("val: images/val\n")
    file.write_text('data = "a/b/data.yaml"\nsplits = "val"\n')
    with pytest.raises(TaskError, match=r"needs a table \[splits\], such as val = "):
        load_task(f"ultralytics:{file}")


def made(tmp_path: Path) -> tuple[Path, Path]:
    """Return the data.yaml and the checkpoint of a detector, with nine images a split."""
    import cv2
    from ultralytics.nn.tasks import DetectionModel

    rng = np.random.default_rng(0)
    for split in ("val", "test"):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        for number in range(9):
            height, width = [(64, 64), (48, 80), (100, 60)][number % 3]
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / "images" / split / f"{number}.png"), pixels)
            lines = [
                f"{k % 2} {x:.3f} {y:.3f} .3 .4\n"
                for k, (x, y) in enumerate(rng.uniform(0.3, 0.7, (4, 2)))
            ]
            (tmp_path / "labels" / split / f"{number}.txt").write_text("".join(lines))
    data = tmp_path / "data.yaml"
    data.write_text(
        f"path: {tmp_path}\ntrain: images/val\nval: images/val\ntest: images/test\nnames: [a, b]\n"
    )
    torch.manual_seed(0)
    network = DetectionModel("yolov8n.yaml", nc=2, verbose=False)
    weights = tmp_path / "runs" / "detect" / "train" / "weights" / "best.pt"
    weights.parent.mkdir(parents=True)
    with torch.no_grad():  # sure of something, so that there are detections to match
        for head in network.model[-1].cv3:
            head[-1].bias.fill_(1.0)
    torch.save({"model": network, "train_args": {"imgsz": 64, "task": "detect"}}, weights)
    return data, weights


@pytest.mark.integration
def test_the_numbers_are_those_of_val(tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="ultralytics decodes images with opencv-python")
    torchvision = pytest.importorskip("torchvision", reason="val() needs torchvision")
    try:
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (RuntimeError, AttributeError):
        pytest.skip("torchvision's operators do not load beside this build of torch")
    from ultralytics import YOLO

    from soupcore.checkpoints import open_checkpoint
    from soupcore.evaluation import Evaluator
    from soupcore.mixtures import Mixture

    data, weights = made(tmp_path)
    task = load_task(f"ultralytics:{data}")
    evaluator = Evaluator(task, device="cpu")
    point = Mixture([(open_checkpoint(weights), 1)])
    shutil.copytree(tmp_path / "images", tmp_path / "copy" / "images")  # val() writes caches
    shutil.copytree(tmp_path / "labels", tmp_path / "copy" / "labels")
    copied = tmp_path / "copy" / "data.yaml"
    copied.write_text(data.read_text().replace(str(tmp_path), str(tmp_path / "copy")))
    for split in ("val", "test"):
        found = evaluator.evaluate(point, split)
        truth = YOLO(weights).val(
            data=str(copied),
            imgsz=64,
            split=split,
            plots=False,
            device="cpu",
            project=str(tmp_path / "out"),
        )
        assert found.all_scores == pytest.approx(
            {
                "mAP50-95": truth.box.map,
                "mAP50": truth.box.map50,
                "precision": truth.box.mp,
                "recall": truth.box.mr,
            },
            abs=1e-6,
        )


@pytest.mark.integration
def test_detectors_are_evaluated_in_half_precision_and_on_held_out_images(tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="ultralytics decodes images with opencv-python")
    pytest.importorskip("ultralytics")
    from soupcore.checkpoints import open_checkpoint
    from soupcore.evaluation import Evaluator
    from soupcore.mixtures import Mixture

    data, weights = made(tmp_path)
    data.write_text(data.read_text().replace("test: images/test\n", ""))
    point = Mixture([(open_checkpoint(weights), 1)])
    file = tmp_path / "yolo.toml"
    found = {}
    for precision in ("float32", "bfloat16", "bfloat16 autocast"):
        file.write_text(f'data = "data.yaml"\nprecision = "{precision}"\nhold_out = 0.34\n')
        task = load_task(f"ultralytics:{file}")
        assert {name: (s.role, len(s)) for name, s in task.splits.items()} == {
            "val": ("select", 6), "report": ("report", 3),
        }  # fmt: skip
        evaluator = Evaluator(task.with_primary("mAP50"), device="cpu")  # a copy of the task
        found[precision] = evaluator.evaluate(point, "report")
    whole = Evaluator(load_task(f"ultralytics:{data}"), device="cpu").evaluate(point, "val")
    alone = whole.losses[task.rows_of("report")]
    assert found["float32"].losses.tolist() == pytest.approx(alone.tolist(), rel=1e-5)
    for precision in ("bfloat16", "bfloat16 autocast"):
        assert found[precision].loss == pytest.approx(found["float32"].loss, rel=0.05)
        assert found[precision].loss != found["float32"].loss
        assert len(found[precision].task_key) == 64
    assert len({each.task_key for each in found.values()}) == 3
    file.write_text('data = "data.yaml"\nhold_out = 2\n')
    with pytest.raises(TaskError, match="`hold_out`: The share to hold out must be between 0"):
        load_task(f"ultralytics:{file}")
    file.write_text('data = "data.yaml"\nprecision = "half"\n')
    with pytest.raises(TaskError, match=r"The `precision` of .* must be one of float32, bfloat16"):
        load_task(f"ultralytics:{file}")
