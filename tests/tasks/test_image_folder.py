"""Image folders: their descriptions, and images as timm and torchvision prepare them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from soupcore import ClassificationTask, Evaluator, Store, TaskError, load_task
from soupcore.checkpoints import open_checkpoint
from soupcore.mixtures import Mixture
from soupcore.tasks.images import Preprocessing, picture_split
from soupcore.tasks.parts import hold_out
from tests.tasks.toml_files import write_toml
from tests.toy import build_model

RNG = np.random.default_rng(0)


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, names in {"val": ("cat", "dog"), "test": ("dog",)}.items():
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(3):
                picture(40, 30).save(tmp_path / split / name / f"{number}.png")
    return tmp_path


def describe(folder: Path, **settings: Any) -> str:
    splits = {"val": "val", "test": "test"}
    return write_toml("imagefolder", folder, **{"splits": splits} | settings)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({}, "needs one of architecture, checkpoint, model"),
        ({"architecture": "timm:a", "model": "b"}, "needs one of"),
        ({"architecture": "resnet18"}, r"is such as \"timm:resnet18\""),
        ({"model": "runs"}, r"runs/config\.json does not exist"),
        ({"checkpoint": "plain.pt"}, "does not say its architecture"),
        ({"architecture": "timm:a", "splits": {"val": "nowhere"}}, "nowhere does not exist"),
        ({"architecture": "timm:a", "sise": 3}, "unknown setting sise; "),
        ({"architecture": "timm:a", "group": "folder"}, "0.png is not in a group folder"),
        ({"architecture": "timm:a", "group": "nowhere.csv"}, r"nowhere\.csv cannot be read"),
        ({"architecture": "timm:a", "group": "a.csv"}, r"a\.csv needs the columns image and group"),
        ({"architecture": "timm:a", "group": "b.csv"}, r"b\.csv has no group of .*val/cat/1\.png"),
        ({"architecture": "timm:a", "prompts": ["a {}"]}, "prompts need a CLIP"),
        ({"architecture": "timm:a", "class_names": ["a", "b"]}, "class_names need a CLIP"),
    ],
)
def test_a_description_of_another_form_is_refused(
    folder: Path, told: dict[str, Any], words: str
) -> None:
    torch.save({"w": torch.ones(1)}, folder / "plain.pt")
    (folder / "a.csv").write_text("file,group\n")
    (folder / "b.csv").write_text("image,group\nval/cat/0.png,day\n")
    with pytest.raises(TaskError, match=words):
        load_task(describe(folder, **told))


@pytest.mark.parametrize(
    ("size", "resize", "squash", "sides"),
    [
        ((20, 20), 24, False, (32, 24)),
        ((24, 16), 16, False, (21, 16)),  # higher than the resized image: black beyond it
        ((20, 20), 24, True, (24, 24)),
    ],
)
def test_an_image_is_resized_and_cropped_in_its_middle(
    size: tuple[int, int], resize: int, squash: bool, sides: tuple[int, int]
) -> None:
    image = picture(40, 30)
    found = Preprocessing(size, resize, is_squashed=squash)(image)
    assert (found.shape, found.dtype) == ((3, *size), torch.uint8)
    whole = np.array(image.resize(sides, Image.Resampling.BILINEAR))
    pad = max(0, size[0] - whole.shape[0])
    whole = np.pad(whole, ((pad // 2, pad - pad // 2), (0, 0), (0, 0)))
    top, left = (whole.shape[0] - size[0]) // 2, round((whole.shape[1] - size[1]) / 2)
    expected = whole[top : top + size[0], left : left + size[1]]
    np.testing.assert_array_equal(found.permute(1, 2, 0), expected)


def test_bytes_are_normalised_on_the_device() -> None:
    how = Preprocessing((2, 2), 2, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0))
    batch = torch.full((1, 3, 2, 2), 51, dtype=torch.uint8)
    assert how.normalise(batch)[0, :, 0, 0].tolist() == pytest.approx([0.2, 0.0, -0.1], abs=1e-6)
    with pytest.raises(TaskError, match="interpolation must be one of"):
        Preprocessing((2, 2), 2, interpolation="cubic")


def test_images_are_decoded_once_and_their_files_are_named(folder: Path) -> None:
    files = sorted((folder / "val").rglob("*.png"))
    how = Preprocessing((8, 8), 8)
    split = picture_split("select", files, [0, 0, 0, 1, 1, 1], how, "how", how.normalise)
    assert split.inputs.shape == (6, 3, 8, 8)
    assert torch.equal(split.inputs[4], how(Image.open(files[4])))
    assert split.targets.tolist() == [0, 0, 0, 1, 1, 1]
    files[2].write_bytes(b"no image")
    broken = picture_split("select", files, [0] * 6, how, "how")
    with pytest.raises(TaskError, match=r"2\.png cannot be read as an image"):
        broken.load()
    with pytest.raises(TaskError, match=r"9\.png does not exist"):
        picture_split("select", [folder / "9.png"], [0], how, "how")


def test_an_image_is_shown_small_with_its_class(folder: Path) -> None:
    picture(600, 300).save(folder / "val" / "dog" / "1.png")
    files = sorted((folder / "val").rglob("*.png"))
    how = Preprocessing((8, 8), 8)
    classes, names = [0, 0, 0, 1, 1, 1], ["cat"] * 3 + ["dog"] * 3
    whole = picture_split("select", files, classes, how, "how", how.normalise, names=names)
    assert whole.shown is not None
    wide = whole.shown(4)
    assert (wide.text, wide.image is not None and wide.image.shape) == ("dog", (128, 256, 3))
    task = ClassificationTask(build_model, hold_out({"val": whole}, 0.5))
    assert task.describe().shows_examples
    rows = {name: part.rows.tolist() for name, part in task.splits.items()}  # type: ignore[attr-defined]
    assert sorted(rows["val"] + rows["report"]) == [*range(6)]
    for split, chosen in rows.items():
        for index, row in enumerate(chosen):
            found = task.show(split, index)
            assert found.text == names[row]
            assert found.image is not None
            if row != 4:
                np.testing.assert_array_equal(found.image, np.array(Image.open(files[row])))
    unnamed = picture_split("select", files, classes, how, "how")
    assert unnamed.shown is not None
    assert unnamed.shown(5).text == "1"


@pytest.mark.integration
@pytest.mark.parametrize("source", ["timm:resnet18", "torchvision:resnet18", "checkpoint"])
def test_networks_of_timm_and_torchvision_get_their_preprocessing(
    folder: Path, store: Store, source: str
) -> None:
    timm = pytest.importorskip("timm", exc_type=ImportError)
    torchvision = pytest.importorskip("torchvision")
    from timm.data import create_transform, resolve_data_config

    torch.manual_seed(0)
    if source == "torchvision:resnet18":
        network = torchvision.models.resnet18(num_classes=2).eval()
        transform = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    else:
        network = timm.create_model("resnet18", num_classes=2).eval()
        settings = {"crop_pct": 0.9, "img_size": 64} if source == "checkpoint" else {}
        transform = create_transform(**resolve_data_config(settings, model=network))
    weights = folder / "run.pth.tar"
    arguments = {"model": "resnet18", "crop_pct": 0.9, "img_size": 64}
    torch.save({"state_dict": network.state_dict(), "args": arguments}, weights)
    told = {"checkpoint": "run.pth.tar"} if source == "checkpoint" else {"architecture": source}
    task = load_task(describe(folder, **told))
    evaluator = Evaluator(task, store, device="cpu")
    found = evaluator.evaluate(Mixture([(open_checkpoint(weights), 1)]), "val")
    files = sorted((folder / "val").rglob("*.png"))
    with torch.no_grad():
        expected = network(torch.stack([transform(Image.open(f).convert("RGB")) for f in files]))
    torch.testing.assert_close(found.outputs, expected, rtol=1e-4, atol=1e-4)
    assert task.split("test").targets.tolist() == [1, 1, 1]
    shown = task.show("test", 2)
    assert shown.text == "dog"
    assert shown.image is not None
    np.testing.assert_array_equal(shown.image, np.array(Image.open(folder / "test/dog/2.png")))
