"""Adapters as PEFT saves them, what they are when merged, and whether it opens a soup of them.

python -m tests.oracles.peft_adapters make FOLDER
python -m tests.oracles.peft_adapters open BASE ADAPTER
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from tests.oracles.expected import save_expected
from tests.oracles.transformers_files import bert

CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {"r": 2, "lora_alpha": 6, "target_modules": ["query", "value"]},
    "patterns": {
        "r": 3,
        "lora_alpha": 2,
        "target_modules": ["query", "dense"],
        "rank_pattern": {"query": 4},
        "alpha_pattern": {"query": 5},
        "modules_to_save": ["classifier"],
    },
    "rslora": {"r": 4, "use_rslora": True, "target_modules": ["word_embeddings", "key"]},
}


def make(folder: Path) -> None:
    bert().save_pretrained(folder / "base")
    for name, config in CONFIGS.items():
        model = get_peft_model(
            AutoModelForSequenceClassification.from_pretrained(folder / "base"),
            LoraConfig(task_type="SEQ_CLS", **({"modules_to_save": []} | config)),
        )
        generator = torch.Generator().manual_seed(len(name))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        model.save_pretrained(folder / name)
        save_expected(folder / name, "merged", model.merge_and_unload().state_dict())


def open_adapter(base: Path, adapter: Path) -> None:
    model = BertForSequenceClassification.from_pretrained(base)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    save_expected(adapter, "merged", merged.state_dict())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]))
    else:
        open_adapter(Path(sys.argv[2]), Path(sys.argv[3]))
