"""Adapters in the spellings of the tools that save them, and networks that only look like some."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import soupcore
from soupcore import NothingFitsError, RecipeError, Sweep, rebuild, save_adapter, uniform
from soupcore.evaluation import Estimate
from soupcore.merges import MergedAdapter
from soupcore.provenance import relative_error, summed_rank
from tests.adapters import RANK, base_state, draw, peft
from tests.adapters import save_sweep as save_adapters
from tests.helpers import State, average, save_checked, save_sweep
from tests.toy import random_state

RUNS = {"a": random_state(1), "b": random_state(2)}
UNET = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
LLAMA = "base_model.model.model.layers.0.self_attn.q_proj"

Shapes = dict[str, tuple[int, ...]]

PRODUCTS: dict[str, Shapes] = {
    "PEFT": {f"{LLAMA}.lora_A.weight": (4, 32), f"{LLAMA}.lora_B.weight": (32, 4)},
    "PEFT in a model": {
        f"{LLAMA}.base_layer.weight": (32, 32),
        f"{LLAMA}.lora_A.default.weight": (4, 32),
        f"{LLAMA}.lora_B.default.weight": (32, 4),
    },
    "PEFT's embeddings": {"embed.lora_embedding_A": (4, 90), "embed.lora_embedding_B": (32, 4)},
    "DoRA": {
        f"{LLAMA}.lora_A.weight": (4, 32),
        f"{LLAMA}.lora_B.weight": (32, 4),
        f"{LLAMA}.lora_magnitude_vector": (32,),
    },
    "DoRA's magnitude alone": {f"{LLAMA}.lora_magnitude_vector.default.weight": (32,)},
    "AdaLoRA": {"q.lora_A": (4, 32), "q.lora_B": (32, 4), "q.lora_E": (4, 1)},
    "LoRA-XS": {"q.default_lora_latent_mapping.weight": (4, 4)},
    "loralib": {"q.weight": (32, 32), "q.lora_A": (4, 32), "q.lora_B": (32, 4)},
    "loralib, merged": {"qkv.weight": (96, 32), "qkv.lora_A": (8, 32), "qkv.lora_B": (64, 4)},
    "loralib, convolution": {"conv.lora_A": (12, 96), "conv.lora_B": (96, 12)},
    "OpenDelta": {"q.lora.lora_A": (4, 32), "q.lora.lora_B": (32, 4)},
    "AdapterHub": {"query.loras.mnli.lora_A": (4, 32), "query.loras.mnli.lora_B": (32, 4)},
    "minlora": {
        "q.parametrizations.weight.0.lora_A": (4, 32),
        "q.parametrizations.weight.0.lora_B": (32, 4),
    },
    "torchtune": {"q_proj.lora_a.weight": (4, 32), "q_proj.lora_b.weight": (32, 4)},
    "MLX": {"q_proj.lora_a": (32, 4), "q_proj.lora_b": (4, 32)},
    "NeMo": {
        "q.adapter_layer.lora_kqv_adapter.linear_in.weight": (4, 32),
        "q.adapter_layer.lora_kqv_adapter.linear_out.weight": (96, 4),
    },
    "diffusers": {
        f"unet.{UNET}.to_q.lora_A.weight": (4, 32),
        f"{UNET}.to_q.lora_B.weight": (32, 4),
    },
    "diffusers before 0.22": {
        f"unet.{UNET}.processor.to_q_lora.down.weight": (4, 32),
        f"unet.{UNET}.processor.to_q_lora.up.weight": (32, 4),
    },
    "diffusers, text encoder": {
        "text_encoder.layers.0.self_attn.q_proj.lora_linear_layer.down.weight": (4, 32),
        "text_encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight": (32, 4),
    },
    "diffusers, later": {
        f"unet.{UNET}.to_q.lora.down.weight": (4, 32),
        f"unet.{UNET}.to_q.lora.up.weight": (32, 4),
    },
    "XLabs": {
        "double_blocks.0.processor.qkv_lora1.down.weight": (4, 32),
        "double_blocks.0.processor.qkv_lora1.up.weight": (96, 4),
    },
    "IP-Adapter FaceID": {"0.to_q_lora.down.weight": (4, 32), "0.to_q_lora.up.weight": (32, 4)},
    "kohya": {
        f"{KOHYA}.lora_down.weight": (4, 32),
        f"{KOHYA}.lora_up.weight": (32, 4),
        f"{KOHYA}.alpha": (),
    },
    "kohya, convolution": {
        f"{KOHYA}.lora_down.weight": (4, 32, 1, 1),
        f"{KOHYA}.lora_mid.weight": (4, 4, 3, 3),
        f"{KOHYA}.lora_up.weight": (32, 4, 1, 1),
    },
    "LoHa": {f"{KOHYA}.hada_{part}": (8, 4) for part in ("w1_a", "w1_b", "w2_a", "w2_b")},
    "LoHa, Tucker": {f"{KOHYA}.hada_{part}": (4, 4, 3, 3) for part in ("t1", "t2")},
    "LoKr": {f"{KOHYA}.lokr_{part}": (4, 4) for part in ("w1", "w2_a", "w2_b", "t2")},
    "LoKr, whole": {"lycoris_q.lokr_w1": (4, 4), "lycoris_q.lokr_w2": (8, 8)},
    "GLoRA": {f"lycoris_q.{part}.weight": (4, 32) for part in ("a1", "a2", "b1", "b2")},
    "VeRA": {f"{LLAMA}.vera_lambda_b": (32,), f"{LLAMA}.vera_lambda_d": (4,)},
    "VeRA in PEFT": {"base_model.vera_A.default": (4, 32), "base_model.vera_B.default": (32, 4)},
    "PEFT's RandLoRA": {f"{LLAMA}.randlora_lambda": (4, 2), f"{LLAMA}.randlora_gamma": (2, 32)},
    "VB-LoRA": {f"{LLAMA}.vblora_logits_A": (4, 2, 9), "base_model.vblora_vector_bank": (9, 16)},
    "of one's own, beside its weight": {
        "attn.q.weight": (32, 48),
        "attn.q.down.weight": (4, 48),
        "attn.q.up.weight": (32, 4),
    },
    "of one's own, as parameters": {"q.weight": (32, 48), "q.A": (4, 48), "q.B": (32, 4)},
}
ROTATIONS: dict[str, Shapes] = {
    "OFT": {f"{LLAMA}.oft_R.weight": (4, 28)},
    "OFT before": {f"{LLAMA}.oft_r.default": (4, 8, 8)},
    "OFT of LyCORIS": {f"{KOHYA}.oft_blocks": (4, 8, 8)},
    "BOFT": {f"{LLAMA}.boft_R": (1, 4, 8, 8), f"{LLAMA}.boft_s": (32, 1)},
    "HRA": {f"{LLAMA}.hra_u": (32, 4)},
}
# Those that may be averaged as they are, and what a reader should know of it.
NOTED: dict[str, tuple[str, Shapes]] = {
    "IA3": ("only if the base is the same", {f"{LLAMA}.ia3_l": (32, 1)}),
    "IA3 in a model": ("only if the base is the same", {f"{LLAMA}.ia3_l.default": (1, 32)}),
    "IA3 of LyCORIS": (
        "only if the base is the same",
        {f"{KOHYA}.weight": (32,), f"{KOHYA}.on_input": ()},
    ),
    "FourierFT": ("only if the base is the same", {f"{LLAMA}.fourierft_spectrum": (100,)}),
    "prompt tuning": ("started from the same prompt", {"prompt_embeddings": (8, 32)}),
    "P-tuning": (
        "started from the same prompt",
        {"prompt_encoder.default.embedding.weight": (8, 32)},
    ),
    "P-tuning v2": ("started from the same prompt", {"prefix_encoder.embedding.weight": (8, 64)}),
    "CoOp": ("started from the same prompt", {"prompt_learner.ctx": (16, 32)}),
}
NETWORKS: dict[str, Shapes] = {
    "called like LoRA": {"lora_base.weight": (2,), "explora_A": (2,)},
    "U-Net": {
        "down_blocks.0.resnets.0.conv1.weight": (32, 16, 3, 3),
        "up_blocks.0.resnets.0.conv1.weight": (16, 32, 3, 3),
        "down.0.weight": (32, 16),
        "up.0.weight": (16, 32),
    },
    "LLaMA": {
        "layers.0.mlp.gate_proj.weight": (86, 32),
        "layers.0.mlp.up_proj.weight": (86, 32),
        "layers.0.mlp.down_proj.weight": (32, 86),
    },
    "low-rank projections (DeepSeek)": {
        "layers.0.self_attn.q_a_proj.weight": (8, 32),
        "layers.0.self_attn.q_b_proj.weight": (48, 8),
        "layers.0.self_attn.kv_a_proj_with_mqa.weight": (8, 32),
        "layers.0.self_attn.kv_b_proj.weight": (48, 8),
    },
    "low-rank layers with a nonlinearity (RWKV-7)": {
        "layers.0.attn.w_lora.lora.0.weight": (8, 32),
        "layers.0.attn.w_lora.lora.2.weight": (32, 8),
        "layers.0.attn.w_lora.lora.2.bias": (32,),
    },
    "bottleneck adapters": {
        "layers.0.adapter.down.weight": (8, 32),
        "layers.0.adapter.up.weight": (32, 8),
        "layers.0.weight": (32,),
    },
    "squeeze and excitation": {"se.fc1.weight": (2, 32, 1, 1), "se.fc2.weight": (32, 2, 1, 1)},
    "factorised layers": {"fc.u.weight": (8, 32), "fc.v.weight": (32, 8), "fc.bias": (32,)},
    "gates": {"cell.weight": (32, 32), "cell.in": (32, 32), "cell.out": (32, 32)},
    "biases and slopes": {"f.a1": (4,), "f.a2": (4,), "f.b1": (4,), "f.b2": (4,)},
    "a prompt encoder (SAM)": {"prompt_encoder.point_embeddings.0.weight": (1, 32)},
}


def of_shapes(shapes: Shapes) -> State:
    return {name: torch.ones(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("kind", PRODUCTS | ROTATIONS)
def test_adapters_are_left_out_with_the_reason_and_the_way_out(tmp_path: Path, kind: str) -> None:
    adapter = of_shapes((PRODUCTS | ROTATIONS)[kind])
    sweep = Sweep.from_folder(save_sweep(tmp_path / "sweep", RUNS | {"adapter": adapter}))
    assert list(sweep.ingredients) == ["a", "b"]
    (finding,) = sweep.fit.findings
    assert (finding.severity, finding.ingredient) == ("misfit", "adapter")
    assert finding.tensor in adapter
    reason = "the mean of products is not the product of means"
    if kind in ROTATIONS:
        reason = "the rotation of their mean is not the mean of the rotations"
    assert reason in finding.problem
    assert "merge_and_unload()" in finding.way_out


def test_a_folder_of_adapters_is_refused_with_the_reason(tmp_path: Path) -> None:
    adapters = {name: of_shapes(PRODUCTS["PEFT"]) for name in "ab"}
    with pytest.raises(NothingFitsError, match="low-rank adapter"):
        Sweep.from_folder(save_sweep(tmp_path / "sweep", adapters))


@pytest.mark.parametrize("kind", NOTED)
def test_adapters_that_may_be_averaged_are_noted(tmp_path: Path, kind: str) -> None:
    words, shapes = NOTED[kind]
    numbers = {name: torch.full((1,), value) for name, value in (("a", 0.0), ("b", 1.0))}
    states = {name: {**of_shapes(shapes), "n": number} for name, number in numbers.items()}
    sweep = Sweep.from_folder(save_sweep(tmp_path / "sweep", states))
    assert [finding.severity for finding in sweep.fit.findings] == ["note", "note"]
    assert all(words in finding.problem for finding in sweep.fit.findings)
    assert uniform(sweep).state_dict()["n"].item() == 0.5


def test_the_mean_of_linear_adapters_is_the_mean_of_the_merged_weights(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 5, generator=generator)
    scales = {name: torch.randn(6, 1, generator=generator) for name in "abc"}
    states = {name: {"q.ia3_l": scale} for name, scale in scales.items()}
    soup = uniform(Sweep.from_folder(save_sweep(tmp_path / "sweep", states)))
    merged = torch.stack([base * scale for scale in scales.values()]).mean(0)
    assert torch.allclose(base * soup.state_dict()["q.ia3_l"], merged)


@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_with_such_names_or_shapes_are_no_adapters(tmp_path: Path, kind: str) -> None:
    state = of_shapes(NETWORKS[kind])
    sweep = Sweep.from_folder(save_sweep(tmp_path / "sweep", {"a": state}))
    assert sweep.fit.findings == ()


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
def test_an_adapter_is_read_as_its_merged_weights(
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
    adapters = save_adapters(tmp_path / "sweep")
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
    adapters = save_adapters(tmp_path / "sweep")
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
    save_adapters(tmp_path / "sweep")
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
    save_adapters(tmp_path / "sweep")
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
def test_other_methods_than_lora_are_refused(
    tmp_path: Path, base: State, config: dict[str, Any], problem: str
) -> None:
    save_adapters(tmp_path, (10,))
    peft(tmp_path / "odd", 40, **config)
    sweep = Sweep.from_folder(tmp_path)
    assert sweep.fit.misfits == {"odd"}
    (finding,) = (f for f in sweep.fit.findings if f.ingredient == "odd")
    assert re.search(problem, finding.problem)
    assert finding.way_out


@pytest.mark.parametrize(
    ("shapes", "alpha", "problem"),
    [
        (((), (6, 2)), None, "has empty factors of base_model.model.enc.q"),
        (((0, 5), (6, 0)), None, "has empty factors of base_model.model.enc.q"),
        (((2, 5), (6, 2)), torch.ones(2), "has an alpha of the shape [2] for base_model"),
    ],
)
def test_a_malformed_adapter_does_not_prevent_a_sweep_from_opening(
    tmp_path: Path, base: State, shapes: tuple[Any, Any], alpha: torch.Tensor | None, problem: str
) -> None:
    save_adapters(tmp_path, (10,))
    odd = {
        f"base_model.model.enc.q.lora_{factor}.weight": torch.ones(shape)
        for factor, shape in zip("AB", shapes, strict=True)
    }
    odd |= {} if alpha is None else {"base_model.model.enc.q.alpha": alpha}
    save_file(odd, tmp_path / "odd.safetensors")
    sweep = Sweep.from_folder(tmp_path)
    (finding,) = (f for f in sweep.fit.findings if f.ingredient == "odd")
    assert problem in finding.problem


@pytest.mark.parametrize("alpha", [10**400, "6"], ids=["huge", "text"])
def test_an_adapter_without_a_usable_alpha_is_refused(
    tmp_path: Path, base: State, alpha: Any
) -> None:
    save_adapters(tmp_path, (10,))
    peft(tmp_path / "odd", 40, lora_alpha=alpha)
    (finding,) = (f for f in Sweep.from_folder(tmp_path).fit.findings if f.ingredient == "odd")
    assert "has no finite number as lora_alpha of enc." in finding.problem


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, base: State) -> None:
    save_adapters(tmp_path, (10,))
    odd = {"base_model.model.enc.q.lora_A.weight": torch.ones(2, 4)}
    odd["base_model.model.enc.q.lora_B.weight"] = torch.ones(6, 2)
    save_file(odd, tmp_path / "odd.safetensors")
    sweep = Sweep.from_folder(tmp_path)
    (finding,) = (f for f in sweep.fit.findings if f.ingredient == "odd")
    assert "do not fit 'enc.q.weight' of the base" in finding.problem


def test_a_soup_that_is_no_combination_of_adapters_is_no_adapter(
    tmp_path: Path, base: State
) -> None:
    save_adapters(tmp_path / "sweep")
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
