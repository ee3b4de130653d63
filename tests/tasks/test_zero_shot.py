"""Zero-shot classification by CLIP: transformers' own CLIP, and open_clip's, are the oracles."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from soupcore import Evaluator, Store, Sweep, TaskError, learned, load_task, uniform
from soupcore.checkpoints import open_checkpoint
from soupcore.mixtures import Mixture
from soupcore.tasks.zero_shot import Texts, ZeroShot, texts_of
from tests.tasks.toml_files import write_toml

WORDS = ["<pad>", "<s>", "</s>", "a", "photo", "of", "the", "tabby", "cat", "red", "dog", ".", "?"]
PROMPTS = ["a photo of a {}.", "the {}"]


class Encoders(nn.Module):
    """A toy network with two encoders."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Linear(6, 4)
        self.text = nn.Embedding(9, 4)
        self.logit_scale = nn.Parameter(torch.tensor(1.5))
        self.calls = 0

    def of_texts(self, tokens: Tensor) -> Tensor:
        self.calls += 1
        found: Tensor = self.text(tokens).sum(1)
        return found


@pytest.fixture
def toy() -> ZeroShot:
    torch.manual_seed(0)
    tokens = torch.randint(0, 9, (6, 3))  # three classes with two prompts each
    return ZeroShot(
        Encoders(),
        Texts(
            {"tokens": tokens},
            3,
            lambda network, images: network.visual(images.flatten(1)),
            lambda network, some: network.of_texts(some["tokens"]),
        ),
    )


def by_hand(network: Any, tokens: Tensor, images: Tensor) -> Tensor:
    logits = torch.zeros(len(images), 3)
    for number in range(3):
        prompts = [network.text(tokens[2 * number + i]).sum(0) for i in range(2)]
        mean = sum(each / each.norm() for each in prompts) / 2
        for row, image in enumerate(images):
            cosine = cosine_similarity(network.visual(image.flatten()), mean, dim=0)
            logits[row, number] = network.logit_scale.exp() * cosine
    return logits


def test_classes_are_compared_by_the_mean_of_their_prompts(toy: ZeroShot) -> None:
    network: Any = toy.encoders
    images = torch.randn(5, 3, 2)
    with torch.inference_mode():
        expected = by_hand(network, toy._texts.tokens["tokens"], images)
        torch.testing.assert_close(toy(images), expected)
        network.calls = 0
        toy(images)
        assert network.calls == 0  # the text encoder has not changed
        network.visual.weight.add_(1)
        toy(images)
        assert network.calls == 0
        network.text.weight[3] += 0.5
        expected = by_hand(network, toy._texts.tokens["tokens"], images)
        torch.testing.assert_close(toy(images), expected)
        assert network.calls == 1
    with torch.enable_grad():
        toy(images).sum().backward()
    assert float(network.text.weight.grad.abs().sum()) > 0


def test_prompts_have_a_place_for_the_name(toy: ZeroShot) -> None:
    assert texts_of(Path("a.toml"), ["cat", "dog"], ["a {}", "{}!"]) == [
        "a cat", "cat!", "a dog", "dog!",
    ]  # fmt: skip
    with pytest.raises(TaskError, match=r"the prompt 'a photo' needs \{\}"):
        texts_of(Path("a.toml"), ["cat"], ["a photo"])
    with pytest.raises(TypeError, match="no tracing"):
        toy(torch.fx.Proxy(torch.fx.Graph().placeholder("x")))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for split in ("val", "test"):
        for name in ("red_dog", "tabby_cat"):
            for group in ("day", "night"):
                folder = tmp_path / split / name / group
                folder.mkdir(parents=True)
                for number in range(2):
                    pixels = generator.integers(0, 256, (24, 20, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path


def describe(folder: Path, **settings: Any) -> str:
    return write_toml("imagefolder", folder, {"val": "val", "test": "test"}, **settings)


@pytest.mark.integration
def test_a_sweep_of_clip_is_scored_without_a_head(images: Path, store: Store) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    config = transformers.CLIPConfig(
        text_config={
            "vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 32,
            "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 12,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        },
        vision_config={
            "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": 16, "patch_size": 8,
        },
        projection_dim=8,
    )  # fmt: skip
    words = tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, "<pad>")
    splitting = tokenizers.Tokenizer(words)
    splitting.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    splitting.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=splitting, **special)
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    )
    runs = images / "runs"
    for number in range(3):
        torch.manual_seed(number)
        transformers.CLIPModel(config).save_pretrained(runs / f"run{number}")
        tokenizer.save_pretrained(runs / f"run{number}")
        processor.save_pretrained(runs / f"run{number}")
    spec = describe(
        images, model="runs/run0", prompts=PROMPTS, group="folder",
        metrics=["accuracy", "worst-group accuracy", "accuracy by group"],
    )  # fmt: skip
    task = load_task(spec)
    sweep = Sweep.from_folder(runs)
    evaluator = Evaluator(task, store, device="cpu")
    files = sorted((images / "val").rglob("*.png"))
    reader = transformers.AutoImageProcessor.from_pretrained(runs / "run0", backend="pil")
    for run in sweep.names():
        model = transformers.CLIPModel.from_pretrained(runs / run).eval()
        pixels = reader([Image.open(file) for file in files], return_tensors="pt")
        expected = torch.zeros(len(files), 2)
        for number, name in enumerate(["red dog", "tabby cat"]):
            rows = []
            for prompt in PROMPTS:
                tokens = tokenizer(prompt.replace("{}", name), return_tensors="pt")
                with torch.no_grad():
                    both = model(
                        input_ids=tokens["input_ids"],
                        attention_mask=tokens["attention_mask"],
                        pixel_values=pixels["pixel_values"],
                    )
                rows.append(both.text_embeds[0])
            mean = normalize(torch.stack(rows).mean(0), dim=0)
            expected[:, number] = model.logit_scale.exp().item() * both.image_embeds @ mean
        found = evaluator.evaluate(sweep[run].mixture, "val")
        torch.testing.assert_close(found.outputs, expected, rtol=1e-4, atol=1e-4)
    assert task.split("val").groups == ("day", "day", "night", "night") * 2
    right = found.scores
    by_group = [float(right[rows].mean()) for rows in ([0, 1, 4, 5], [2, 3, 6, 7])]
    assert found.all_scores["worst-group accuracy"] == pytest.approx(min(by_group))
    assert found.all_scores["accuracy, night"] == pytest.approx(by_group[1])
    assert uniform(sweep).evaluate(evaluator).evaluations["test"].n == 8
    assert learned(sweep, evaluator, passes=2).evaluations["val"].n == 8  # gradients pass both
    rows = ["image,group", *(f"{f.relative_to(images)},{f.stem}" for f in images.rglob("*.png"))]
    (images / "groups.csv").write_text("\n".join(rows))
    spec = describe(images, model="runs/run0", group="groups.csv", class_names=["dog", "cat"])
    assert load_task(spec).split("test").groups == ("0", "1") * 4


@pytest.mark.integration
def test_a_network_of_open_clip_is_scored_without_a_head(images: Path, store: Store) -> None:
    open_clip = pytest.importorskip("open_clip", exc_type=ImportError)
    torch.manual_seed(0)
    network, _, transform = open_clip.create_model_and_transforms("RN50", pretrained=None)
    network.eval()
    torch.save(network.state_dict(), images / "run.pt")
    spec = describe(images, architecture="open_clip:RN50", prompts=PROMPTS)
    evaluator = Evaluator(load_task(spec), store, device="cpu")
    found = evaluator.evaluate(Mixture([(open_checkpoint(images / "run.pt"), 1)]), "val")
    files = sorted((images / "val").rglob("*.png"))
    tokenize = open_clip.get_tokenizer("RN50")
    with torch.no_grad():
        pixels = torch.stack([transform(Image.open(file)) for file in files])
        seen = network.encode_image(pixels, normalize=True)
        heads = [
            network.encode_text(tokenize([p.replace("{}", name) for p in PROMPTS]), normalize=True)
            for name in ("red dog", "tabby cat")
        ]
        means = normalize(torch.stack([head.mean(0) for head in heads]), dim=1)
        expected = network.logit_scale.exp() * seen @ means.T
    torch.testing.assert_close(found.outputs, expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(TaskError, match=r"open_clip has no architecture 'ViT-Z'"):
        load_task(describe(images, architecture="open_clip:ViT-Z"))
    with pytest.raises(TaskError, match=r"the tokenizer of .* would be downloaded"):
        load_task(describe(images, architecture="open_clip:roberta-ViT-B-32"))
