"""Tasks of Hugging Face networks on tables, described by a TOML file instead of Python.

    task = "text-classification"    # or another of KINDS
    model = "runs/run-1"            # a folder with config.json and the tokenizer's files
    tokenizer = "runs/base"         # the folder of the tokenizer, if it is another
    text = "message"                # the column of the texts; a list of two columns for pairs
    label = "label"                 # the column of the classes
    group = "dialect"               # a column of groups, for "worst-group accuracy"
    weight = "importance"           # a column of weights, for classes of texts and images
    metrics = ["macro F1", "accuracy", "worst-group accuracy"]
    precision = "bfloat16"          # float32 by default; see `Task`
    hold_out = 0.3                  # without test data: the share of validation data to report on
    hold_out_seed = 0
    max_length = 128                # tokens; longer texts are cut

    [splits]
    select = "val.csv"
    report = "test.csv"
    "shift/short" = { file = "short.csv", role = "shift" }

For token classification, `text` and `label` are columns of lists: the words of a sentence and their
tags. For image classification, `image` takes the place of `text`, a column of paths relative to the
table. Paths in this file are relative to it. Data are CSV, TSV, JSONL or Parquet; `columns` names
the columns of a CSV or TSV file without a header. The network is built from `config.json` alone,
and no code in a model repository is run.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from soupcore.errors import TaskError
from soupcore.tasks.classification import ClassificationTask
from soupcore.tasks.description import Role
from soupcore.tasks.examples import IGNORED
from soupcore.tasks.hugging_face_file import Description
from soupcore.tasks.hugging_face_folder import image_network, network_of, open_tokenizer
from soupcore.tasks.images import picture_split
from soupcore.tasks.language_models import (
    BITS_PER_BYTE,
    PERPLEXITY,
    TAGGING_METRICS,
    CausalTask,
    MaskedTask,
    TaggingTask,
    batch_size_for,
)
from soupcore.tasks.metrics import Metric
from soupcore.tasks.splits import Shown, Split
from soupcore.tasks.task import Task

if TYPE_CHECKING:
    import pandas as pd

_MASKED = 0.15  # of the tokens, as for BERT


def signature(path: Path) -> str:
    """Return the identity of a description and of the network's configuration.

    Raises:
        TaskError: The file is invalid.
    """
    return Description(path).identity


def load(path: Path) -> Task:
    """Load the task that a TOML file describes.

    Raises:
        TaskError: The file is not of this form, names files or columns that are missing, or
            transformers is not installed.
    """
    description = Description(path)
    kind = description.text("task")
    if kind not in KINDS:
        raise TaskError(f"{path}: `task` is one of {', '.join(KINDS)}, not {kind!r}.")
    for key in ("group", "weight"):
        if key in description.settings and key not in KINDS[kind].settings:
            raise TaskError(f"{path}: `{key}` is not a setting of {kind}.")
    task = KINDS[kind].make(description)
    task.source_digest = description.identity
    return task


def _encoded(description: Description, tokenizer: Any, table: "pd.DataFrame") -> dict[str, Any]:
    columns = [table[column].astype(str).tolist() for column in description.columns]
    limit = description.number("max_length") or min(tokenizer.model_max_length, 512)
    found = tokenizer(*columns, truncation=True, max_length=limit)
    return {name: [torch.tensor(row) for row in rows] for name, rows in found.items()}


def _classification(description: Description) -> Task:
    tokenizer = open_tokenizer(description.path, description.tokenizer)
    label, classes = description.text("label"), description.class_numbers

    def make(role: Role, table: "pd.DataFrame") -> Split:
        inputs = _encoded(description, tokenizer, table)
        targets = _classes(description, table[label], classes)
        split = Split(
            role,
            inputs,
            targets,
            groups=description.groups(table),
            weights=description.weights(table),
        )
        texts = zip(_names(targets, classes), _texts(description, table), strict=True)
        _show(split, [f"{name}: {text}" for name, text in texts])
        return split

    build = network_of(description.path, description.model, "SequenceClassification")
    return _classifier(description, build, description.make_splits(make))


def _classifier(
    description: Description, build: Callable[[], nn.Module], splits: Mapping[str, Split]
) -> Task:
    return ClassificationTask(
        build,
        splits,
        name=description.name,
        metrics=description.metrics,
        precision=description.precision,
    )


def _classes(description: Description, column: Iterable[Any], classes: Mapping[str, int]) -> Tensor:
    """Return the class number of each label, or of its name in the configuration.

    A configuration without custom names calls classes LABEL_0, LABEL_1, ….
    """
    labels = [str(label) for label in column]
    if set(labels) <= classes.keys():
        return torch.tensor([classes[label] for label in labels])
    if all(label.isdigit() for label in labels):
        return torch.tensor([int(label) for label in labels])
    unknown = sorted(set(labels) - classes.keys())
    raise TaskError(
        f"{description.path}: the labels {', '.join(unknown[:5])} are not numbers, and "
        f"{description.model}/config.json has no number for them in `label2id` (it has "
        f"{', '.join(classes) or 'none'}). Write the numbers of the classes into the data, or the "
        "names into config.json."
    )


def _names(targets: Tensor, classes: Mapping[str, int]) -> list[str]:
    """Return the name of each class; its number without a name."""
    names = {number: name for name, number in classes.items()}
    return [names.get(number, str(number)) for number in targets.tolist()]


def _texts(description: Description, table: "pd.DataFrame") -> list[str]:
    """Return the text of each row, both texts of a pair."""
    columns = [table[column].astype(str) for column in description.columns]
    return [" | ".join(texts) for texts in zip(*columns, strict=True)]


def _show(split: Split, texts: Sequence[str]) -> None:
    """Let a split show a text for each example."""
    split.shown = lambda index: Shown(texts[index])


def _images(table: "pd.DataFrame", column: str, path: Path) -> list[Path]:
    """Return the files that a column names, all of them below the folder of the table."""
    found = [path.parent / str(file) for file in table[column]]
    folder = path.parent.resolve()
    outside = next((file for file in found if not file.resolve().is_relative_to(folder)), None)
    if outside is not None:
        raise TaskError(f"{path} names {outside}, which is not below the folder of the table.")
    return found


def _pictures(description: Description) -> Task:
    build, read, identity = image_network(description.path, description.model)
    label, classes = description.text("label"), description.class_numbers
    splits = {}
    for name, (role, table, path) in description.tables().items():
        numbers = _classes(description, table[label], classes)
        splits[name] = picture_split(
            role,
            _images(table, description.text("image"), path),
            numbers.tolist(),
            read,
            identity,
            groups=description.groups(table),
            weights=description.weights(table),
            names=_names(numbers, classes),
        )
    return _classifier(description, build, description.held_out(splits))


def _named(description: Description, known: Sequence[Metric]) -> list[Metric]:
    """Return the metrics of a language model that a description names."""
    by_name = {metric.name: metric for metric in known}
    unknown = [name for name in description.metrics if name not in by_name]
    if unknown:
        raise TaskError(f"{description.path}: `metrics` of this task are {', '.join(by_name)}.")
    return [by_name[name] for name in description.metrics] or list(known)


def _causal(description: Description) -> Task:
    tokenizer = open_tokenizer(description.path, description.tokenizer)
    block = description.number("block")

    def make(role: Role, table: "pd.DataFrame") -> Split:
        encoded = _encoded(description, tokenizer, table)["input_ids"]
        texts = [text for text in encoded if len(text) > 1]
        if block is not None:
            end = torch.tensor([tokenizer.eos_token_id] * (tokenizer.eos_token_id is not None))
            joined = torch.cat([part for text in encoded for part in (text, end)]).long()
            texts = list(joined[: len(joined) // block * block].reshape(-1, block))
        if not texts:
            raise TaskError(
                f"{description.path}: no text has two tokens, or there is no whole block."
            )
        spelled = [len(tokenizer.decode(text[1:]).encode()) for text in texts]
        inputs = {"input_ids": texts, "attention_mask": [torch.ones_like(text) for text in texts]}
        split = Split(role, inputs, torch.tensor(spelled))
        # Examples are not rows of the table: blocks are made of many, and short texts left out.
        split.shown = lambda index: Shown(tokenizer.decode(texts[index], skip_special_tokens=True))
        return split

    splits, build = (
        description.make_splits(make),
        network_of(description.path, description.model, "CausalLM"),
    )
    metrics = _named(description, [PERPLEXITY, BITS_PER_BYTE])
    task = CausalTask(
        build, splits, name=description.name, metrics=metrics, precision=description.precision
    )
    task.batch_size = batch_size_for(splits, len(tokenizer))
    return task


def _masked(description: Description) -> Task:
    tokenizer = open_tokenizer(description.path, description.tokenizer)
    if tokenizer.mask_token_id is None:
        raise TaskError(f"The tokenizer in {description.model} has no mask token.")
    seed = description.number("seed", 1) or 1

    def make(role: Role, table: "pd.DataFrame") -> Split:
        encoded = _encoded(description, tokenizer, table)
        generator = torch.Generator().manual_seed(seed)
        labels = []
        for row, text in enumerate(encoded["input_ids"]):
            special = torch.tensor(
                tokenizer.get_special_tokens_mask(text.tolist(), already_has_special_tokens=True)
            )
            hidden = (torch.rand(len(text), generator=generator) < _MASKED) & (special == 0)
            labels.append(text.masked_fill(~hidden, IGNORED))
            encoded["input_ids"][row] = text.masked_fill(hidden, tokenizer.mask_token_id)
        split = Split(role, encoded, labels)
        _show(split, _texts(description, table))
        return split

    splits, build = (
        description.make_splits(make),
        network_of(description.path, description.model, "MaskedLM"),
    )
    metrics = _named(description, [PERPLEXITY])
    task = MaskedTask(
        build, splits, name=description.name, metrics=metrics, precision=description.precision
    )
    task.batch_size = batch_size_for(splits, len(tokenizer))
    return task


def _tokens(description: Description) -> Task:
    tokenizer = open_tokenizer(description.path, description.tokenizer)
    if not tokenizer.is_fast:
        raise TaskError(f"The tokenizer in {description.model} does not map tokens to words.")
    text, label = description.text("text"), description.text("label")
    numbers = description.class_numbers
    names = {number: name for name, number in numbers.items()}
    limit = description.number("max_length") or min(tokenizer.model_max_length, 512)

    def make(role: Role, table: "pd.DataFrame") -> Split:
        rows = zip(table[text], table[label], strict=True)
        if not all(_is_list(row) and _is_list(of) and len(row) == len(of) for row, of in rows):
            raise TaskError(
                f"{description.path}: {text!r} and {label!r} need a list of words and as many tags "
                "in each row, as JSONL and Parquet hold them."
            )
        words = [list(row) for row in table[text]]
        tags = [list(row) for row in table[label]]
        flat = _classes(description, [tag for row in tags for tag in row], numbers)
        by_row = torch.split(flat, [len(row) for row in tags])
        encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=limit)
        targets = []
        for row, of in enumerate(by_row):
            places = encoded.word_ids(row)
            is_first = [
                word is not None and (at == 0 or places[at - 1] != word)
                for at, word in enumerate(places)
            ]
            targets.append(
                torch.tensor(
                    [
                        int(of[word]) if first else IGNORED
                        for word, first in zip(places, is_first, strict=True)
                    ]
                )
            )
        inputs = {name: [torch.tensor(row) for row in rows] for name, rows in encoded.items()}
        split = Split(role, inputs, targets)
        _show(split, [" ".join(map(str, row)) for row in words])
        return split

    splits, build = (
        description.make_splits(make),
        network_of(description.path, description.model, "TokenClassification"),
    )
    tags = [names.get(number, "O") for number in range(max(names, default=-1) + 1)]
    metrics = _named(description, TAGGING_METRICS)
    return TaggingTask(
        build,
        splits,
        name=description.name,
        metrics=metrics,
        tags=tags,
        precision=description.precision,
    )


def _is_list(cell: Any) -> bool:
    """Return whether a cell of a table is a list: JSONL has lists, Parquet has arrays."""
    return isinstance(cell, list | np.ndarray)


Setting = Literal["column", "columns", "number"]


@dataclass(frozen=True)
class Kind:
    """A kind of task, one value of `task` in a description.

    Attributes:
        title: Name for display.
        make: Makes the task of a description.
        metrics: The metrics that it can have; the first is used unless others are named.
        settings: The settings that only some kinds have: a column of the data, one or two columns,
            or an optional number.
    """

    title: str
    make: Callable[[Description], Task]
    metrics: tuple[str, ...]
    settings: Mapping[str, Setting]


_OF_CLASSES = (
    "accuracy", "balanced accuracy", "F1", "macro F1", "Matthews correlation", "AUC",
    "top-5 accuracy", "worst-class accuracy", "worst-group accuracy", "accuracy by group",
)  # fmt: skip

#: The kinds of tasks, by their names in a description.
KINDS: dict[str, Kind] = {
    "text-classification": Kind(
        "Text classification",
        _classification,
        _OF_CLASSES,
        {
            "text": "columns", "label": "column", "group": "column", "weight": "column",
            "max_length": "number",
        },
    ),
    "token-classification": Kind(
        "Token classification",
        _tokens,
        tuple(metric.name for metric in TAGGING_METRICS),
        {"text": "column", "label": "column", "max_length": "number"},
    ),
    "image-classification": Kind(
        "Image classification",
        _pictures,
        _OF_CLASSES,
        {"image": "column", "label": "column", "group": "column", "weight": "column"},
    ),
    "causal-lm": Kind(
        "Causal language model",
        _causal,
        (PERPLEXITY.name, BITS_PER_BYTE.name),
        {"text": "columns", "max_length": "number", "block": "number"},
    ),
    "masked-lm": Kind(
        "Masked language model",
        _masked,
        (PERPLEXITY.name,),
        {"text": "columns", "max_length": "number", "seed": "number"},
    ),
}  # fmt: skip
