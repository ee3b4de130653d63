"""Checkpoints that transformers and huggingface_hub write, and what they find in them themselves.

python -m tests.oracles.transformers_files FOLDER
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from huggingface_hub import load_torch_model, save_torch_model
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel
from transformers.modeling_utils import PreTrainedModel

from tests.oracles.expected import save_expected

SMALL = 40_000  # bytes: several shards


def bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
    )
    return BertForSequenceClassification(config)


def gpt2() -> GPT2LMHeadModel:
    """A model whose first and last weights are one tensor."""
    torch.manual_seed(1)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=100, n_positions=16, n_embd=32, n_layer=2, n_head=2)
    )


def save(model: PreTrainedModel, folder: Path, **options: object) -> Path:
    model.save_pretrained(folder, **options)
    return folder


def blocks() -> dict[str, dict[str, list[str]]]:
    """Return the names of the tensors of each transformer block, by network and block."""
    lists = {"bert": ("bert.encoder.layer", bert()), "gpt2": ("transformer.h", gpt2())}
    return {
        name: {
            f"{path}.{index}": list(block.state_dict(prefix=f"{path}.{index}."))
            for index, block in enumerate(network.get_submodule(path).children())
        }
        for name, (path, network) in lists.items()
    }


def main() -> None:
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    (folder / "blocks.json").write_text(json.dumps(blocks()))
    for name, model in [("bert", bert()), ("bert-half", bert().half()), ("gpt2", gpt2())]:
        for shape, size in [("whole", "1GB"), ("shards", SMALL)]:
            path = save(model, folder / f"{name}-{shape}", max_shard_size=size)
            loaded = type(model).from_pretrained(path, torch_dtype=model.dtype)
            state = loaded.state_dict()
            if name == "gpt2":  # written once, as the format has no ties
                del state["lm_head.weight"]
            save_expected(path, "", state)
            path = folder / f"{name}-{shape}-bin"
            path.mkdir()
            save_torch_model(model, path, max_shard_size=size, safe_serialization=False)
            again = type(model)(model.config).to(model.dtype)
            load_torch_model(again, path, safe=False)
            save_expected(path, "", again.state_dict())


if __name__ == "__main__":
    main()
