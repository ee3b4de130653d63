from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from soupcore import Evaluator, NothingFitsError, Soup, Sweep, rebuild, ties, uniform
from tests.helpers import State, average, same_bits, same_weights, save_checked, save_sweep
from tests.toy import moved, random_state

pytestmark = pytest.mark.usefixtures("read_in_this_process")

BASE = random_state(0)
RUNS = {name: moved(BASE, 0.3, seed) for seed, name in enumerate("abcdef", start=1)}
IDS = torch.arange(8)[None]
FREQUENCIES = 1 / 10_000 ** (torch.arange(4.0) / 4)


def opened(folder: Path, states: Mapping[str, Mapping[str, Tensor]]) -> Sweep:
    return Sweep.from_folder(save_sweep(folder / "sweep", states))


def notes(sweep: Sweep) -> dict[str, str]:
    assert {finding.severity for finding in sweep.fit.findings} <= {"note"}
    return {finding.ingredient: finding.problem for finding in sweep.fit.findings}


def with_extra(names: str, extra: Mapping[str, Tensor]) -> dict[str, State]:
    return {n: s | {k: t.clone() for k, t in extra.items() if n in names} for n, s in RUNS.items()}


@pytest.mark.parametrize("names", ["a", "f", "abc", "abcde"])
@pytest.mark.parametrize(
    ("extra", "kind"),
    [
        ({"embeddings.position_ids": IDS}, "whole numbers"),
        ({"0.rotary_emb.inv_freq": FREQUENCIES}, "frequencies of a rotary embedding"),
        ({"0.total_ops": torch.tensor([9.0]), "0.total_params": torch.tensor([9.0])}, "thop"),
        ({"criterion.weight": torch.ones(3)}, "the weights of a loss"),
    ],
    ids=["ids", "frequencies", "profiler", "loss"],
)
def test_tensors_that_are_no_weights_exclude_no_run(
    tmp_path: Path, names: str, extra: State, kind: str
) -> None:
    sweep = opened(tmp_path, with_extra(names, extra))
    assert [*sweep.ingredients] == [*RUNS]
    few = set(names) if len(names) <= 3 else {*RUNS} - set(names)
    assert notes(sweep).keys() == few
    verb = "has" if few == set(names) else "lacks"
    for problem in notes(sweep).values():
        assert problem.startswith(f"{verb} {len(extra)} tensor")
        assert all(tensor in problem for tensor in extra)
        assert kind in problem
    mixed = uniform(sweep).state_dict()
    assert same_weights(mixed, average([*RUNS.values()]))


def test_a_run_without_counters_of_batches_takes_part(tmp_path: Path) -> None:
    old = {n: t for n, t in RUNS["a"].items() if not n.endswith("num_batches_tracked")}
    sweep = opened(tmp_path, RUNS | {"a": old})
    assert [*sweep.ingredients] == [*RUNS]
    assert notes(sweep).keys() == {"a"}
    assert "lacks 1 tensor that others have: 1.num_batches_tracked" in notes(sweep)["a"]


@pytest.mark.parametrize("base", [BASE, BASE | {"position_ids": IDS}])
@pytest.mark.parametrize("names", ["", "ab", "abcdef"])
def test_tensors_that_are_no_weights_may_be_missing_from_the_base(
    tmp_path: Path, base: State, names: str
) -> None:
    sweep = opened(tmp_path, with_extra(names, {"position_ids": IDS}) | {"base": base})
    assert [*sweep.ingredients] == [*RUNS]
    assert sweep.base is not None
    ties(sweep).state_dict()


LEARNED = {
    "position_ids that are learned": {"position_ids": torch.randn(1, 8)},
    "frequencies that are learned": {"0.inv_freq": 1.5 * FREQUENCIES},
    "a head": {"head.weight": torch.randn(2, 3)},
    "centres of a loss": {"criterion.centres": torch.randn(3, 3)},
    "a frozen layer": {"stem.weight": torch.ones(3), "stem.bias": torch.zeros(3)},
    "the scale of one run": {"scale": torch.ones(1)},
}


@pytest.mark.parametrize("names", ["a", "ab"])
@pytest.mark.parametrize("kind", LEARNED)
def test_a_run_with_a_weight_that_others_lack_is_left_out(
    tmp_path: Path, kind: str, names: str
) -> None:
    states = with_extra(names, LEARNED[kind])
    for number, name in enumerate(names, start=1):
        if "frozen" not in kind:
            states[name] |= {n: number * tensor for n, tensor in LEARNED[kind].items()}
    assert opened(tmp_path, states).fit.misfits == set(names)


def test_weights_of_a_loss_that_differ_were_learned(tmp_path: Path) -> None:
    states = {n: s | {"criterion.weight": torch.rand(3)} for n, s in RUNS.items() if n != "a"}
    assert opened(tmp_path, RUNS | states).fit.misfits == {"a"}


@pytest.mark.parametrize(
    ("extra", "fits"),
    [
        ({"0.table": torch.ones(3, 3)}, True),  # its layer was trained, it was not
        ({"normalize.mean": torch.ones(3), "normalize.std": torch.ones(3)}, True),
        ({"frozen.table": torch.ones(3, 3)}, False),  # a layer that may be frozen
    ],
    ids=str,
)
def test_buffers_with_equal_values_may_be_missing(tmp_path: Path, extra: State, fits: bool) -> None:
    sweep = opened(tmp_path, with_extra("abcd", extra))
    assert sweep.fit.misfits == (set() if fits else {"e", "f"})
    alone = opened(tmp_path / "alone", with_extra("a", extra))
    assert alone.fit.misfits == {"a"}


def test_runs_of_one_network_are_the_majority_though_their_extra_tensors_differ(
    tmp_path: Path,
) -> None:
    extras: list[State] = [{}, {"ids": IDS}, {"0.inv_freq": FREQUENCIES}]
    states = {f"r{i}": RUNS["abc"[i]] | extra for i, extra in enumerate(extras)}
    strangers = {f"s{i}": {"other": torch.full((3,), float(i))} for i in range(2)}
    sweep = opened(tmp_path, strangers | states)
    assert [*sweep.ingredients] == [*states]


def test_ids_of_another_length_are_no_misfit(tmp_path: Path) -> None:
    states = {n: s | {"ids": torch.arange(8 + (n == "a"))[None]} for n, s in RUNS.items()}
    assert opened(tmp_path, states).fit.misfits == set()


@pytest.mark.parametrize("form", ["a", "b"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_soup_keeps_values_beside_the_weights_of_its_first_ingredient(
    tmp_path: Path, form: str, suffix: str
) -> None:
    extra = {
        "ids": IDS,
        "0.inv_freq": FREQUENCIES,
        "0.mask": torch.full((3, 3), -torch.inf).triu(1),
    }
    for name, state in {"a": extra | RUNS["a"], "b": RUNS["b"]}.items():
        torch.save(state, tmp_path / f"{name}.pt")
    sweep = Sweep.from_folder(tmp_path, base=None)
    names = ["a", "b"] if form == "a" else ["b"]
    soup = uniform(sweep, names)
    save_checked(soup, tmp_path / f"soup{suffix}", dtype=None if suffix == ".pt" else "float16")
    path = tmp_path / f"soup{suffix}"
    saved = load_file(path) if suffix != ".pt" else torch.load(path)
    assert saved.keys() == {*RUNS["a"], *(extra if form == "a" else ())}
    if form == "a":
        assert all(same_bits(saved[name], tensor) for name, tensor in extra.items())
    mixed = average([RUNS[name] for name in names])
    wanted = mixed if suffix == ".pt" else {
        n: t.half() if t.is_floating_point() else t for n, t in mixed.items()
    }  # fmt: skip
    assert same_weights({name: saved[name] for name in wanted}, wanted)


def test_a_soup_of_runs_with_extra_tensors_is_rebuilt_to_the_byte(tmp_path: Path) -> None:
    sweep = opened(tmp_path, with_extra("ace", {"ids": IDS}))
    soup = uniform(sweep)
    save_checked(soup, tmp_path / "one.safetensors")
    again: Soup = rebuild(soup.to_json(), sweep.folder)
    save_checked(again, tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (
        tmp_path / "two.safetensors"
    ).read_bytes()


def test_runs_with_and_without_are_evaluated_as_one_network(
    tmp_path: Path, evaluator: Evaluator
) -> None:
    plain = opened(tmp_path / "plain", RUNS)
    old = {n: t for n, t in RUNS["b"].items() if "num_batches" not in n}
    sweep = opened(
        tmp_path, with_extra("ac", {"ids": IDS, "0.total_ops": torch.ones(1)}) | {"b": old}
    )
    for weights in ({"a": 1}, {"b": 1}, {"a": 0.5, "b": 0.5}):
        known = evaluator.evaluate(plain.mixture(weights), "val")
        assert evaluator.evaluate(sweep.mixture(weights), "val").loss == known.loss


def prefixed(state: Mapping[str, Tensor], prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize("wrapped", ["a", "abc", "abcdef"])
def test_prefixes_are_removed_despite_other_names(
    tmp_path: Path, wrapped: str, evaluator: Evaluator
) -> None:
    loss = {"criterion.weight": torch.ones(3)}
    states = {n: prefixed(s, "model.") | loss if n in wrapped else s for n, s in RUNS.items()}
    sweep = opened(tmp_path, states)
    assert [*sweep.ingredients] == [*RUNS]
    plain = evaluator.evaluate(opened(tmp_path / "plain", RUNS)["a"].mixture, "val")
    assert evaluator.evaluate(sweep["a"].mixture, "val").loss == plain.loss


def test_a_base_without_head_lacks_the_head_only(tmp_path: Path) -> None:
    runs = {
        name: prefixed(state, "transformer.") | {"score.weight": torch.randn(3, 3)}
        for name, state in RUNS.items()
    }
    sweep = opened(tmp_path, runs | {"base": BASE})
    assert sweep.base is not None
    assert len(sweep) == len(RUNS)
    (note,) = [f for f in sweep.fit.findings if f.ingredient == "base"]
    assert note.problem.startswith("fits in part: it lacks 1 tensor: score.weight; the other")


def weight_norm(module: nn.Module) -> nn.Module:
    with pytest.warns(FutureWarning, match="weight_norm"):
        return nn.utils.weight_norm(module)


def spectral_norm(module: nn.Module) -> nn.Module:
    return nn.utils.spectral_norm(module)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (weight_norm, parametrizations.weight_norm),
        (spectral_norm, parametrizations.spectral_norm),
    ],
)
def test_old_and_new_names_of_normalised_layers_are_one(
    tmp_path: Path,
    old: Callable[[nn.Module], nn.Module],
    new: Callable[[nn.Module], nn.Module],
) -> None:
    torch.manual_seed(1)
    first = nn.Sequential(old(nn.Linear(3, 4)), nn.Linear(4, 2))
    second = nn.Sequential(new(nn.Linear(3, 4)), nn.Linear(4, 2))
    torch.save(first.state_dict(), tmp_path / "first.pt")
    torch.save(second.state_dict(), tmp_path / "second.pt")
    sweep = Sweep.from_folder(tmp_path)
    assert [*sweep.ingredients] == ["first", "second"]
    (note,) = [f for f in sweep.fit.findings if f.severity == "note"]
    assert note.ingredient == "second"
    assert "parametrizations.weight.original" in note.problem
    save_checked(uniform(sweep), tmp_path / "soup.pt")
    soup = torch.load(tmp_path / "soup.pt")
    assert soup.keys() == first.state_dict().keys()
    names = sweep["second"].checkpoint.original_names
    for name, tensor in first.state_dict().items():
        mean = (tensor.double() + second.state_dict()[names[name]].double()) / 2
        assert torch.equal(soup[name], mean.float())


def test_different_weights_are_named_if_no_ingredient_fits(tmp_path: Path) -> None:
    states = {"a": {"w": torch.full((3,), torch.nan), "ids": IDS}}
    with pytest.raises(NothingFitsError, match=r"NaN or infinite values \(3 of 3\)"):
        opened(tmp_path, states)
