import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, recall_score
from torch import Tensor

from soupcore import Evaluator, Store, Sweep, TaskError, greedy, load_task
from soupcore.tasks.language_models import entities
from tests.tasks.toml_files import write_toml

WORDS = [
    "free",
    "prize",
    "win",
    "call",
    "now",
    "see",
    "you",
    "later",
    "at",
    "home",
    "ok",
    "thanks",
    "lunch",
    "money",
    "text",
]
N = 40


def texts(n: int, seed: int) -> list[str]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 9, (n,), generator=generator).tolist()
    return [
        " ".join(WORDS[i] for i in torch.randint(len(WORDS), (k,), generator=generator))
        for k in lengths
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three tables of one content in three formats."""
    rows = [
        {"label": ["ham", "spam"]["free" in text or "prize" in text], "text": text}
        for text in texts(N, 1)
    ]
    with (tmp_path / "val.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["label", "text"])
        writer.writeheader()
        writer.writerows(rows)
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "val.jsonl").write_text("\n".join(lines))
    (tmp_path / "val.tsv").write_text("".join(f"{r['label']}\t{r['text']}\n" for r in rows))
    pd.DataFrame(rows).to_parquet(tmp_path / "val.parquet")
    return tmp_path


def describe(folder: Path, **settings: Any) -> str:
    return write_toml("hf", folder, **{"splits": {"select": "val.csv"}} | settings)


SMS = {"task": "text-classification", "model": "runs/base", "text": "text", "label": "label"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "translation"}, "`task` is one of text-classification, token-classification"),
        ({"task": 3}, "needs `task`, a text"),
        ({"model": "nowhere"}, r"nowhere/config\.json does not exist. Give as `model` a folder"),
        ({"lable": "x"}, "unknown setting lable; known settings: "),
        ({"task": "causal-lm", "group": "x"}, "`group` is not a setting of causal-lm"),
    ],
)
def test_a_description_of_another_form_is_refused(
    folder: Path, change: dict[str, Any], words: str
) -> None:
    (folder / "runs/base").mkdir(parents=True)
    (folder / "runs/base/config.json").write_text("{}")
    with pytest.raises(TaskError, match=words):
        load_task(describe(folder, **SMS | change))


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_configuration_that_is_no_json_object_is_named(folder: Path, text: str) -> None:
    (folder / "runs/base").mkdir(parents=True)
    (folder / "runs/base/config.json").write_text(text)
    with pytest.raises(TaskError, match=r"runs/base/config\.json is not "):
        load_task(describe(folder, **SMS))


def test_a_file_that_is_no_toml_is_named(folder: Path) -> None:
    (folder / "task.toml").write_text("task = ")
    with pytest.raises(TaskError, match=r"task\.toml is not valid TOML"):
        load_task(f"hf:{folder / 'task.toml'}")


def test_tasks_without_transformers_say_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "runs/base").mkdir(parents=True)
    (folder / "runs/base/config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(TaskError, match="needs the package transformers: pip install"):
        load_task(describe(folder, **SMS))


# With transformers


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = {word: number for number, word in enumerate([*special, *WORDS])}
    fast = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))  # noqa: S106 - no secret
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )  # fmt: skip
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        eos_token="[SEP]",  # noqa: S106 - no password
        model_max_length=16,
        **names,
    )


def network(kind: str) -> Any:
    import transformers

    size = len(WORDS) + 5
    if kind == "CausalLM":
        config: Any = transformers.GPT2Config(
            vocab_size=size, n_embd=16, n_layer=1, n_head=2, n_positions=16,
            bos_token_id=2, eos_token_id=3,
        )  # fmt: skip
    else:
        config = transformers.DistilBertConfig(
            vocab_size=size, dim=16, hidden_dim=32, n_layers=1, n_heads=2,
            max_position_embeddings=16, label2id={"ham": 0, "spam": 1},
            id2label={0: "ham", 1: "spam"},
        )  # fmt: skip
    return getattr(transformers, f"AutoModelFor{kind}").from_config(config).eval()


@pytest.fixture
def networks(folder: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    """A base and runs of a kind, saved as transformers does."""
    found = {}
    for seed, name in enumerate(["base", "run-1", "run-2", "run-3"]):
        torch.manual_seed(seed)
        found[name] = network(request.param)
        found[name].save_pretrained(folder / "runs" / name)
        tokenizer().save_pretrained(folder / "runs" / name)
    return found


def logits_of(model: Any, table: pd.DataFrame, columns: list[str]) -> Tensor:
    """The plain way: one text after the other."""
    read = tokenizer()
    found = []
    for row in table[columns].itertuples(index=False):
        encoded = read(*row, return_tensors="pt", truncation=True, max_length=16)
        encoded.pop("token_type_ids", None)
        with torch.no_grad():
            found.append(model(**encoded).logits)
    return torch.cat(found)


@pytest.mark.integration
@pytest.mark.parametrize("networks", ["SequenceClassification"], indirect=True)
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "tsv", "parquet"])
@pytest.mark.parametrize("columns", [["text"], ["text", "label"]], ids=["one", "pairs"])
def test_texts_are_classified_as_by_transformers(
    folder: Path, store: Store, networks: dict[str, Any], suffix: str, columns: list[str]
) -> None:
    told = SMS | {"text": columns if len(columns) > 1 else "text", "metrics": ["macro F1"]}
    told |= {"columns": ["label", "text"]} if suffix == "tsv" else {}
    task = load_task(describe(folder, **told, splits={"select": f"val.{suffix}"}))
    sweep = Sweep.from_folder(folder / "runs")
    evaluator = Evaluator(task, store, device="cpu", batch_size=7)
    table = pd.read_csv(folder / "val.csv")
    targets = torch.tensor([["ham", "spam"].index(label) for label in table["label"]])
    assert torch.equal(task.split("select").targets, targets)
    for row, cells in enumerate(table[columns].itertuples(index=False)):
        assert task.show("select", row).text == f"{table['label'][row]}: {' | '.join(cells)}"
    for name in sweep.ingredients:
        found = evaluator.evaluate(sweep[name].mixture, "select")
        logits = logits_of(networks[name], table, columns)
        torch.testing.assert_close(found.outputs, logits, rtol=1e-5, atol=1e-6)
        expected = f1_score(targets, logits.argmax(1), average="macro", zero_division=0)
        assert found.score == pytest.approx(expected)
    assert greedy(sweep, evaluator).evaluations["select"].score >= 0


@pytest.mark.integration
@pytest.mark.parametrize("networks", ["SequenceClassification"], indirect=True)
def test_groups_precision_and_held_out_texts_are_as_described(
    folder: Path, store: Store, networks: dict[str, Any]
) -> None:
    told: dict[str, Any] = SMS | {"group": "label"}
    told |= {"metrics": ["worst-group accuracy", "accuracy by group"]}
    told |= {"precision": "bfloat16", "hold_out": 0.25, "hold_out_seed": 3}
    task = load_task(describe(folder, **told))
    assert [len(split) for split in task.splits.values()] == [3 * N // 4, N // 4]
    assert (task.groups, task.precision) == (("ham", "spam"), "bfloat16")
    sweep = Sweep.from_folder(folder / "runs")
    found = Evaluator(task, store, device="cpu").evaluate(sweep["run-1"].mixture, "report")
    targets = task.split("report").targets
    recalls = recall_score(targets, found.predictions, average=None, labels=[0, 1])
    assert [found.all_scores[f"accuracy, {name}"] for name in task.groups] == recalls.tolist()
    assert found.score == recalls.min()
    table = pd.read_csv(folder / "val.csv")
    logits = logits_of(networks["run-1"], table, ["text"])
    rows = task.splits["report"].rows  # type: ignore[attr-defined]
    torch.testing.assert_close(found.outputs, logits[rows], rtol=0.05, atol=0.05)
    shown = [task.show("report", index).text for index in range(len(rows))]
    assert shown == [f"{table['label'][row]}: {table['text'][row]}" for row in rows.tolist()]


@pytest.mark.integration
@pytest.mark.parametrize("networks", ["SequenceClassification"], indirect=True)
def test_texts_are_weighted_by_a_column(
    folder: Path, store: Store, networks: dict[str, Any]
) -> None:
    table = pd.read_csv(folder / "val.csv")
    table["importance"] = [row % 4 / 2 for row in range(len(table))]
    table.to_csv(folder / "val.csv", index=False)
    task = load_task(describe(folder, **SMS | {"weight": "importance"}))
    found = Evaluator(task, store, device="cpu").evaluate(
        Sweep.from_folder(folder / "runs")["run-1"].mixture, "select"
    )
    right = logits_of(networks["run-1"], table, ["text"]).argmax(1) == task.split("select").targets
    expected = accuracy_score([True] * len(table), right, sample_weight=table["importance"])
    assert found.score == pytest.approx(expected)
    table["importance"] = "much"
    table.to_csv(folder / "val.csv", index=False)
    with pytest.raises(TaskError, match="'importance' contains a weight that is not a number"):
        load_task(describe(folder, **SMS | {"weight": "importance"}))


@pytest.mark.integration
@pytest.mark.parametrize("networks", ["CausalLM"], indirect=True)
@pytest.mark.parametrize("block", [None, 8])
def test_perplexity_is_that_of_transformers(
    folder: Path, store: Store, networks: dict[str, Any], block: int | None
) -> None:
    told: dict[str, Any] = {"task": "causal-lm", "model": "runs/base", "text": "text"}
    task = load_task(describe(folder, **told | ({"block": block} if block else {})))
    sweep = Sweep.from_folder(folder / "runs")
    found = Evaluator(task, store, device="cpu", batch_size=7).evaluate(
        sweep["run-1"].mixture, "select"
    )
    nats, tokens, spelled = 0.0, 0, 0
    for text in task.split("select").inputs["input_ids"]:
        with torch.no_grad():
            loss = networks["run-1"](input_ids=text[None], labels=text[None]).loss
        nats += float(loss) * (len(text) - 1)
        tokens += len(text) - 1
        spelled += len(tokenizer().decode(text[1:]).encode())
    for row, tokens_of in enumerate(task.split("select").inputs["input_ids"]):
        assert task.show("select", row).text.split() == [
            WORDS[token - 5] for token in tokens_of.tolist() if token >= 5
        ]
    assert -found.score == pytest.approx(math.exp(nats / tokens), rel=1e-5)
    bits = nats / math.log(2) / spelled
    assert -found.all_scores["bits per byte"] == pytest.approx(bits, rel=1e-5)
    assert found.outputs.shape == (found.n, 2)
    assert task.score_unit.text(found.score) == f"{math.exp(nats / tokens):#.4g}"


@pytest.mark.integration
@pytest.mark.parametrize("networks", ["MaskedLM"], indirect=True)
def test_masked_tokens_are_the_same_each_time(
    folder: Path, store: Store, networks: dict[str, Any]
) -> None:
    spec = describe(folder, task="masked-lm", model="runs/base", text="text", max_length=16)
    task, again = load_task(spec), load_task(spec)
    split = task.split("select")
    assert split.digest == again.split("select").digest
    shown = [task.show("select", row).text for row in range(len(split))]
    assert shown == pd.read_csv(folder / "val.csv")["text"].tolist()
    labels = torch.cat(list(split.targets))
    inputs = torch.cat(list(split.inputs["input_ids"]))
    hidden = labels != -100
    assert 0.05 < hidden.float().mean() < 0.25
    assert bool((inputs[hidden] == 4).all())
    assert not (inputs[~hidden] == 4).any()
    sweep = Sweep.from_folder(folder / "runs")
    found = Evaluator(task, store, device="cpu").evaluate(sweep["run-1"].mixture, "select")
    nats = 0.0
    for text, mask, words in zip(
        split.inputs["input_ids"], split.inputs["attention_mask"], split.targets, strict=True
    ):
        with torch.no_grad():
            logits = networks["run-1"](text[None], mask[None]).logits[0]
        nats += float(torch.nn.functional.cross_entropy(logits, words, reduction="sum"))
    assert -found.score == pytest.approx(math.exp(nats / int(hidden.sum())), rel=1e-5)


@pytest.mark.integration
@pytest.mark.parametrize("networks", ["SequenceClassification"], indirect=True)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text": "message"}, r"val\.csv has no column 'message'; it has label, text"),
        ({"text": ["a", "b", "c"]}, "`text`, the name of one column or a list of two"),
        ({"label": "text"}, "the labels .* are not numbers, .* has ham, spam"),
        ({"metrics": "F1"}, "`metrics` must be a list of texts"),
        ({"metrics": ["f1"]}, "no metric 'f1'"),
        ({"max_length": 0}, "`max_length` must be an integer > 0, not 0"),
        ({"splits": {}}, r"needs a table \[splits\]"),
        ({"splits": {"select": "val.xlsx"}}, r"val\.xlsx has an unsupported extension; use \.csv"),
        ({"splits": {"select": "no.csv"}}, r"no\.csv cannot be read"),
        ({"splits": {"dev": "val.csv"}}, "the split 'dev' needs a file and a role"),
        ({"splits": {"report": "val.csv"}}, "exactly one split with the role 'select'"),
    ],
)
def test_missing_data_are_named(
    folder: Path, networks: dict[str, Any], change: dict[str, Any], words: str
) -> None:
    with pytest.raises(TaskError, match=words):
        load_task(describe(folder, **SMS | change))


TAGS = ["O", "B-A", "I-A", "B-B", "I-B"]


@pytest.mark.integration
def test_tags_are_scored_as_by_a_plain_loop(folder: Path, store: Store) -> None:
    import transformers

    generator = torch.Generator().manual_seed(3)
    rows = []
    for text in texts(25, 4):
        words = text.split()
        tags = torch.randint(len(TAGS), (len(words),), generator=generator).tolist()
        rows.append({"words": words, "tags": [TAGS[tag] for tag in tags]})
    (folder / "val.jsonl").write_text("\n".join(map(json.dumps, rows)))
    torch.manual_seed(0)
    config: Any = transformers.DistilBertConfig(
        vocab_size=len(WORDS) + 5, dim=16, hidden_dim=32, n_layers=1, n_heads=2,
        max_position_embeddings=16, label2id={tag: i for i, tag in enumerate(TAGS)},
        id2label=dict(enumerate(TAGS)),
    )  # fmt: skip
    model = transformers.AutoModelForTokenClassification.from_config(config).eval()
    model.save_pretrained(folder / "runs" / "run-1")
    tokenizer().save_pretrained(folder / "runs" / "run-1")
    spec = describe(
        folder, task="token-classification", model="runs/run-1", text="words", label="tags",
        splits={"select": "val.jsonl"},
    )  # fmt: skip
    task = load_task(spec)
    found = Evaluator(task, store, device="cpu", batch_size=7).evaluate(
        Sweep.from_folder(folder / "runs")["run-1"].mixture, "select"
    )
    right = words_seen = hits = said = true = 0
    for row in rows:
        encoded = tokenizer()([row["words"]], is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            logits = model(encoded["input_ids"], encoded["attention_mask"]).logits[0, 1:-1]
        tags = [TAGS[tag] for tag in logits.argmax(1).tolist()]
        right += sum(one == other for one, other in zip(tags, row["tags"], strict=True))
        words_seen += len(tags)
        hits += len(entities(tags) & entities(row["tags"]))
        said, true = said + len(entities(tags)), true + len(entities(row["tags"]))
    assert found.score == pytest.approx(2 * hits / (said + true))
    assert found.all_scores["token accuracy"] == pytest.approx(right / words_seen)
    shown = [task.show("select", row).text for row in range(len(rows))]
    assert shown == [" ".join(row["words"]) for row in rows]


@pytest.mark.integration
@pytest.mark.parametrize(("words", "tags"), [("ab", "11"), (1, 1)])
def test_words_and_tags_must_be_lists(folder: Path, words: object, tags: object) -> None:
    (folder / "val.csv").write_text(f"words,tags\n{words},{tags}\n")
    run = folder / "runs" / "run-1"
    tokenizer().save_pretrained(run)
    (run / "config.json").write_text("{}")
    spec = describe(
        folder, task="token-classification", model="runs/run-1", text="words", label="tags"
    )
    with pytest.raises(TaskError, match="'words' and 'tags' need a list of words and as many tags"):
        load_task(spec)


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["hf", "imagefolder"])
def test_images_are_classified_as_by_transformers(tmp_path: Path, store: Store, kind: str) -> None:
    import numpy as np
    import transformers
    from PIL import Image

    run = tmp_path / "runs" / "run-1"
    torch.manual_seed(0)
    config: Any = transformers.ViTConfig(
        image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, label2id={"dog": 0, "cat": 1}, id2label={0: "dog", 1: "cat"},
    )  # fmt: skip
    model = transformers.AutoModelForImageClassification.from_config(config).eval()
    model.save_pretrained(run)
    processor: Any = transformers.AutoImageProcessor
    made: Any = transformers.ViTImageProcessorPil(size={"height": 16, "width": 16})
    made.save_pretrained(run)
    rng = np.random.default_rng(0)
    logits, rows = [], []
    for number in range(9):
        name = ("cat", "dog")[number % 2]
        place = tmp_path / "val" / name / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))
        image.save(place)
        rows.append((name, f"val/{name}/{number}.png"))
    opened = processor.from_pretrained(run, backend="pil")
    rows.sort()
    for _, file in rows:
        with torch.no_grad():
            logits.append(
                model(**opened(images=Image.open(tmp_path / file), return_tensors="pt")).logits
            )
    (tmp_path / "val.csv").write_text("label,file\n" + "".join(f"{a},{b}\n" for a, b in rows))
    if kind == "hf":
        spec = describe(
            tmp_path, task="image-classification", model="runs/run-1", image="file", label="label"
        )
    else:
        spec = write_toml("imagefolder", tmp_path, {"val": "val"}, model="runs/run-1")
    task = load_task(spec)
    found = Evaluator(task, store, device="cpu").evaluate(
        Sweep.from_folder(tmp_path / "runs")["run-1"].mixture, task.select
    )
    targets = torch.tensor([["dog", "cat"].index(name) for name, _ in rows])
    assert torch.equal(task.split(task.select).targets, targets)
    torch.testing.assert_close(found.outputs, torch.cat(logits), rtol=1e-4, atol=1e-5)
    for row, (name, file) in enumerate(rows):
        shown = task.show(task.select, row)
        assert shown.text == name
        assert shown.image is not None
        np.testing.assert_array_equal(shown.image, np.array(Image.open(tmp_path / file)))
