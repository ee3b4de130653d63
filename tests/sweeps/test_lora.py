"""LoRA adapters as ingredients, against merged weights that plain torch computes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import soupcore
from soupcore import RecipeError, Sweep, rebuild, save_adapter
from soupcore.merges import MergedAdapter
from tests.helpers import State, average, save_checked

RANK = 2
BASE_SHAPES = {
    "enc.q.weight": (6, 5),
    "enc.q.bias": (6,),
    "enc.conv.weight": (4, 3, 2, 2),
    "enc.emb.weight": (7, 4),
    "head.weight": (3, 6),
}


def draw(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def base() -> State:
    return {name: draw(shape, seed) for seed, (name, shape) in enumerate(BASE_SHAPES.items())}


def peft(folder: Path, seed: int, rank: int = RANK, **config: Any) -> State:
    """Write an adapter as PEFT does; return its tensors."""
    prefix = "base_model.model.enc."
    tensors = {
        f"{prefix}q.lora_A.weight": draw((rank, 5), seed),
        f"{prefix}q.lora_B.weight": draw((6, rank), seed + 1),
        f"{prefix}conv.lora_A.weight": draw((rank, 3, 2, 2), seed + 2),
        f"{prefix}conv.lora_B.weight": draw((4, rank, 1, 1), seed + 3),
        f"{prefix}emb.lora_embedding_A": draw((rank, 7), seed + 4),
        f"{prefix}emb.lora_embedding_B": draw((4, rank), seed + 5),
        "base_model.model.head.weight": draw((3, 6), seed + 6),
    }
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    told = {"peft_type": "LORA", "r": rank, "lora_alpha": 6, "modules_to_save": ["head"]}
    (folder / "adapter_config.json").write_text(json.dumps(told | config))
    return tensors


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


def sweep_of(folder: Path, base: State, seeds: tuple[int, ...] = (10, 20, 30)) -> list[State]:
    folder.mkdir(exist_ok=True)
    save_file(base, folder / "base.safetensors")
    return [peft(folder / f"run-{seed}", seed, rank=index + 1) for index, seed in enumerate(seeds)]


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
    adapters = sweep_of(tmp_path / "sweep", base)
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
    adapters = sweep_of(tmp_path / "sweep", base)
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
    sweep_of(tmp_path / "sweep", base)
    sweep = Sweep.from_folder(tmp_path / "sweep")
    soup = soupcore.manual(sweep, {"run-10": 1, "run-20": 2, "run-30": 1})
    (tmp_path / "again").mkdir()
    assert save_adapter(soup, tmp_path / "again/adapter") == 0.0
    written = load_file(tmp_path / "again/adapter/adapter_model.safetensors")
    assert written["base_model.model.enc.q.lora_A.weight"].shape == (1 + 2 + 3, 5)
    save_file(base, tmp_path / "again/base.safetensors")
    found = Sweep.from_folder(tmp_path / "again")["adapter"].checkpoint.state_dict()
    close(found, soup.state_dict())


def test_a_smaller_rank_reports_its_error(tmp_path: Path, base: State) -> None:
    sweep_of(tmp_path / "sweep", base)
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
    sweep_of(tmp_path, base, (10,))
    peft(tmp_path / "odd", 40, **config)
    sweep = Sweep.from_folder(tmp_path)
    assert sweep.fit.misfits == {"odd"}
    (finding,) = (f for f in sweep.fit.findings if f.ingredient == "odd")
    assert re.search(problem, finding.problem)
    assert finding.way_out


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, base: State) -> None:
    sweep_of(tmp_path, base, (10,))
    odd = {"base_model.model.enc.q.lora_A.weight": torch.ones(2, 4)}
    odd["base_model.model.enc.q.lora_B.weight"] = torch.ones(6, 2)
    save_file(odd, tmp_path / "odd.safetensors")
    sweep = Sweep.from_folder(tmp_path)
    (finding,) = (f for f in sweep.fit.findings if f.ingredient == "odd")
    assert "do not fit 'enc.q.weight' of the base" in finding.problem


def test_a_soup_that_is_no_combination_of_adapters_is_no_adapter(
    tmp_path: Path, base: State
) -> None:
    sweep_of(tmp_path / "sweep", base)
    save_file(base, tmp_path / "sweep/full.safetensors")
    sweep = Sweep.from_folder(tmp_path / "sweep")
    with pytest.raises(RecipeError, match="full is no LoRA adapter"):
        save_adapter(soupcore.uniform(sweep), tmp_path / "adapter")
    with pytest.raises(RecipeError, match="A soup by ties is not a combination"):
        save_adapter(soupcore.ties(sweep, ["run-10", "run-20"]), tmp_path / "adapter")
    with pytest.raises(ValueError, match="rank must be positive"):
        save_adapter(soupcore.uniform(sweep, ["run-10"]), tmp_path / "adapter", rank=0)
