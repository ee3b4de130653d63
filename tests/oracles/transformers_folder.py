"""Runs as transformers saves them, and whether it opens a folder of a soup.

python -m tests.oracles.transformers_folder make FOLDER
python -m tests.oracles.transformers_folder open FOLDER
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from tests.oracles.expected import save_expected
from tests.oracles.transformers_files import bert, gpt2

NAMES = ("run-1", "run-2")
WORDS = ("[UNK]", "[PAD]", "win", "a", "prize", "see", "you")


def make(folder: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=WORDS[0], pad_token=WORDS[1]
    )
    for kind, model in (("bert", bert()), ("gpt2", gpt2())):
        for name in NAMES:
            path = folder / kind / name
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.01 * torch.randn_like(parameter)
            model.save_pretrained(path)
            fast.save_pretrained(path)


def open_folder(folder: Path) -> None:
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    kind = (
        AutoModelForCausalLM
        if architecture.startswith("GPT2")
        else (AutoModelForSequenceClassification)
    )
    model, told = kind.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"], told
    assert not told["unexpected_keys"], told
    tokens = AutoTokenizer.from_pretrained(folder)("win a prize", return_tensors="pt")
    assert tokens["input_ids"].tolist() == [[2, 3, 4]]
    assert model(input_ids=tokens["input_ids"]).logits.isfinite().all()
    save_expected(folder, "opened", model.state_dict())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    {"make": make, "open": open_folder}[sys.argv[1]](Path(sys.argv[2]))
