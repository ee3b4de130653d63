"""LoRA adapters as ingredients, against merged weights that plain torch computes."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import soupcore
from soupcore import RecipeError, Sweep, rebuild, save_adapter
from soupcore.evaluation import Estimate
from soupcore.merges import MergedAdapter
from soupcore.provenance import relative_error, summed_rank
from tests.adapters import RANK, base_state, draw, peft, save_sweep
from tests.helpers import State, average, save_checked


@pytest.fixture
def base() -> State:
    return base_state()


def merged_by_hand(base: State, adapter: State, scales: dict[str, float]) -> State:
    """W + s·B·A in float64; the head is replaced."""
    wide = {name: tensor.double() for name, tensor in adapter.items()}
    prefix = "base_model.model.enc."
    q = wide[f"{prefix}q.lora_B.weight"] @ wide[f"{prefix}q.lora_A.weight"]
    conv = wide[f"{prefix}conv.lora_B.weight"].flatten(1) @ wide[
        f"{prefix}conv.lora_A.weight"
    ].flatten(1)
    emb = (wide[f"{prefix}emb.lora_embedding_B"] @ wide[f"{prefix}emb.lora_embedding_A"]).T
    changes = {"enc.q.weight": q, "enc.conv.weight": conv, "enc.emb.weight": emb}
    found = {name: tensor.double() for name, tensor in base.items()}
    for name, change in changes.items():
        found[name] = found[name] + scales.get(name, scales["*"]) * change.reshape(base[name].shape)
    found["head.weight"] = wide["base_model.model.head.weight"]
    return {name: tensor.float() for name, tensor in found.items()}


def close(found: State, wanted: State) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "scales"),
    [
        ({}, {"*": 3.0}),
        ({"use_rslora": True}, {"*": 6 / 2**0.5}),
        ({"alpha_pattern": {"q": 4, "^enc\\.conv$": 1}}, {
            "*": 3.0, "enc.q.weight": 2.0, "enc.conv.weight": 0.5,
        }),
    ],
)  # fmt: skip
def test_an_adapter_is_its_merged_weights(
    tmp_path: Path, base: State, config: dict[str, Any], scales: dict[str, float]
) -> None:
    save_file(base, tmp_path / "base.safetensors")
    adapter = peft(tmp_path / "run", 10, **config)
    sweep = Sweep.from_folder(tmp_path)
    checkpoint = sweep["run"].checkpoint
    assert isinstance(checkpoint, MergedAdapter)
    close(checkpoint.state_dict(), merged_by_hand(base, adapter, scales))
    (note,) = (f for f in sweep.fit.findings if "LoRA" in f.problem)
    assert (note.severity, note.ingredient) == ("note", "run")
    # Any range of elements has the same bits.
    whole = checkpoint.read("enc.q.weight").flatten()
    for start, stop in ((0, 1), (3, 14), (7, 8), (29, 30)):
        assert torch.equal(checkpoint.read_elements("enc.q.weight", start, stop), whole[start:stop])
    again = Sweep.from_folder(tmp_path)["run"].checkpoint
    assert again.digest == checkpoint.digest
    assert again.scan() == checkpoint.scan()


@pytest.mark.parametrize("style", ["kohya", "diffusers"])
def test_adapters_of_image_models(tmp_path: Path, base: State, style: str) -> None:
    save_file(base, tmp_path / "base.safetensors")
    a, b = draw((RANK, 5), 1), draw((6, RANK), 2)
    names = {
        "kohya": ("lora_unet_enc_q.lora_down.weight", "lora_unet_enc_q.lora_up.weight"),
        "diffusers": ("unet.enc.q.lora_A.weight", "unet.enc.q.lora_B.weight"),
    }[style]
    adapter = dict(zip(names, (a, b), strict=True))
    if style == "kohya":
        adapter["lora_unet_enc_q.alpha"] = torch.tensor(1.0)
    save_file(adapter, tmp_path / "run.safetensors")
    found = Sweep.from_folder(tmp_path)["run"].checkpoint.state_dict()
    scale = 0.5 if style == "kohya" else 1.0
    expected = base["enc.q.weight"].double() + scale * (b.double() @ a.double())
    close(found, base | {"enc.q.weight": expected.float()})


def test_the_soup_averages_products_and_not_factors(tmp_path: Path, base: State) -> None:
    """The trap: the mean of B times the mean of A is another network."""
    adapters = save_sweep(tmp_path / "sweep")
    sweep = Sweep.from_folder(tmp_path / "sweep")
    soup = soupcore.uniform(sweep)
    expected = average(
        [*(merged_by_hand(base, a, {"*": 6 / (i + 1)}) for i, a in enumerate(adapters))]
    )
    close(soup.state_dict(), expected)
    same_rank = [peft(tmp_path / f"same-{seed}", seed) for seed in (10, 20)]
    apart = merged_by_hand(base, average([*same_rank]), {"*": 3.0})
    right = average([*(merged_by_hand(base, each, {"*": 3.0}) for each in same_rank)])
    assert (apart["enc.q.weight"] - right["enc.q.weight"]).abs().max() > 0.1
    (path,) = save_checked(soup, tmp_path / "soup.safetensors")
    close(load_file(path), expected)
    assert rebuild(soup.to_json(), sweep.folder).id == soup.id


@pytest.mark.parametrize("recipe", [soupcore.ties, soupcore.model_stock, soupcore.wise_ft])
def test_recipes_with_a_base_work_on_adapters(tmp_path: Path, base: State, recipe: Any) -> None:
    adapters = save_sweep(tmp_path / "sweep")
    plain = tmp_path / "plain"
    plain.mkdir()
    save_file(base, plain / "base.safetensors")
    for index, (adapter, seed) in enumerate(zip(adapters, (10, 20, 30), strict=True)):
        state = merged_by_hand(base, adapter, {"*": 6 / (index + 1)})
        save_file(
            {name: tensor.contiguous() for name, tensor in state.items()},
            plain / f"run-{seed}.safetensors",
        )
    found = recipe(Sweep.from_folder(tmp_path / "sweep")).state_dict()
    wanted = recipe(Sweep.from_folder(plain)).state_dict()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5)


def test_the_soup_is_exactly_one_adapter_of_the_summed_rank(tmp_path: Path, base: State) -> None:
    save_sweep(tmp_path / "sweep")
    sweep = Sweep.from_folder(tmp_path / "sweep")
    soup = soupcore.manual(sweep, {"run-10": 1, "run-20": 2, "run-30": 1})
    (tmp_path / "again").mkdir()
    assert save_adapter(soup, tmp_path / "again/adapter") == 0.0
    assert relative_error(tmp_path / "again/adapter") == 0.0
    assert summed_rank(soup) == 1 + 2 + 3
    written = load_file(tmp_path / "again/adapter/adapter_model.safetensors")
    assert written["base_model.model.enc.q.lora_A.weight"].shape == (1 + 2 + 3, 5)
    save_file(base, tmp_path / "again/base.safetensors")
    found = Sweep.from_folder(tmp_path / "again")["adapter"].checkpoint.state_dict()
    close(found, soup.state_dict())


def test_a_smaller_rank_reports_its_error(tmp_path: Path, base: State) -> None:
    save_sweep(tmp_path / "sweep")
    soup = soupcore.uniform(Sweep.from_folder(tmp_path / "sweep"))
    again = tmp_path / "again"
    again.mkdir()
    error = save_adapter(soup, again / "adapter", rank=2)
    save_file(base, again / "base.safetensors")
    found = Sweep.from_folder(again)["adapter"].checkpoint.state_dict()
    wanted = soup.state_dict()
    lost = whole = 0.0
    for name in ("enc.q.weight", "enc.conv.weight", "enc.emb.weight"):
        lost += float((found[name] - wanted[name]).double().square().sum())
        whole += float((wanted[name] - base[name]).double().square().sum())
        change = (wanted[name] - base[name]).double().flatten(1)
        values = torch.linalg.svdvals(change)
        best = float(values[2:].square().sum())
        assert float((found[name] - wanted[name]).double().square().sum()) <= best + 1e-6
    assert 0 < error < 1
    assert relative_error(again / "adapter") == error
    assert error == pytest.approx((lost / whole) ** 0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"use_dora": True}, "uses use_dora"),
        ({"lora_bias": True}, "uses lora_bias"),
        ({"peft_type": "LOHA"}, "is an adapter of type LOHA"),
        ({"alpha_pattern": {"(a+)+b": 1}}, r"has the regular expression '\(a\+\)\+b'"),
    ],
)
def test_what_is_no_plain_lora_is_refused(
    tmp_path: Path, base: State, config: dict[str, Any], problem: str
) -> None:
    save_sweep(tmp_path, (10,))
    peft(tmp_path / "odd", 40, **config)
    sweep = Sweep.from_folder(tmp_path)
    assert sweep.fit.misfits == {"odd"}
    (finding,) = (f for f in sweep.fit.findings if f.ingredient == "odd")
    assert re.search(problem, finding.problem)
    assert finding.way_out


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, base: State) -> None:
    save_sweep(tmp_path, (10,))
    odd = {"base_model.model.enc.q.lora_A.weight": torch.ones(2, 4)}
    odd["base_model.model.enc.q.lora_B.weight"] = torch.ones(6, 2)
    save_file(odd, tmp_path / "odd.safetensors")
    sweep = Sweep.from_folder(tmp_path)
    (finding,) = (f for f in sweep.fit.findings if f.ingredient == "odd")
    assert "do not fit 'enc.q.weight' of the base" in finding.problem


def test_a_soup_that_is_no_combination_of_adapters_is_no_adapter(
    tmp_path: Path, base: State
) -> None:
    save_sweep(tmp_path / "sweep")
    save_file(base, tmp_path / "sweep/full.safetensors")
    sweep = Sweep.from_folder(tmp_path / "sweep")
    with pytest.raises(RecipeError, match="full is not a LoRA adapter"):
        save_adapter(soupcore.uniform(sweep), tmp_path / "adapter")
    with pytest.raises(RecipeError, match="A soup by ties is not a combination"):
        save_adapter(soupcore.ties(sweep, ["run-10", "run-20"]), tmp_path / "adapter")
    alone = soupcore.manual(sweep, {"run-10": 1, "run-20": 0})
    assert summed_rank(alone) == 1
    alone.estimate = Estimate("train", "digest", 8)
    with pytest.raises(RecipeError, match="statistics of the soup were re-estimated"):
        summed_rank(alone)
    with pytest.raises(ValueError, match="rank must be positive"):
        save_adapter(soupcore.uniform(sweep, ["run-10"]), tmp_path / "adapter", rank=0)
