from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel

from soupcore.checkpoints.names import align, canonical_names, layer_of, weight_names

PLAIN = ["embed.weight", "blocks.0.norm.bias", "blocks.1.norm.bias", "head"]


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)))


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")  # type: ignore[return-value]


def with_compiled_block() -> nn.Module:
    model = network()
    model[1] = compiled(model[1])
    return model


# As functions: torch imports its compiler, which takes seconds, when it first wraps a network.
WRAPPERS: dict[str, Callable[[], nn.Module]] = {
    "DataParallel": lambda: nn.DataParallel(network()),
    "AveragedModel": lambda: AveragedModel(network()),
    "AveragedModel of DataParallel": lambda: AveragedModel(nn.DataParallel(network())),
    "ModuleDict": lambda: nn.ModuleDict({"net": network()}),
    "compiled in DataParallel": lambda: nn.DataParallel(compiled(network())),
    "with a compiled block": with_compiled_block,
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_names_that_torch_gives_wrapped_networks_are_those_of_the_network(wrapper: str) -> None:
    names = [*WRAPPERS[wrapper]().state_dict()]
    plain = [*network().state_dict()]
    assert [*canonical_names(names).values()] == plain
    assert [*align(names, plain)] == plain
    kept = weight_names(names)
    assert align(plain, kept) == dict(zip(kept, plain, strict=True))


@pytest.mark.parametrize(
    ("prefix", "middle"),
    [
        ("", ""),
        ("module.", ""),
        ("_orig_mod.", ""),
        ("_orig_mod.module.", ""),
        ("module._orig_mod.", ""),
        ("_fsdp_wrapped_module.", "_fsdp_wrapped_module."),
        ("_fsdp_wrapped_module.", "_fsdp_wrapped_module._checkpoint_wrapped_module."),
        ("", "_orig_mod.module."),
        ("net.", ""),
        ("model.bert.", "_checkpoint_wrapped_module."),
    ],
)
def test_prefixes_are_recognised_and_restored(prefix: str, middle: str) -> None:
    names = [
        prefix + name.replace("blocks.0.", f"blocks.0.{middle}").replace("norm.", f"{middle}norm.")
        for name in PLAIN
    ]
    assert [*canonical_names(names).values()] == PLAIN
    assert align(names, PLAIN) == dict(zip(PLAIN, names, strict=True))
    assert align(PLAIN, names) == dict(zip(names, PLAIN, strict=True))


@pytest.mark.parametrize(
    ("names", "canonical"),
    [
        (["module.a", "b"], ["module.a", "b"]),
        (["net.a.w", "net.b.w"], ["a.w", "b.w"]),
        (["net.w"], ["w"]),
        (["w"], ["w"]),
        (["a.w", "a.w.x"], ["w", "w.x"]),
        (["nets.a", "net.a"], ["nets.a", "net.a"]),
        (["n_averaged", "a"], ["n_averaged", "a"]),
        (["n_averaged"], ["n_averaged"]),
        (["n_averaged", "module.a"], ["a"]),
        (["_orig_mod.a.w", "a.w"], ["_orig_mod.a.w", "a.w"]),
        (["my_orig_mod.a", "b"], ["my_orig_mod.a", "b"]),
        (["a._orig_mod", "b"], ["a._orig_mod", "b"]),
    ],
    ids=str,
)
def test_only_prefixes_common_to_all_names_are_removed(
    names: list[str], canonical: list[str]
) -> None:
    assert [*canonical_names(names).values()] == canonical


@pytest.mark.parametrize(
    ("names", "wanted", "found"),
    [
        (["a", "b"], ["a", "b", "c"], {"a": "a", "b": "b"}),
        (
            ["module.a.w", "module.b.w", "module.new.w"],
            ["a.w", "b.w", "head.w"],
            {"a.w": "module.a.w", "b.w": "module.b.w", "new.w": "module.new.w"},
        ),
        (["net.a", "net.b"], ["model.a", "model.b"], {"model.a": "net.a", "model.b": "net.b"}),
        (["x.a", "y.b"], ["net.x.a", "net.y.b"], {"net.x.a": "x.a", "net.y.b": "y.b"}),
        (
            ["model.embed.w", "model.block.w"],  # a tied head was left out
            ["model.embed.w", "model.block.w", "lm_head.w"],
            {"model.embed.w": "model.embed.w", "model.block.w": "model.block.w"},
        ),
        (["p.q"], ["r.s"], {"p.q": "p.q"}),
        (
            ["model.a.w", "model.b.w", "criterion.weight"],
            ["a.w", "b.w"],
            {"a.w": "model.a.w", "b.w": "model.b.w", "criterion.weight": "criterion.weight"},
        ),
        (
            ["a.w", "b.w"],
            ["transformer.a.w", "transformer.b.w", "score.weight"],
            {"transformer.a.w": "a.w", "transformer.b.w": "b.w"},
        ),
        (
            ["net.a.w", "loss.x", "loss.y", "loss.z"],  # the prefix is not that of most
            ["a.w", "c.w"],
            {"a.w": "net.a.w", "loss.x": "loss.x", "loss.y": "loss.y", "loss.z": "loss.z"},
        ),
        (
            ["net.a.w", "net.b.w", "x"],
            ["model.a.w", "model.b.w", "y"],
            {"model.a.w": "net.a.w", "model.b.w": "net.b.w", "x": "x"},
        ),
        (["net.w", "w"], ["w"], {"net.w": "net.w", "w": "w"}),  # one name cannot be two tensors
        (
            ["l.weight_g", "l.weight_v", "l.bias"],
            ["l.parametrizations.weight.original0", "l.parametrizations.weight.original1"],
            {
                "l.parametrizations.weight.original0": "l.weight_g",
                "l.parametrizations.weight.original1": "l.weight_v",
                "l.bias": "l.bias",
            },
        ),
        (
            ["net.parametrizations.weight.original0", "net.parametrizations.weight.original1"],
            ["weight_g", "weight_v"],
            {
                "weight_g": "net.parametrizations.weight.original0",
                "weight_v": "net.parametrizations.weight.original1",
            },
        ),
        (["l.weight_g", "l.bias"], ["l.x"], {"l.weight_g": "l.weight_g", "l.bias": "l.bias"}),
        (["n_averaged", "module.w"], ["w"], {"w": "module.w"}),
    ],
    ids=str,
)
def test_names_are_aligned_as_far_as_possible(
    names: list[str], wanted: list[str], found: dict[str, str]
) -> None:
    assert align(names, wanted) == found


COMPONENTS = st.sampled_from(["a", "b", "module", "_orig_mod", "net", "0", "weight"])
NAMES = st.lists(
    st.lists(COMPONENTS, min_size=1, max_size=4).map(".".join), min_size=1, max_size=6, unique=True
)


@given(NAMES, NAMES)
def test_distinct_names_stay_distinct(names: list[str], wanted: list[str]) -> None:
    kept = weight_names(names)
    assert sorted(canonical_names(names)) == sorted(kept)
    assert len(set(canonical_names(names).values())) == len(kept)
    assert sorted(align(names, wanted).values()) == sorted(kept)
    assert align(names, weight_names(names)) == {name: name for name in kept}


@pytest.mark.parametrize(
    ("tensor", "layer"),
    [
        # timm
        ("blocks.3.attn.qkv.weight", "blocks.3"),
        ("patch_embed.proj.bias", "patch_embed.proj"),
        ("cls_token", "cls_token"),
        ("head.weight", "head"),
        ("stages.2.blocks.5.mlp.fc1.weight", "stages.2"),
        # torchvision
        ("layer1.0.conv1.weight", "layer1.0"),
        ("layer1.0.downsample.0.weight", "layer1.0"),
        ("conv1.weight", "conv1"),
        ("features.0.weight", "features.0"),
        ("features.3.0.block.1.0.weight", "features.3"),
        ("encoder.layers.encoder_layer_3.self_attention.in_proj_weight",
         "encoder.layers.encoder_layer_3"),
        ("encoder.layers.encoder_layer_3.mlp.0.bias", "encoder.layers.encoder_layer_3"),
        # Hugging Face
        ("bert.encoder.layer.11.attention.self.query.weight", "bert.encoder.layer.11"),
        ("bert.embeddings.word_embeddings.weight", "bert.embeddings.word_embeddings"),
        ("transformer.h.3.attn.c_attn.weight", "transformer.h.3"),
        ("model.layers.3.self_attn.q_proj.weight", "model.layers.3"),
        ("encoder.block.3.layer.0.SelfAttention.q.weight", "encoder.block.3"),
        ("lm_head.weight", "lm_head"),
        # open_clip
        ("visual.transformer.resblocks.3.mlp.c_fc.weight", "visual.transformer.resblocks.3"),
        ("transformer.resblocks.3.ln_1.weight", "transformer.resblocks.3"),
        ("visual.class_embedding", "visual"),
        ("logit_scale", "logit_scale"),
        # Ultralytics
        ("model.22.cv2.0.0.conv.weight", "model.22"),
        # Lists of modules and of parameters
        ("0.weight", "0"),
        ("prompts.3", "prompts.3"),
        ("norm.0", "norm.0"),
        ("0", "0"),
        ("weight", "weight"),
        ("rotation_2", "rotation_2"),
        ("time_embedding.linear_1.weight", "time_embedding.linear_1"),
    ],
)  # fmt: skip
def test_the_layer_of_a_tensor_is_in_its_name(tensor: str, layer: str) -> None:
    assert layer_of(tensor) == layer
