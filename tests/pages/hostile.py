"""A sweep and a task whose names are full of markup, and what pages send of them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from safetensors.torch import save_file
from streamlit.testing.v1 import AppTest

from tests.toy import moved, random_state

RUNS = 3

# A piece of each language that a page is written in; file names have no "/".
MARKUP = (
    "![x](https:evil.example) <b>b</b> &lt; :red[z] :smile: $y$ `c` www.evil.example "
    ":material_home: %{x} a -> b **d** | e"
).replace("/", "")
# None of these pieces may reach a browser as it is.
RAW = (
    "![x](", "<b>", ":red[", ":smile:", "$y$", "`c`", "www.", "www\\.", ":material_home:",
    " -> b", "**d",
)  # fmt: skip

# One value of another kind, or none at all, disables nothing else.
ODD: tuple[Any, ...] = (10**30, float("nan"), "0.1")

TASK = f"""
import torch
from pathlib import Path
from safetensors.torch import load_file
from soupcore import ClassificationTask, Split
from tests.toy import FEATURES, build_model, logits, random_state

markup = {MARKUP!r}

def split(role, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(60, FEATURES, generator=generator)
    labels = logits(random_state(0), inputs).argmax(1)
    labels[::5] = (labels[::5] + 1) % 3
    return Split(role, inputs, labels)

splits = {{"train": split("train", 1), "select " + markup: split("select", 2),
          "report " + markup: split("report", 3), "shift/a " + markup: split("shift", 4),
          "shift/b " + markup: split("shift", 5)}}
task = ClassificationTask(build_model, splits, name="task " + markup)
task.score_name = "score " + markup
task.loss_name = "loss " + markup
"""


def write(folder: Path) -> tuple[Path, str]:
    """Write the sweep and its task; return the sweep's folder and how the task is named."""
    place = folder / f"tasks {MARKUP}"
    place.mkdir(parents=True)
    (place / "task.py").write_text(TASK)
    sweep = folder / f"sweep {MARKUP}"
    sweep.mkdir()
    base = random_state(0)
    save_file(base, sweep / "base.safetensors")
    rows = []
    for number in range(RUNS):
        name = f"run {number} {MARKUP}"
        save_file(moved(base, 0.3 + 0.2 * number, number + 1), sweep / f"{name}.safetensors")
        rows.append(
            {
                "checkpoint": name,
                f"lr {MARKUP}": 10.0**-number,
                f"kind {MARKUP}": f"{'ab'[number % 2]} {MARKUP}",
                "odd": ODD[number],
                "": number,
                "a/b": number % 2,
                "base_model": MARKUP,
            }
        )
    (sweep / "broken ![x](https:evil.example).safetensors").write_bytes(b"")
    (sweep / "sweep.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return sweep, f"{place / 'task.py'}:task"


# Texts that browsers do not look for markup in: fields of Streamlit's messages. All others are.
_AS_THEY_ARE = re.compile(
    r"\w+\.(id|form_id|column_order|columns)"
    r"|Code\.code_text|TextInput\.default|(Selectbox|MultiSelect)\.options|LinkButton\.url"
    r"|PlotlyChart\.(spec|config)"
)


def shown(page: AppTest) -> Iterator[tuple[str, str]]:
    """Give the texts of a page that are shown as Markdown, each with its place."""
    for node in page._tree:
        message = getattr(node, "proto", None)
        if isinstance(message, Message):
            for place, text in _texts(message, type(message).__name__):
                if not _AS_THEY_ARE.fullmatch(place):
                    yield place, text
    for table in page.table:
        yield from (("Table", str(cell)) for cell in table.value.to_numpy().ravel())


def figures(page: AppTest) -> Iterator[dict[str, Any]]:
    """Give the figures of a page."""
    for node in page._tree:
        message: Any = getattr(node, "proto", None)
        if type(message).__name__ == "PlotlyChart":
            yield json.loads(message.spec)


def _texts(message: Message, path: str) -> Iterator[tuple[str, str]]:
    for field, value in message.ListFields():
        is_one = isinstance(value, str | bytes | bool | int | float | Message)
        for each in [value] if is_one else value:
            if isinstance(each, Message):
                yield from _texts(each, f"{path}.{field.name}")
            elif isinstance(each, str):
                yield f"{path}.{field.name}", each
