from pathlib import Path

import pytest
import torch

from soupcore import SweepError
from soupcore.sweeps.tensor_rule import BUT_EMBEDDINGS, BUT_HEAD, left_out
from tests.helpers import Held

TIMM = ["cls_token", "patch_embed.proj.weight", "blocks.0.fc.weight", "head.weight", "head.bias"]
BERT = [
    "bert.embeddings.word_embeddings.weight",
    "bert.encoder.layer.0.output.dense.weight",
    "bert.pooler.dense.weight",
    "classifier.weight",
]
GPT = ["transformer.wte.weight", "transformer.h.0.mlp.weight", "lm_head.weight"]
YOLO = ["model.0.conv.weight", "model.9.conv.weight", "model.23.cv2.weight", "model.23.cv3.bias"]
PLAIN = ["0.weight", "2.weight", "10.weight", "10.bias"]


@pytest.mark.parametrize(
    ("names", "take", "wanted"),
    [
        (TIMM, "all", []),
        (TIMM, BUT_HEAD, TIMM[3:]),
        (TIMM, BUT_EMBEDDINGS, TIMM[:2]),
        (BERT, BUT_HEAD, BERT[3:]),
        (BERT, BUT_EMBEDDINGS, BERT[:1]),
        (GPT, BUT_HEAD, GPT[2:]),
        (GPT, BUT_EMBEDDINGS, GPT[:1]),
        ([f"module.{name}" for name in BERT], BUT_HEAD, ["module.classifier.weight"]),
        (YOLO, BUT_HEAD, YOLO[2:]),
        (PLAIN, BUT_HEAD, PLAIN[2:]),
        (TIMM, "blocks.", [name for name in TIMM if not name.startswith("blocks.")]),
        (TIMM, "*.weight", ["cls_token", "head.bias"]),
        (TIMM, "!*.bias", ["head.bias"]),
        (TIMM, "head, !head.bias", TIMM[:3] + TIMM[4:]),
    ],
)
def test_tensors_that_take_no_part(names: list[str], take: str, wanted: list[str]) -> None:
    assert left_out(take, Held({name: torch.ones(2, 2) for name in names})) == wanted


def test_tensors_that_the_base_lacks_are_the_head() -> None:
    held = Held({name: torch.ones(2, 2) for name in YOLO})
    assert left_out(BUT_HEAD, held, {"model.23.cv3.bias"}) == ["model.23.cv3.bias"]


def test_tied_tensors_take_part_together() -> None:
    held = Held({name: torch.ones(2, 2) for name in GPT})
    held.ties = (("transformer.wte.weight", "lm_head.weight"),)
    assert left_out(BUT_HEAD, held) == [GPT[0], GPT[2]]


@pytest.mark.parametrize("take", [BUT_HEAD, BUT_EMBEDDINGS])
def test_a_pattern_is_required_if_no_file_name_is_known(take: str, tmp_path: Path) -> None:
    held = Held({"stem.weight": torch.ones(2, 2), "top.weight": torch.ones(2, 2)})
    with pytest.raises(SweepError, match=r"Use a pattern.*stem, top"):
        left_out(take, held)
