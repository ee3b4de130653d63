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

import json
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from soupcore.errors import TaskError
from soupcore.new_files import new_file
from soupcore.tasks.classification import ClassificationTask
from soupcore.tasks.description import Role
from soupcore.tasks.images import picture_split
from soupcore.tasks.language_models import (
    BITS_PER_BYTE,
    IGNORED,
    PERPLEXITY,
    CausalTask,
    MaskedTask,
    batch_size_for,
)
from soupcore.tasks.metrics import Metric
from soupcore.tasks.shown import Shown
from soupcore.tasks.tagging import TAGGING_METRICS, TaggingTask
from soupcore.tasks.task import Split, Task
from soupcore.tasks.toml_file import COMMON_KEYS, TomlFile, read_text

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

_KEYS = {
    "task", "model", "tokenizer", "text", "image", "label", "metrics", "max_length", "block",
    "seed", "columns", "splits", "name", "group", "weight", *COMMON_KEYS,
}  # fmt: skip
_READ = (".json", ".txt", ".model", ".jinja")  # files of a network's folder that are read
_MASKED = 0.15  # of the tokens, as for BERT


def signature(path: Path) -> str:
    """Return the identity of a description and of the network's configuration.

    Raises:
        TaskError: The file is invalid.
    """
    return _Description(path).identity


def load(path: Path) -> Task:
    """Load the task that a TOML file describes.

    Raises:
        TaskError: The file is not of this form, names files or columns that are missing, or
            transformers is not installed.
    """
    told = _Description(path)
    kind = told.text("task")
    if kind not in KINDS:
        raise TaskError(f"{path}: `task` is one of {', '.join(KINDS)}, not {kind!r}.")
    for key in ("group", "weight"):
        if key in told.told and key not in KINDS[kind].settings:
            raise TaskError(f"{path}: `{key}` is not a setting of {kind}.")
    task = KINDS[kind].make(told)
    task.source_digest = told.identity
    return task


class _Description(TomlFile):
    """A TOML file that describes a task of a network of Hugging Face."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _KEYS)
        self.model = path.parent / self.text("model")
        #: The folder of the tokenizer.
        self.tokenizer = path.parent / self.text(
            "tokenizer" if "tokenizer" in self.told else "model"
        )
        config = self.model / "config.json"
        if not config.is_file():
            raise TaskError(
                f"{path}: {config} does not exist. Give as `model` a folder with the config.json "
                "and the tokenizer of the runs, relative to this file."
            )
        text = read_text(config)
        self.config: dict[str, Any] = json.loads(text)
        self.identity = self.digest(text)

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics."""
        return self.texts("metrics")

    @property
    def columns(self) -> list[str]:
        """The columns of the texts: one, or two for pairs."""
        found = self.told.get("text")
        columns = [found] if isinstance(found, str) else found
        if not isinstance(columns, list) or not 1 <= len(columns) <= 2:
            raise TaskError(f"{self.path} needs `text`, the name of one column or a list of two.")
        return columns

    def groups(self, table: "pd.DataFrame") -> list[Any] | None:
        """Return the group of each row; None without a column of groups."""
        return table[self.text("group")].tolist() if "group" in self.told else None

    def weights(self, table: "pd.DataFrame") -> Tensor | None:
        """Return the weight of each row, float64; None without a column of weights."""
        if "weight" not in self.told:
            return None
        column = self.text("weight")
        try:
            return torch.tensor([float(weight) for weight in table[column]], dtype=torch.float64)
        except (TypeError, ValueError):
            raise TaskError(
                f"{self.path}: the column {column!r} contains a weight that is not a number."
            ) from None

    def made(self, make: Callable[[Role, "pd.DataFrame"], Split]) -> dict[str, Split]:
        """Return the splits, each made of its table."""
        return self.held_out(
            {name: make(role, table) for name, (role, table, _) in self.tables().items()}
        )

    def tables(self) -> "dict[str, tuple[Role, pd.DataFrame, Path]]":
        """Return the role of each split, its table, and the file of the table."""
        found = self.splits("file", "data.csv")
        return {name: (role, self._table(path), path) for name, (role, path) in found.items()}

    def _table(self, path: Path) -> "pd.DataFrame":
        table = _read_table(path, self.texts("columns"))
        wanted = [*self.columns] if "text" in self.told else []
        wanted += [
            self.text(key) for key in ("image", "label", "group", "weight") if key in self.told
        ]
        missing = [column for column in wanted if column not in table]
        if missing:
            raise TaskError(
                f"{path} has no column {', '.join(map(repr, missing))}; it has "
                f"{', '.join(map(str, table))}."
            )
        if table.empty:
            raise TaskError(f"{path} has no rows.")
        return table


def _read_table(path: Path, names: Sequence[str], rows: int | None = None) -> "pd.DataFrame":
    """Return a table; only its first rows if their number is given."""
    import pandas as pd

    header: Any = {"header": None, "names": names} if names else {}
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": lambda file: pd.read_csv(file, keep_default_na=False, nrows=rows, **header),
        ".tsv": lambda file: pd.read_csv(
            file, sep="\t", keep_default_na=False, quoting=3, nrows=rows, **header
        ),
        ".jsonl": lambda file: pd.read_json(file, lines=True, dtype=False, nrows=rows),
        ".parquet": pd.read_parquet,
    }
    read = readers.get(path.suffix.lower())
    if read is None:
        raise TaskError(f"{path} has an unsupported extension; use {', '.join(readers)}.")
    try:
        return read(path)
    except (OSError, ValueError) as error:
        raise TaskError(f"{path} cannot be read: {error}") from error


def _transformers(path: Path) -> Any:
    try:
        import transformers
    except ImportError:
        raise TaskError(
            f"{path} needs the package transformers: pip install transformers."
        ) from None
    return transformers


def open_tokenizer(path: Path, folder: Path) -> Any:
    """Return the tokenizer in a folder.

    Args:
        path: The file that describes the task.
        folder: The folder.

    Raises:
        TaskError: transformers is not installed, or the tokenizer cannot be opened.
    """
    try:
        return _transformers(path).AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise TaskError(
            f"The tokenizer in {folder} cannot be opened: {error} Put the tokenizer's "
            "files (tokenizer.json, tokenizer_config.json) beside config.json, or name their "
            "folder as `tokenizer`."
        ) from error


def _builder(told: _Description, kind: str) -> Callable[[], nn.Module]:
    """Return a builder of the network from its configuration, with random weights."""
    return network_of(told.path, told.model, kind)


def network_of(path: Path, folder: Path, kind: str) -> Callable[[], nn.Module]:
    """Return a builder of the network of a config.json, with random weights.

    Args:
        path: The file that describes the task.
        folder: The folder with config.json.
        kind: Head of the network, such as "SequenceClassification"; "" for the bare network.

    Raises:
        TaskError: transformers is not installed, or the file cannot be opened.
    """
    transformers = _transformers(path)
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise TaskError(f"{folder / 'config.json'} cannot be opened: {error}") from error

    def build() -> nn.Module:
        auto = getattr(transformers, f"AutoModelFor{kind}" if kind else "AutoModel")
        network: nn.Module = auto.from_config(config, trust_remote_code=False)
        saved = _saved_names(network)
        if any(name != own for own, name in saved.items()):
            hooks: Any = network
            hooks.register_state_dict_post_hook(partial(_rename, saved))
        return network

    return build


def _saved_names(network: nn.Module) -> dict[str, str]:
    """Return the name that each tensor of a network has in a file, by its own name.

    Since version 5, transformers calls tensors of many networks otherwise than its files do.
    """
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # version 4
        return {}
    own = network.state_dict()
    names = {tensor.data_ptr(): name for name, tensor in own.items() if tensor.numel()}
    saved: Mapping[str, Tensor] = revert_weight_conversion(network, dict(own))
    found = {names.get(tensor.data_ptr(), name): name for name, tensor in saved.items()}
    return found if len(found) == len(saved) else {}  # tied tensors, whose names stay


def _rename(
    names: Mapping[str, str], network: nn.Module, state: dict[str, Any], *rest: Any
) -> None:
    """Give the tensors in a state dict their names in files."""
    renamed = {names.get(name, name): tensor for name, tensor in state.items()}
    state.clear()
    state.update(renamed)


def image_network(
    path: Path, folder: Path
) -> tuple[Callable[[], nn.Module], Callable[["Image"], Tensor], str]:
    """Return the builder of an image classifier, its input function and a description of both.

    Args:
        path: The file that describes the task.
        folder: The folder with config.json and preprocessor_config.json.

    Raises:
        TaskError: transformers is not installed, or one of these files cannot be opened.
    """
    read, identity = image_reader(path, folder)
    return network_of(path, folder, "ImageClassification"), read, identity


def image_reader(path: Path, folder: Path) -> tuple[Callable[["Image"], Tensor], str]:
    """Return the input function of the processor in a folder, and a description of it.

    Args:
        path: The file that describes the task.
        folder: The folder with preprocessor_config.json.

    Raises:
        TaskError: transformers is not installed, or the file cannot be opened.
    """
    settings = folder / "preprocessor_config.json"
    try:
        # Pillow's, as torchvision need not be installed.
        processor = _transformers(path).AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, backend="pil"
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise TaskError(
            f"{settings} cannot be opened: {error} Save the image processor beside config.json."
        ) from error

    def read(image: "Image") -> Tensor:
        found: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return found

    return read, read_text(settings)


def _encoded(told: _Description, tokenizer: Any, table: "pd.DataFrame") -> dict[str, Any]:
    columns = [table[column].astype(str).tolist() for column in told.columns]
    limit = told.number("max_length") or min(tokenizer.model_max_length, 512)
    found = tokenizer(*columns, truncation=True, max_length=limit)
    return {name: [torch.tensor(row) for row in rows] for name, rows in found.items()}


def _classification(told: _Description) -> Task:
    tokenizer = open_tokenizer(told.path, told.tokenizer)
    label = told.text("label")
    classes = {str(name): number for name, number in told.config.get("label2id", {}).items()}

    def make(role: Role, table: "pd.DataFrame") -> Split:
        inputs, targets = _encoded(told, tokenizer, table), _classes(told, table[label], classes)
        split = Split(role, inputs, targets, groups=told.groups(table), weights=told.weights(table))
        texts = zip(_names(targets, classes), _texts(told, table), strict=True)
        _show(split, [f"{name}: {text}" for name, text in texts])
        return split

    build = _builder(told, "SequenceClassification")
    return _classifier(told, build, told.made(make))


def _classifier(
    told: _Description, build: Callable[[], nn.Module], splits: Mapping[str, Split]
) -> Task:
    return ClassificationTask(
        build, splits, name=told.name, metrics=told.metrics, precision=told.precision
    )


def _classes(told: _Description, column: Iterable[Any], classes: Mapping[str, int]) -> Tensor:
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
        f"{told.path}: the labels {', '.join(unknown[:5])} are not numbers, and {told.model}"
        f"/config.json has no number for them in `label2id` (it has {', '.join(classes) or 'none'}"
        "). Write the numbers of the classes into the data, or the names into config.json."
    )


def _names(targets: Tensor, classes: Mapping[str, int]) -> list[str]:
    """Return the name of each class; its number without a name."""
    names = {number: name for name, number in classes.items()}
    return [names.get(number, str(number)) for number in targets.tolist()]


def _texts(told: _Description, table: "pd.DataFrame") -> list[str]:
    """Return the text of each row, both texts of a pair."""
    columns = [table[column].astype(str) for column in told.columns]
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


def _pictures(told: _Description) -> Task:
    build, read, identity = image_network(told.path, told.model)
    classes = {str(name): number for name, number in told.config.get("label2id", {}).items()}
    label = told.text("label")
    splits = {}
    for name, (role, table, path) in told.tables().items():
        numbers = _classes(told, table[label], classes)
        splits[name] = picture_split(
            role,
            _images(table, told.text("image"), path),
            numbers.tolist(),
            read,
            identity,
            groups=told.groups(table),
            weights=told.weights(table),
            names=_names(numbers, classes),
        )
    return _classifier(told, build, told.held_out(splits))


def _named(told: _Description, known: Sequence[Metric]) -> list[Metric]:
    """Return the metrics of a language model that a description names."""
    by_name = {metric.name: metric for metric in known}
    unknown = [name for name in told.metrics if name not in by_name]
    if unknown:
        raise TaskError(f"{told.path}: `metrics` of this task are {', '.join(by_name)}.")
    return [by_name[name] for name in told.metrics] or list(known)


def _causal(told: _Description) -> Task:
    tokenizer = open_tokenizer(told.path, told.tokenizer)
    block = told.number("block")

    def make(role: Role, table: "pd.DataFrame") -> Split:
        encoded = _encoded(told, tokenizer, table)["input_ids"]
        texts = [text for text in encoded if len(text) > 1]
        if block is not None:
            end = torch.tensor([tokenizer.eos_token_id] * (tokenizer.eos_token_id is not None))
            joined = torch.cat([part for text in encoded for part in (text, end)]).long()
            texts = list(joined[: len(joined) // block * block].reshape(-1, block))
        if not texts:
            raise TaskError(f"{told.path}: no text has two tokens, or there is no whole block.")
        spelled = [len(tokenizer.decode(text[1:]).encode()) for text in texts]
        inputs = {"input_ids": texts, "attention_mask": [torch.ones_like(text) for text in texts]}
        split = Split(role, inputs, torch.tensor(spelled))
        # Examples are not rows of the table: blocks are made of many, and short texts left out.
        split.shown = lambda index: Shown(tokenizer.decode(texts[index], skip_special_tokens=True))
        return split

    splits, build = told.made(make), _builder(told, "CausalLM")
    metrics = _named(told, [PERPLEXITY, BITS_PER_BYTE])
    task = CausalTask(build, splits, name=told.name, metrics=metrics, precision=told.precision)
    task.batch_size = batch_size_for(splits, len(tokenizer))
    return task


def _masked(told: _Description) -> Task:
    tokenizer = open_tokenizer(told.path, told.tokenizer)
    if tokenizer.mask_token_id is None:
        raise TaskError(f"The tokenizer in {told.model} has no mask token.")
    seed = told.number("seed", 1) or 1

    def make(role: Role, table: "pd.DataFrame") -> Split:
        encoded = _encoded(told, tokenizer, table)
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
        _show(split, _texts(told, table))
        return split

    splits, build = told.made(make), _builder(told, "MaskedLM")
    metrics = _named(told, [PERPLEXITY])
    task = MaskedTask(build, splits, name=told.name, metrics=metrics, precision=told.precision)
    task.batch_size = batch_size_for(splits, len(tokenizer))
    return task


def _tokens(told: _Description) -> Task:
    tokenizer = open_tokenizer(told.path, told.tokenizer)
    if not tokenizer.is_fast:
        raise TaskError(f"The tokenizer in {told.model} does not map tokens to words.")
    text, label = told.text("text"), told.text("label")
    numbers = {str(name): number for name, number in told.config.get("label2id", {}).items()}
    names = {number: name for name, number in numbers.items()}
    limit = told.number("max_length") or min(tokenizer.model_max_length, 512)

    def make(role: Role, table: "pd.DataFrame") -> Split:
        words = [list(row) for row in table[text]]
        tags = [list(row) for row in table[label]]
        if any(
            len(row) != len(of) or isinstance(row, str) for row, of in zip(words, tags, strict=True)
        ):
            raise TaskError(
                f"{told.path}: {text!r} and {label!r} need a list of words and as many tags in "
                "each row, as JSONL and Parquet hold them."
            )
        flat = _classes(told, [tag for row in tags for tag in row], numbers)
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

    splits, build = told.made(make), _builder(told, "TokenClassification")
    tags = [names.get(number, "O") for number in range(max(names, default=-1) + 1)]
    metrics = _named(told, TAGGING_METRICS)
    return TaggingTask(
        build, splits, name=told.name, metrics=metrics, tags=tags, precision=told.precision
    )


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
    make: Callable[[_Description], Task]
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


def write(path: Path, told: Mapping[str, Any]) -> None:
    """Write a description, with absolute paths or paths relative to the file.

    Args:
        path: The TOML file, which is replaced.
        told: Settings: texts, lists of texts, numbers; and `splits`, `{name: {"file": path, "role":
            role}}`.

    Raises:
        TaskError: A text contains characters that TOML does not allow.
    """
    lines = [f"{key} = {_toml(value)}" for key, value in told.items() if key != "splits"]
    lines.append("[splits]")
    lines += [f"{_toml(name)} = {_toml(split)}" for name, split in told["splits"].items()]
    text = "\n".join([*lines, ""])
    try:
        is_read = tomllib.loads(text) == dict(told)
    except tomllib.TOMLDecodeError:
        is_read = False
    if not is_read:
        raise TaskError("A name or a path contains characters that TOML does not allow.")
    with new_file(path) as file:
        file.write(text.encode())


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_toml(key)} = {_toml(each)}' for key, each in value.items())} }}"
    return json.dumps(value, ensure_ascii=False)  # texts, numbers and lists are the same in TOML


def paths_of(path: Path) -> list[Path]:
    """Return the files that a description names: data, configurations and tokenizers.

    Raises:
        TaskError: The file is invalid.
    """
    told = _Description(path)
    folders = dict.fromkeys((told.model, told.tokenizer))
    files = [file for _, file in told.splits("file", "data.csv").values()]
    read = [file for folder in folders for file in folder.glob("*") if file.suffix in _READ]
    return [*folders, *read, *files]


def columns_of(path: Path, names: Sequence[str] = ()) -> list[str]:
    """Return the columns of a data file, read from its first row.

    Args:
        path: A CSV, TSV, JSONL or Parquet file.
        names: The names of the columns of a CSV or TSV file without a header.

    Raises:
        TaskError: The file cannot be read.
    """
    return [str(column) for column in _read_table(path, names, rows=1)]
