"""Whatever lies in a folder, it opens or is refused with the fit report, and nothing is lost."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from soupcore import StockpotError, Sweep, uniform
from soupcore.sweeps import UnusableSweepError
from tests.helpers import State
from tests.toy import random_state

Write = Callable[[Path], None]


def weights(change: Callable[[State], State]) -> Write:
    """Write the weights of a run, changed; which run it is its name says."""
    return lambda path: write_to(path, save(change(random_state(len(path.name)))), ".safetensors")


def content(data: bytes, suffix: str) -> Write:
    return lambda path: write_to(path, data, suffix)


def write_to(path: Path, data: bytes, suffix: str) -> None:
    path.with_name(path.name + suffix).write_bytes(data)


def link(target: str) -> Write:
    return lambda path: path.with_name(f"{path.name}.safetensors").symlink_to(target)


def folder(*inside: str) -> Write:
    def write(path: Path) -> None:
        path.mkdir()
        for name in inside:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(save({"w": torch.ones(2)}))

    return write


def without(part: str) -> Callable[[State], State]:
    return lambda state: {name: tensor for name, tensor in state.items() if part not in name}


def plus(**more: torch.Tensor) -> Callable[[State], State]:
    return lambda state: state | {name: tensor.clone() for name, tensor in more.items()}


def prefixed(state: State) -> State:
    return {f"net.{name}": tensor for name, tensor in state.items()}


def diverged(state: State) -> State:
    return state | {"3.bias": torch.full((3,), torch.nan)}


GOOD: dict[str, Write] = {
    "plain": weights(dict),
    "prefixed": weights(prefixed),
    "ids": weights(plus(ids=torch.arange(4))),
    "no counter": weights(without("num_batches")),
    "profiled": weights(plus(total_ops=torch.zeros(1))),
    "half": weights(
        lambda state: {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    ),
}
BAD: dict[str, Write] = {
    "diverged": weights(diverged),
    "no head": weights(without("3.")),
    "more classes": weights(plus(**{"3.weight": torch.ones(9, 8), "3.bias": torch.ones(9)})),
    "stranger": weights(lambda state: {"x": torch.ones(3)}),
    "adapter": weights(lambda state: {f"q.lora_{f}.weight": torch.ones(2, 2) for f in "AB"}),
    "no tensors": weights(lambda state: {}),
    "empty": content(b"", ".safetensors"),
    "text": content(b"<html>not found</html>", ".safetensors"),
    "short": content(save({"w": torch.ones(9)})[:-8], ".safetensors"),
    "index": content(b'{"weight_map": {"w": "gone.safetensors"}}', ".safetensors.index.json"),
    "dangling": link("/nowhere/at/all"),
    "empty folder": folder(),
    "deep folder": folder("a/b/c/model.safetensors"),
    "unclear folder": folder("one.bin", "two.bin"),
}  # fmt: skip
OTHER: dict[str, Write] = {
    "notes": content(b"hello", ".md"),
    "table": content(b"Name;lr\r\na;1\r\nb;2;3\r\n", ".csv"),
    "log": content(b'[{"step": 1}]', ".json"),
}
KINDS = GOOD | BAD | OTHER
NEVER_OPENED = BAD.keys() - {"no head", "more classes", "stranger"}  # these fit others like them
# What a base has or lacks if an ingredient is of that kind.
PARTIAL = {
    "no head": "has 2 tensors that the ingredients lack: 3.bias, 3.weight",
    "more classes": "has 2 tensors in other shapes: 3.bias, 3.weight",
}
NAMES = st.sampled_from(["a", "b", "c", "d", "e", "base", "sweep", os.fsdecode(b"caf\xe9")])


@settings(max_examples=60)
@given(
    st.dictionaries(NAMES, st.sampled_from(sorted(KINDS)), max_size=5),
    st.sampled_from([None, None, "base", "a"]),
)
def test_any_folder_opens_or_is_refused_with_the_fit_report(
    kinds: dict[str, str], base: str | None
) -> None:
    with TemporaryDirectory() as place:
        for name, kind in kinds.items():
            KINDS[kind](Path(place) / name)
        try:
            sweep = Sweep.from_folder(place, base=base)
        except UnusableSweepError as error:
            opened, fit = set[str](), error.fit
            assert base or not any(kind in GOOD for name, kind in kinds.items() if name != "base")
        else:
            fit = sweep.fit
            opened = {*sweep.ingredients, *([sweep.base.name] if sweep.base else [])}
            uniform(sweep).state_dict()
        told = {finding.ingredient.partition(".")[0] for finding in fit.findings}
        told |= {name.partition(".")[0] for name in fit.others}
        for name, kind in kinds.items():
            shown = name.encode(errors="backslashreplace").decode()
            used_as_table = kind == "log" or (kind, name) == ("table", "sweep")
            refused_with_others = not opened and kind not in NEVER_OPENED
            assert shown in opened | told or used_as_table or refused_with_others
            assert shown not in opened or kind not in NEVER_OPENED


@pytest.mark.parametrize("kind", sorted(BAD.keys() - PARTIAL))
@pytest.mark.parametrize("alone", [True, False])
def test_a_base_and_nothing_that_fits_it_is_refused_with_the_reason(
    tmp_path: Path, kind: str, alone: bool
) -> None:
    GOOD["plain"](tmp_path / "base")
    if not alone:
        BAD[kind](tmp_path / "run")
    with pytest.raises(UnusableSweepError, match="no usable checkpoint except the base"):
        Sweep.from_folder(tmp_path)


@pytest.mark.parametrize(("kind", "problem"), PARTIAL.items())
def test_a_base_with_another_head_fits_in_part(tmp_path: Path, kind: str, problem: str) -> None:
    GOOD["plain"](tmp_path / "base")
    BAD[kind](tmp_path / "run")
    sweep = Sweep.from_folder(tmp_path)
    assert sweep.base is not None
    (note,) = sweep.fit.findings
    assert (note.severity, note.ingredient) == ("note", "base")
    assert problem in note.problem


def test_a_torch_file_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    written = io.BytesIO()
    torch.save(random_state(1), written)
    (tmp_path / "a.t7").write_bytes(written.getvalue())
    (tmp_path / "b.t7").write_bytes(written.getvalue()[:-100])
    sweep = Sweep.from_folder(tmp_path)
    assert ([*sweep.ingredients], sweep.fit.misfits) == (["a"], {"b"})


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StockpotError, match="is not a folder"):
        Sweep.from_folder(tmp_path / "gone")
