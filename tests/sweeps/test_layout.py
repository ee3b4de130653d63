import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from soupcore import Evaluator, NothingFitsError, Sweep, uniform
from tests.helpers import State, average, same_weights, save_checked, save_sweep
from tests.toy import build_model, moved, random_state


def prefixed(state: Mapping[str, Tensor], prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def averaged(state: Mapping[str, Tensor]) -> State:
    model = build_model()
    model.load_state_dict(dict(state))
    return AveragedModel(model).state_dict()


BASE = random_state(0)
RUNS = {name: moved(BASE, 0.3, seed) for seed, name in enumerate("abc", start=1)}


@pytest.fixture
def plain(tmp_path: Path) -> Sweep:
    return Sweep.from_folder(save_sweep(tmp_path / "plain", RUNS | {"base": BASE}))


@pytest.mark.parametrize("with_base", [True, False])
@pytest.mark.parametrize(
    "wrapped",
    [
        {"a": prefixed(RUNS["a"], "module.")},
        {"b": prefixed(RUNS["b"], "_orig_mod.module."), "c": prefixed(RUNS["c"], "module.")},
        {"a": prefixed(RUNS["a"], "net."), "b": prefixed(RUNS["b"], "model.bert.")},
        {"b": averaged(RUNS["b"])},
        {name: prefixed(state, "module.") for name, state in RUNS.items()},
    ],
    ids=["one", "two", "attributes", "averaged", "all"],
)
def test_ingredients_saved_with_and_without_wrappers_are_one_sweep(
    tmp_path: Path,
    plain: Sweep,
    wrapped: dict[str, State],
    with_base: bool,
    evaluator: Evaluator,
) -> None:
    states = RUNS | wrapped | ({"base": BASE} if with_base else {})
    sweep = Sweep.from_folder(save_sweep(tmp_path / "sweep", states))
    assert sweep.fit.findings == ()
    assert uniform(sweep).mixture == uniform(plain).mixture  # nothing is evaluated again
    state = uniform(sweep).state_dict()
    expected = average([*RUNS.values()])
    assert same_weights({re.sub(r"^(module|net)\.", "", n): t for n, t in state.items()}, expected)
    known = evaluator.evaluate(uniform(plain).mixture, "val")
    assert evaluator.evaluate(uniform(sweep).mixture, "val").loss == known.loss


@pytest.mark.parametrize("wrapped", ["a", "b"])
def test_a_soup_has_the_names_of_its_first_ingredient(tmp_path: Path, wrapped: str) -> None:
    states = RUNS | {wrapped: prefixed(RUNS[wrapped], "module.")}
    sweep = Sweep.from_folder(save_sweep(tmp_path / "sweep", states))
    save_checked(uniform(sweep), tmp_path / "soup.safetensors")
    written = load_file(tmp_path / "soup.safetensors")
    prefix = "module." if wrapped == "a" else ""
    assert same_weights(written, prefixed(average([*RUNS.values()]), prefix))


def test_a_wrapped_misfit_is_reported_with_the_differing_tensors(tmp_path: Path) -> None:
    wrapped = prefixed(BASE, "module.")
    del wrapped["module.3.bias"]
    sweep = Sweep.from_folder(save_sweep(tmp_path / "sweep", RUNS | {"odd": wrapped}))
    (finding,) = sweep.fit.findings
    assert finding.problem == "lacks 1 tensor of most of the sweep: 3.bias"


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 2)
        self.lm_head = nn.Linear(2, 4, bias=False)
        self.lm_head.weight = self.embed.weight


def test_a_tied_network_and_its_two_ways_to_be_saved_are_one_sweep(tmp_path: Path) -> None:
    for name in ("a", "b"):
        torch.save(Language().state_dict(), tmp_path / f"{name}.pt")
    save_sweep(tmp_path, {"c": {"embed.weight": torch.ones(4, 2)}})
    sweep = Sweep.from_folder(tmp_path)
    assert list(sweep.ingredients) == ["a", "b", "c"]
    assert sweep.fit.findings == ()
    mixed = uniform(sweep).state_dict()
    assert same_weights({"w": mixed["embed.weight"]}, {"w": mixed["lm_head.weight"]})


def test_tensors_that_are_tied_in_one_and_differ_in_another_are_reported(tmp_path: Path) -> None:
    torch.save(Language().state_dict(), tmp_path / "a.pt")
    equal = {"embed.weight": torch.ones(4, 2), "lm_head.weight": torch.ones(4, 2)}
    save_sweep(tmp_path, {"b": equal, "c": equal | {"lm_head.weight": torch.zeros(4, 2)}})
    findings = Sweep.from_folder(tmp_path).fit.findings
    (finding,) = [finding for finding in findings if "tied" in finding.problem]
    assert (finding.severity, finding.ingredient) == ("warning", "c")
    assert (
        finding.problem
        == "has different values in embed.weight, lm_head.weight, which are tied in a"
    )


BYTES = torch.ones(4, 2, dtype=torch.uint8)


@pytest.mark.parametrize(
    "state",
    [
        {"l.weight": BYTES, "l.weight.absmax": torch.ones(2), "l.weight.quant_map": torch.ones(16)},
        {"l.weight": BYTES.to(torch.int8), "l.SCB": torch.ones(4)},
        {"l.weight": BYTES.to(torch.float8_e4m3fn), "l.weight_scale_inv": torch.ones(1, 1)},
        {"l.weight": BYTES.to(torch.float8_e4m3fn), "l.scale_weight": torch.ones(1)},
        {"l.weight": BYTES.to(torch.int8), "l.weight_scale": torch.ones(4, 1)},
        {"l.weight_packed": BYTES.to(torch.int32), "l.weight_scale": torch.ones(4, 1)},
        {"l.qweight": BYTES.to(torch.int32), "l.qzeros": BYTES, "l.scales": torch.ones(4)},
        {"up_blocks": BYTES, "up_scales": BYTES + 1},
    ],
    ids=["bitsandbytes 4", "8", "FP8", "ComfyUI", "int8", "compressed", "GPTQ", "MXFP4"],
)
def test_weights_that_are_quantized_are_refused_by_name(tmp_path: Path, state: State) -> None:
    folder = save_sweep(tmp_path / "sweep", RUNS | {"small": state})
    (finding,) = Sweep.from_folder(folder).fit.findings
    assert (finding.severity, finding.ingredient) == ("misfit", "small")
    assert finding.tensor == next(iter(state))
    assert "not the mean of the weights" in finding.problem
    assert "dequantize it and save it again" in finding.way_out
    with pytest.raises(NothingFitsError, match="quantized"):
        Sweep.from_folder(save_sweep(tmp_path / "all", {"a": state, "b": state}))


@pytest.mark.parametrize(
    "state",
    [
        {"l.weight": torch.ones(2), "l.weight_scale": torch.ones(2)},
        {"mask": BYTES, "l.scale": torch.ones(2)},
        {"mask": BYTES.bool(), "mask_scale": torch.ones(2)},
        {"l.weight": BYTES.to(torch.float8_e4m3fn)},
    ],
    ids=["a scale that is learned", "bytes", "a mask", "rounded only"],
)
def test_weights_with_names_like_quantized_ones_are_accepted(tmp_path: Path, state: State) -> None:
    folder = save_sweep(tmp_path / "sweep", {"a": state})
    assert Sweep.from_folder(folder).fit.findings == ()


def test_checkpoints_of_integers_only_are_refused(tmp_path: Path) -> None:
    state = RUNS["a"]
    integers = {name: tensor.to(torch.int8) for name, tensor in state.items()}
    with pytest.raises(NothingFitsError, match=r"integer tensors \(int8\).*floating-point"):
        Sweep.from_folder(save_sweep(tmp_path / "sweep", {"a": integers, "b": integers}))
    found = Sweep.from_folder(
        save_sweep(tmp_path / "mixed", {"base": integers, "a": state, "b": state})
    )
    assert found.fit.misfits == {"base"}
    assert list(found.ingredients) == ["a", "b"]
