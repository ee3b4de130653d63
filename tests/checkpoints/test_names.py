import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel

from soupcore.checkpoints.names import align, canonical_names, weight_names

PLAIN = ["embed.weight", "blocks.0.norm.bias", "blocks.1.norm.bias", "head"]


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)))


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")  # type: ignore[return-value]


def with_compiled_block() -> nn.Module:
    model = network()
    model[1] = compiled(model[1])
    return model


@pytest.mark.parametrize(
    "wrapped",
    [
        nn.DataParallel(network()),
        AveragedModel(network()),
        AveragedModel(nn.DataParallel(network())),
        nn.ModuleDict({"net": network()}),
        nn.DataParallel(compiled(network())),
        with_compiled_block(),
    ],
    ids=lambda wrapped: type(wrapped).__name__,
)
def test_the_names_that_torch_gives_wrapped_networks_are_those_of_the_network(
    wrapped: nn.Module,
) -> None:
    names = [*wrapped.state_dict()]
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
def test_prefixes_are_recognised_and_put_back(prefix: str, middle: str) -> None:
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
def test_only_what_all_names_agree_on_is_taken_off(names: list[str], canonical: list[str]) -> None:
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
        (["n_averaged", "module.w"], ["w"], {"w": "module.w"}),
    ],
    ids=str,
)
def test_names_are_aligned_as_far_as_they_go(
    names: list[str], wanted: list[str], found: dict[str, str]
) -> None:
    assert align(names, wanted) == found


COMPONENTS = st.sampled_from(["a", "b", "module", "_orig_mod", "net", "0", "weight"])
NAMES = st.lists(
    st.lists(COMPONENTS, min_size=1, max_size=4).map(".".join), min_size=1, max_size=6, unique=True
)


@given(NAMES, NAMES)
def test_whatever_the_names_each_stays_one_of_its_own(names: list[str], wanted: list[str]) -> None:
    kept = weight_names(names)
    assert sorted(canonical_names(names)) == sorted(kept)
    assert len(set(canonical_names(names).values())) == len(kept)
    assert sorted(align(names, wanted).values()) == sorted(kept)
    assert align(names, weight_names(names)) == {name: name for name in kept}
