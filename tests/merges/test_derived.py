from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from soupcore import (
    Checkpoint,
    CheckpointError,
    Evaluator,
    Mixture,
    Soup,
    Sweep,
    SweepError,
    dare,
    greedy,
    linear_path,
    model_stock,
    open_checkpoint,
    slerp,
    ties,
    uniform,
    wise_ft,
)
from soupcore.merges import Dare, Derived, Group, Grouped, Ties, merge_from_json
from tests.helpers import State, held_sweep, same_bits, same_weights, save_checked
from tests.recipes.states import fine_tuned

MAKERS: dict[str, Callable[[Sweep], Soup]] = {
    "ties": ties,
    "ties by tensor": lambda sweep: ties(sweep, trim="tensor"),
    "dare": dare,
    "dare with ties": lambda sweep: dare(sweep, combine="ties"),
    "model stock": model_stock,
    "slerp": lambda sweep: slerp(sweep, sweep.names()[:2]),
    "kept head": lambda sweep: wise_ft(sweep, keep=next(iter(sweep["base"].checkpoint.tensors))),
    "linear": uniform,
}
ALL = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@pytest.fixture(scope="module")
def merges() -> list[tuple[Derived, State]]:
    """Merges of tensors longer than what is computed at a time, and their weights."""
    base, states = fine_tuned(0, 3)
    sweep = held_sweep(states, base)
    made = [make(sweep).checkpoint for make in MAKERS.values()]
    return [(merge, merge.state_dict()) for merge in made]


@given(st.integers(0, len(MAKERS) - 1), st.integers(0, 40_000), st.integers(0, 40_000))
def test_any_range_is_that_part_of_the_whole(
    merges: list[tuple[Derived, State]], number: int, one: int, other: int
) -> None:
    merge, weights = merges[number]
    start, stop = sorted((one, other))
    expected = weights["head"].flatten()[start:stop]
    assert same_bits(merge.read_elements("head", start, stop), expected)
    out = torch.empty(stop - start)
    merge.read_into("head", start, out)
    assert same_bits(out, expected)


@ALL
def test_a_merge_is_a_checkpoint_that_is_evaluated_and_written_like_a_file(
    tmp_path: Path, sweep: Sweep, evaluator: Evaluator, make: Callable[[Sweep], Soup]
) -> None:
    soup = make(sweep)
    save_checked(soup, tmp_path / "soup.safetensors")
    written = load_file(tmp_path / "soup.safetensors")
    assert same_weights(written, soup.checkpoint.state_dict())
    file = Mixture([(open_checkpoint(tmp_path / "soup.safetensors"), 1)])
    found, again = (evaluator.evaluate(point, "val") for point in (soup.mixture, file))
    assert torch.equal(found.outputs, again.outputs)


@ALL
def test_a_soup_is_an_end_of_a_path_and_an_ingredient_again(
    sweep: Sweep, evaluator: Evaluator, make: Callable[[Sweep], Soup]
) -> None:
    soup = make(sweep)
    path = linear_path(soup.mixture, sweep["run1"], evaluator, 3)
    assert path.losses[0] == evaluator.evaluate(soup.mixture, "val").loss
    more = sweep.including({"soup": soup.checkpoint})
    assert more.names() == [*sweep.names(), "soup"]
    again = uniform(more, ["run1", "soup"])
    assert again.to_json()["digests"]["soup"] == soup.checkpoint.digest
    expected = (soup.state_dict()["0.weight"] + sweep["run1"].checkpoint.read("0.weight")) / 2
    torch.testing.assert_close(again.state_dict()["0.weight"], expected)
    nested = ties(more, ["run1", "soup"])
    assert Soup.from_json(more, nested.to_json()).mixture == nested.mixture
    assert "soup" in greedy(more, evaluator, ["soup"]).coefficients
    with pytest.raises(SweepError, match="'run1'; use another name"):
        sweep.including({"run1": soup.checkpoint})


@ALL
def test_merges_round_trip_through_json(sweep: Sweep, make: Callable[[Sweep], Soup]) -> None:
    merge = make(sweep).checkpoint
    names = {sweep[name].digest: name for name in [*sweep.names(), "base"]}
    body = merge.to_json(lambda source: names[source.digest])
    again = merge_from_json(body, lambda name: sweep[name].checkpoint)
    assert type(again) is type(merge)
    assert again.digest == merge.digest
    assert same_weights(again.state_dict(), merge.state_dict())


def test_an_unknown_merge_is_refused() -> None:
    with pytest.raises(
        CheckpointError,
        match=r"Unknown merge method 'magic'; .* supports grouped, fixed, lora, ties",
    ):
        merge_from_json({"method": "magic"}, lambda name: pytest.fail("not asked for"))


def test_merges_have_different_digests_that_compute_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, states = fine_tuned(1, 3)
    sweep = held_sweep(states, base)
    digests = [sweep[name].digest for name in [*sweep.names(), "base"]]
    soups = [make(sweep) for make in MAKERS.values()]
    monkeypatch.setattr(Derived, "read_into", lambda *_: pytest.fail("computed"))
    others = [
        ties(sweep, density=0.3),
        ties(sweep, scale=2),
        ties(sweep, vote="count"),
        ties(sweep, tie="positive"),
        ties(sweep, ["run1", "run2"]),
        dare(sweep, seed=1),
        dare(sweep, drop=0.6),
        dare(sweep, combine="sum"),
        slerp(sweep, ["run1", "run2"], t=0.3),
    ]
    found = [soup.checkpoint.digest for soup in (*soups, *others)]
    assert len({*found, *digests}) == len(found) + len(digests)
    assert ties(sweep).checkpoint.digest == soups[0].checkpoint.digest
    assert not soups[0].checkpoint.is_scanned


def test_values_that_are_not_finite_are_found_by_a_scan_and_on_writing(
    tmp_path: Path,
) -> None:
    base = {"w": torch.tensor([3e38, 1.0]), "v": torch.tensor([1.0])}
    state = {"w": torch.tensor([-3e38, 2.0]), "v": torch.tensor([2.0])}
    sweep = held_sweep({"run": state}, base)
    soup = ties(sweep, density=1, scale=2)
    done: list[int] = []
    assert soup.checkpoint.scan(done.append)["w"].nonfinite == 1
    assert sum(done) == soup.checkpoint.nbytes
    assert soup.checkpoint.is_scanned
    assert soup.checkpoint.nonfinite == {"w": 1}
    with pytest.raises(CheckpointError, match=r"'w' of the soup .* NaN, infinite"):
        save_checked(soup, tmp_path / "soup.safetensors")


def test_a_source_changed_since_is_named(sweep: Sweep, tmp_path: Path) -> None:
    soup = ties(sweep)
    save_file({"w": torch.ones(1)}, sweep["run2"].checkpoint.path)
    with pytest.raises(CheckpointError, match=r"run2\.safetensors was changed"):
        save_checked(soup, tmp_path / "soup.safetensors")
    with pytest.raises(CheckpointError, match=r"run2\.safetensors was changed"):
        soup.checkpoint.check_unchanged()


def test_metadata_and_other_tensors_come_from_an_ingredient(
    tmp_path: Path, base_state: State, states: dict[str, State]
) -> None:
    for name, state in ({"base": base_state} | states).items():
        state["0.weight"] = state["0.weight"].clone()
        save_file(state, tmp_path / f"{name}.safetensors", {"format": "pt", "from": name})
    sweep = Sweep.from_folder(tmp_path)
    merge = ties(sweep).checkpoint
    assert merge.metadata["format"] == "pt"
    assert merge.metadata["from"] in states
    assert merge.state_dict()["1.num_batches_tracked"].item() == 7
    assert {path.name for path in merge.files} == {
        f"{name}.safetensors" for name in ("base", *states)
    }


def test_every_tensor_is_in_one_group(sweep: Sweep) -> None:
    tensors = tuple(sweep["run1"].checkpoint.tensors)
    point = sweep["run1"].mixture
    with pytest.raises(CheckpointError, match=r"'0\.bias' is in no group"):
        Grouped({"a": Group(tuple(t for t in tensors if t != "0.bias"), point)})
    with pytest.raises(CheckpointError, match=r"'0\.bias' is in 2 groups"):
        Grouped({"a": Group(tensors, point), "b": Group(("0.bias",), point)})
    with pytest.raises(CheckpointError, match=r"'5\.bias' is not in the checkpoints"):
        Grouped({"a": Group((*tensors, "5.bias"), point)})


def test_checkpoints_that_do_not_fit_each_other_are_refused() -> None:
    base, states = fine_tuned(2, 2)
    base["head"] = base["head"][:-1]
    with pytest.raises(CheckpointError, match="'head' has shape"):
        ties(held_sweep(states, base))


def test_groups_of_checkpoints_with_other_tensors_are_refused() -> None:
    base, states = fine_tuned(2, 2)
    names = tuple(base)
    del base["head"]
    sweep = held_sweep(states, base)
    assert sweep.base is not None
    both = sweep.mixture({"base": 1, "run1": 1})
    with pytest.raises(CheckpointError, match="base has no tensor 'head', which run1 has"):
        Grouped({"all": Group(names, both)})
    head = Group(("head",), sweep["run1"].mixture)
    others = Group(tuple(set(names) - {"head"}), sweep.base.mixture)
    assert Grouped({"head": head, "others": others}).tensors.keys() == set(names)


def test_merges_are_checkpoints() -> None:
    base, states = fine_tuned(3, 2)
    sweep = held_sweep(states, base)
    assert isinstance(ties(sweep).merge, Ties)
    assert isinstance(dare(sweep).merge, Dare)
    assert isinstance(model_stock(sweep).merge, Grouped)
    assert all(isinstance(make(sweep).checkpoint, Checkpoint) for make in MAKERS.values())
    assert uniform(sweep).merge is None
    assert uniform(sweep).coefficients["run1"] == Fraction(1, 2)
