"""Tasks of Hugging Face networks on tables of texts, described by a TOML file instead of Python.

    task = "text-classification"    # or "causal-lm", "masked-lm"
    model = "runs/run-1"            # a folder with config.json and the tokenizer's files
    tokenizer = "runs/base"         # the folder of the tokenizer, if it is another
    text = "message"                # the column of the texts; a list of two columns for pairs
    label = "label"                 # the column of the classes
    metrics = ["macro F1", "accuracy"]
    max_length = 128                # tokens; longer texts are cut

    [splits]
    select = "val.csv"
    report = "test.csv"
    "shift/short" = { file = "short.csv", role = "shift" }

Paths are relative to the file. Data are CSV, TSV, JSONL or Parquet; `columns` names the columns of
a CSV or TSV file without a header. The network is built from `config.json` alone, and no code that
a model repository holds is run.
"""

import json
import tomllib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from soupcore.errors import TaskError
from soupcore.new_files import new_file
from soupcore.tasks.classification import ClassificationTask
from soupcore.tasks.description import Role
from soupcore.tasks.metrics import Metric, perplexity
from soupcore.tasks.task import Split, Task
from soupcore.tasks.toml_file import TomlFile, read_text

if TYPE_CHECKING:
    import pandas as pd

_KEYS = {
    "task", "model", "tokenizer", "text", "label", "metrics", "max_length", "block", "seed",
    "columns", "splits", "name",
}  # fmt: skip
_READ = (".json", ".txt", ".model", ".jinja")  # files of a network's folder that are read
_IGNORED = -100
_MOST_OUTPUTS = 1 << 24  # numbers
_MASKED = 0.15  # of the tokens, as for BERT


def signature(path: Path) -> str:
    """Return the identity of a description and of the network's configuration.

    Raises:
        TaskError: The file is not of this form.
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

    def made(self, make: Callable[[Role, "pd.DataFrame"], Split]) -> dict[str, Split]:
        """Return the splits, each made of its table."""
        found = self.splits("file", "data.csv")
        return {name: make(role, self._table(path)) for name, (role, path) in found.items()}

    def _table(self, path: Path) -> "pd.DataFrame":
        table = _read_table(path, self.texts("columns"))
        wanted = [*self.columns, *([self.text("label")] if "label" in self.told else [])]
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
        raise TaskError(f"{path} is none of {', '.join(readers)}.")
    try:
        return read(path)
    except (OSError, ValueError) as error:
        raise TaskError(f"{path} cannot be read: {error}") from error


def _transformers(told: _Description) -> Any:
    try:
        import transformers
    except ImportError:
        raise TaskError(
            f"{told.path} needs the package transformers: pip install transformers."
        ) from None
    return transformers


def _tokenizer(told: _Description) -> Any:
    try:
        return _transformers(told).AutoTokenizer.from_pretrained(
            told.tokenizer, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise TaskError(
            f"The tokenizer in {told.tokenizer} cannot be opened: {error} Put the tokenizer's "
            "files (tokenizer.json, tokenizer_config.json) beside config.json, or name their "
            "folder as `tokenizer`."
        ) from error


def _builder(told: _Description, kind: str) -> Callable[[], nn.Module]:
    """Return what builds the network from its configuration, with random weights."""
    transformers = _transformers(told)
    try:
        config = transformers.AutoConfig.from_pretrained(
            told.model, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise TaskError(f"{told.model / 'config.json'} cannot be opened: {error}") from error

    def build() -> nn.Module:
        auto = getattr(transformers, f"AutoModelFor{kind}")
        network: nn.Module = auto.from_config(config, trust_remote_code=False)
        return network

    return build


def _encoded(told: _Description, tokenizer: Any, table: "pd.DataFrame") -> dict[str, Any]:
    columns = [table[column].astype(str).tolist() for column in told.columns]
    limit = told.number("max_length") or min(tokenizer.model_max_length, 512)
    found = tokenizer(*columns, truncation=True, max_length=limit)
    return {name: [torch.tensor(row) for row in rows] for name, rows in found.items()}


def _classification(told: _Description) -> Task:
    tokenizer = _tokenizer(told)
    label = told.text("label")
    classes = {str(name): number for name, number in told.config.get("label2id", {}).items()}

    def make(role: Role, table: "pd.DataFrame") -> Split:
        return Split(role, _encoded(told, tokenizer, table), _classes(told, table[label], classes))

    build = _builder(told, "SequenceClassification")
    return ClassificationTask(build, told.made(make), name=told.name, metrics=told.metrics)


def _classes(told: _Description, column: "pd.Series[Any]", classes: Mapping[str, int]) -> Tensor:
    """Return the number of each label: its own, or the one that the configuration gives its name.

    A configuration without names of its own calls classes LABEL_0, LABEL_1, ….
    """
    labels = [str(label) for label in column]
    if set(labels) <= classes.keys():
        return torch.tensor([classes[label] for label in labels])
    if all(label.isdigit() for label in labels):
        return torch.tensor([int(label) for label in labels])
    unknown = sorted(set(labels) - classes.keys())
    raise TaskError(
        f"{told.path}: the labels {', '.join(unknown[:5])} are no numbers, and {told.model}"
        f"/config.json has no number for them in `label2id` (it has {', '.join(classes) or 'none'}"
        "). Write the numbers of the classes into the data, or the names into config.json."
    )


class _LanguageModel(Task):
    """A language model that is judged by the negative log-likelihood of tokens.

    It records of each example the summed negative log-likelihood in nats and the number of tokens.
    The loss is the mean over examples of nats per token; metrics weigh examples by their tokens.
    """

    score_name = "negative loss"
    loss_name = "nats per token"

    @abstractmethod
    def predicted(self, logits: Tensor, inputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits, shape [m, tokens, words], and the true tokens, -100 where not counted."""

    def record(self, outputs: Any, inputs: Any, targets: Any) -> Tensor:
        """Return the summed negative log-likelihood and number of tokens of each example."""
        logits, words = self.predicted(super().record(outputs, inputs, targets), inputs, targets)
        nats = cross_entropy(
            logits.float().transpose(1, 2), words, reduction="none", ignore_index=_IGNORED
        )
        counts = (words != _IGNORED).sum(1)
        return torch.stack([nats.sum(1), counts.to(nats.dtype)], dim=1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the nats per token of each example."""
        return outputs[:, 0] / outputs[:, 1].clamp(min=1)


class _CausalTask(_LanguageModel):
    """Each token is predicted from those before it."""

    def predicted(self, logits: Tensor, inputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        words = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, _IGNORED)
        return logits[:, :-1], words[:, 1:]


class _MaskedTask(_LanguageModel):
    """Masked tokens are predicted from all others."""

    def predicted(self, logits: Tensor, inputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        return logits, targets


def _bits_per_byte(records: Tensor, targets: Tensor) -> float:
    """Return Σ nats ⁄ (ln 2 · Σ bytes) of the texts that the tokens spell."""
    nats = records.double()[:, 0].sum()
    return float(nats / (torch.tensor(2.0).double().log() * targets.double().sum()))


_BITS = Metric("bits per byte", False, compute=_bits_per_byte, source="outputs")
_PERPLEXITY = Metric("perplexity", False, compute=perplexity, source="outputs")


def _named(told: _Description, known: Sequence[Metric]) -> list[Metric]:
    """Return the metrics of a language model that a description names."""
    by_name = {metric.name: metric for metric in known}
    unknown = [name for name in told.metrics if name not in by_name]
    if unknown:
        raise TaskError(f"{told.path}: `metrics` of this task are {', '.join(by_name)}.")
    return [by_name[name] for name in told.metrics] or list(known)


def _causal(told: _Description) -> Task:
    tokenizer = _tokenizer(told)
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
        return Split(role, inputs, torch.tensor(spelled))

    splits, build = told.made(make), _builder(told, "CausalLM")
    task = _CausalTask(build, splits, name=told.name, metrics=_named(told, [_PERPLEXITY, _BITS]))
    task.batch_size = _batch_size(splits, len(tokenizer))
    return task


def _masked(told: _Description) -> Task:
    tokenizer = _tokenizer(told)
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
            labels.append(text.masked_fill(~hidden, _IGNORED))
            encoded["input_ids"][row] = text.masked_fill(hidden, tokenizer.mask_token_id)
        return Split(role, encoded, labels)

    splits, build = told.made(make), _builder(told, "MaskedLM")
    task = _MaskedTask(build, splits, name=told.name, metrics=_named(told, [_PERPLEXITY]))
    task.batch_size = _batch_size(splits, len(tokenizer))
    return task


def _batch_size(splits: Mapping[str, Split], words: int) -> int:
    """Return how many examples have outputs of at most 64 MB: one number a token and word."""
    longest = max(
        int(part.shape[-1])
        for split in splits.values()
        for part in [split.load()[0].batch(slice(0, None))["input_ids"]]
    )
    return min(128, max(1, _MOST_OUTPUTS // (longest * words)))


Setting = Literal["column", "columns", "number"]


@dataclass(frozen=True)
class Kind:
    """A kind of task, one value of `task` in a description.

    Attributes:
        title: What people call it.
        make: Makes the task of a description.
        metrics: The metrics that it can have; the first is used unless others are named.
        settings: The settings that only some kinds have: a column of the data, one or two columns,
            or an optional number.
    """

    title: str
    make: Callable[[_Description], Task]
    metrics: tuple[str, ...]
    settings: Mapping[str, Setting]


#: The kinds of tasks, by their names in a description.
KINDS: dict[str, Kind] = {
    "text-classification": Kind(
        "Text classification",
        _classification,
        (
            "accuracy", "balanced accuracy", "F1", "macro F1", "Matthews correlation", "AUC",
            "top-5 accuracy",
        ),
        {"text": "columns", "label": "column", "max_length": "number"},
    ),
    "causal-lm": Kind(
        "Causal language model",
        _causal,
        (_PERPLEXITY.name, _BITS.name),
        {"text": "columns", "max_length": "number", "block": "number"},
    ),
    "masked-lm": Kind(
        "Masked language model",
        _masked,
        (_PERPLEXITY.name,),
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
        TaskError: TOML cannot hold one of the texts.
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
        raise TaskError("A name or a path holds characters that TOML cannot hold.")
    with new_file(path) as file:
        file.write(text.encode())


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_toml(key)} = {_toml(each)}' for key, each in value.items())} }}"
    return json.dumps(value, ensure_ascii=False)  # texts, numbers and lists are the same in TOML


def paths_of(path: Path) -> list[Path]:
    """Return the files that a description names: data, configurations and tokenizers.

    Raises:
        TaskError: The file is not of this form.
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
