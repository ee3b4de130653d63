import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from soupcore import Finding, NothingFitsError, Sweep, SweepError, uniform
from tests.helpers import State, average, raw_safetensors, same_weights, save_checked, save_sweep
from tests.toy import moved, random_state

GOOD = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2), "n": torch.tensor(5)}


def shifted(by: float) -> State:
    return GOOD | {"w": GOOD["w"] + by}


def findings_of(sweep: Sweep, name: str) -> list[Finding]:
    return [finding for finding in sweep.fit.findings if finding.ingredient == name]


@pytest.mark.parametrize("with_base", [True, False])
@pytest.mark.parametrize(
    ("state", "tensor", "problem"),
    [
        pytest.param(
            {"w": GOOD["w"], "n": GOOD["n"]}, "b", "lacks 1 tensor of .*: b", id="missing"
        ),
        pytest.param(
            GOOD | {"head": torch.ones(1)}, "head", "has 1 tensor .* lacks: head", id="extra"
        ),
        pytest.param(
            GOOD | {f"x{i}": torch.ones(1) for i in range(5)},
            "x0",
            "has 5 tensors .* lacks: x0, x1, x2, …",
            id="several extra",
        ),
        pytest.param(
            GOOD | {"w": torch.ones(3, 2)}, "w", r"has shape \[3, 2\], but \[2, 3\]", id="shape"
        ),
        pytest.param(
            GOOD | {"b": torch.tensor([float("nan"), 1])},
            "b",
            r"NaN or infinite values \(1 of 2\)",
            id="NaN",
        ),
        pytest.param(
            GOOD | {"w": torch.full((2, 3), float("inf"))}, "w", r"\(6 of 6\)", id="infinite"
        ),
        pytest.param(
            GOOD | {"b": torch.ones(2).to(torch.float8_e4m3fn)},
            "b",
            "stored as float8_e4m3fn, but as float32",
            id="dtype without a common one",
        ),
    ],
)
def test_a_misfit_is_left_out_and_reported_with_its_tensor(
    tmp_path: Path, state: State, tensor: str, problem: str, with_base: bool
) -> None:
    states = {"a": shifted(1), "b": shifted(2), "odd": state}
    folder = save_sweep(tmp_path / "sweep", states | ({"base": GOOD} if with_base else {}))
    sweep = Sweep.from_folder(folder)
    assert list(sweep.ingredients) == ["a", "b"]
    assert sweep.fit.misfits == {"odd"}
    (finding,) = sweep.fit.findings
    assert (finding.severity, finding.ingredient, finding.tensor) == ("misfit", "odd", tensor)
    assert re.search(problem, finding.problem)
    assert "Exclude it" in finding.way_out
    with pytest.raises(SweepError, match="has no usable ingredient 'odd'"):
        sweep["odd"]


def test_an_ingredient_with_several_faults_has_a_finding_for_each_kind(tmp_path: Path) -> None:
    odd = {"w": torch.full((3, 3), torch.nan), "extra": torch.ones(1), "n": torch.tensor(5)}
    folder = save_sweep(tmp_path / "sweep", {"a": shifted(1), "b": shifted(2), "odd": odd})
    found = findings_of(Sweep.from_folder(folder), "odd")
    assert [(finding.severity, finding.tensor) for finding in found] == [
        ("misfit", "b"),
        ("misfit", "extra"),
        ("misfit", "w"),
        ("misfit", "w"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "problem", "way_out"),
    [
        ("odd.safetensors", b"", "is empty.", "Copy or download it again."),
        (
            "odd.safetensors",
            b"version https://git-lfs.github.com/spec/v1\n",
            "is a Git LFS pointer, not the weights.",
            "Run `git lfs pull` in its folder.",
        ),
        (
            "odd.safetensors",
            b"\x01123456789",
            "is not a complete safetensors file",
            "Copy or download it again.",
        ),
        ("odd.pt", b"<html>404</html>", "is a web page", "Open it in a browser"),
        ("odd.pt", b"\1no pickle", "cannot be opened", ""),
        (
            "odd.safetensors.index.json",
            b'{"weight_map": {"w": "gone.safetensors"}}',
            "the shard gone.safetensors is missing.",
            "Copy it beside the index.",
        ),
    ],
)
def test_an_unreadable_file_is_a_finding_and_the_sweep_goes_on(
    tmp_path: Path, name: str, content: bytes, problem: str, way_out: str
) -> None:
    folder = save_sweep(tmp_path / "sweep", {"a": shifted(1), "b": shifted(2)})
    (folder / name).write_bytes(content)
    sweep = Sweep.from_folder(folder)
    assert list(sweep.ingredients) == ["a", "b"]
    (finding,) = sweep.fit.findings
    assert (finding.severity, finding.ingredient, finding.tensor) == ("misfit", "odd", "")
    assert str(folder) not in finding.problem
    assert problem in finding.problem
    assert finding.way_out.startswith(way_out)
    assert finding.way_out


def test_the_layout_of_the_majority_decides_without_a_base(tmp_path: Path) -> None:
    few = {"other": torch.ones(3)}
    states = {"a": few, "b": shifted(1), "c": shifted(2)}
    sweep = Sweep.from_folder(save_sweep(tmp_path / "sweep", states))
    assert list(sweep.ingredients) == ["b", "c"]
    assert {finding.problem for finding in findings_of(sweep, "a")} == {
        "lacks 3 tensors of most of the sweep: b, n, w",
        "has 1 tensor that most of the sweep lacks: other",
    }


def test_the_base_decides_which_ingredients_fit(tmp_path: Path) -> None:
    states = {"a": shifted(1), "b": {"x": torch.ones(3)}, "c": {"x": torch.zeros(3)}, "base": GOOD}
    sweep = Sweep.from_folder(save_sweep(tmp_path / "sweep", states))
    assert list(sweep.ingredients) == ["a"]
    assert sweep.fit.misfits == {"b", "c"}


@pytest.mark.parametrize(
    ("state", "tensor", "problem"),
    [
        pytest.param(
            shifted(9) | {"b": torch.ones(2, dtype=torch.float16)},
            "b",
            "is stored as float16, but as float32 in the base",
            id="dtype",
        ),
        pytest.param(
            shifted(9) | {"n": torch.tensor(6)},
            "n",
            "has int64 values that differ from the base",
            id="other integers",
        ),
        pytest.param(shifted(1), "", "has the same weights as a", id="duplicate"),
    ],
)
def test_ingredients_with_warnings_take_part(
    tmp_path: Path, state: State, tensor: str, problem: str
) -> None:
    states = {"a": shifted(1), "b": shifted(2), "odd": state, "base": GOOD}
    sweep = Sweep.from_folder(save_sweep(tmp_path / "sweep", states))
    assert list(sweep.ingredients) == ["a", "b", "odd"]
    assert not sweep.fit.misfits
    (finding,) = sweep.fit.findings
    assert finding.way_out
    assert (finding.severity, finding.ingredient, finding.tensor, finding.problem) == (
        "warning",
        "odd",
        tensor,
        problem,
    )


def test_a_duplicate_in_another_format_is_a_duplicate(tmp_path: Path) -> None:
    folder = save_sweep(tmp_path / "sweep", {"run2": shifted(1), "run3": shifted(2)})
    torch.save(shifted(1), folder / "run10.pt")
    (finding,) = Sweep.from_folder(folder).fit.findings
    assert (finding.ingredient, finding.problem) == ("run10", "has the same weights as run2")


def test_counters_of_batchnorm_may_differ(tmp_path: Path) -> None:
    base = random_state(0)
    states = {
        name: moved(base, 0.1, seed) | {"1.num_batches_tracked": torch.tensor(seed)}
        for seed, name in enumerate(["a", "b", "base"], start=1)
    }
    assert Sweep.from_folder(save_sweep(tmp_path / "sweep", states)).fit.findings == ()


def test_a_sweep_that_fits_has_no_findings(sweep: Sweep) -> None:
    assert sweep.fit.findings == ()


def test_misfits_are_not_compared_with_each_other(tmp_path: Path) -> None:
    nan = {"w": torch.full((2, 3), torch.nan), "b": torch.ones(2), "n": torch.tensor(99)}
    states = {"a": shifted(1), "b": shifted(2), "x": nan, "y": nan}
    sweep = Sweep.from_folder(save_sweep(tmp_path / "sweep", states))
    assert [(f.ingredient, f.severity) for f in sweep.fit.findings] == [
        ("x", "misfit"),
        ("y", "misfit"),
    ]


BAD_BASES = {
    "tensor 'w': has NaN or infinite values .6 of 6.": GOOD | {"w": torch.full((2, 3), torch.nan)},
    "tensor 'w': lacks 1 tensor of most of the sweep": {"b": GOOD["b"], "n": GOOD["n"]},
}


@pytest.mark.parametrize("problem", BAD_BASES)
def test_a_base_that_was_named_must_be_usable(tmp_path: Path, problem: str) -> None:
    states = {"a": shifted(1), "b": shifted(2), "zero": BAD_BASES[problem]}
    folder = save_sweep(tmp_path / "sweep", states)
    with pytest.raises(SweepError, match=f"the base 'zero' cannot be used: {problem}"):
        Sweep.from_folder(folder, base="zero")


@pytest.mark.parametrize("problem", BAD_BASES)
def test_a_sweep_with_an_unusable_base_is_opened(tmp_path: Path, problem: str) -> None:
    states = {"a": shifted(1), "b": shifted(2), "base": BAD_BASES[problem]}
    sweep = Sweep.from_folder(save_sweep(tmp_path / "sweep", states))
    assert sweep.base is None
    assert list(sweep.ingredients) == ["a", "b"]
    (finding,) = sweep.fit.findings
    assert (finding.severity, finding.ingredient) == ("misfit", "base")
    assert re.search(problem.partition(": ")[2], finding.problem)


def test_a_base_that_no_ingredient_fits_is_left_out(tmp_path: Path) -> None:
    """As where the base is another network, which has a layer of the same shape."""
    backbone = {"embed": torch.ones(3, 2)}
    runs = {
        f"run{i}": {"embed": torch.ones(3, 2) * i, "head": torch.ones(2), "up": torch.ones(2, 1)}
        for i in range(3)
    }
    sweep = Sweep.from_folder(save_sweep(tmp_path / "sweep", runs | {"base": backbone}))
    assert (list(sweep.ingredients), sweep.base) == ([*runs], None)
    (finding,) = sweep.fit.findings
    assert (finding.severity, finding.ingredient, finding.tensor) == ("misfit", "base", "head")
    assert "including its head" in finding.way_out
    assert sweep.fit.reference == "run0"


MASK = torch.tensor([0.0, -torch.inf])


@pytest.mark.parametrize("with_base", [True, False])
def test_shared_infinities_are_accepted(tmp_path: Path, with_base: bool) -> None:
    states = {name: shifted(by) | {"mask": MASK} for by, name in enumerate(["a", "b"], start=1)}
    states |= {"base": GOOD | {"mask": MASK}} if with_base else {}
    sweep = Sweep.from_folder(save_sweep(tmp_path / "sweep", states))
    assert sweep.fit.findings == ()
    save_checked(uniform(sweep), tmp_path / "soup.safetensors")
    soup = load_file(tmp_path / "soup.safetensors")
    assert same_weights(soup, average([shifted(1), shifted(2)]) | {"mask": MASK})


@pytest.mark.parametrize(
    ("masks", "misfits"),
    [
        pytest.param([MASK, MASK, -MASK], {"a", "b", "c"}, id="signs differ"),
        pytest.param([MASK, MASK, torch.zeros(2)], {"a", "b"}, id="finite in one"),
        pytest.param([MASK], {"a"}, id="one alone"),
    ],
)
def test_infinities_that_not_all_ingredients_share_are_misfits(
    tmp_path: Path, masks: list[torch.Tensor], misfits: set[str]
) -> None:
    named = zip("abc", masks, strict=False)
    states = {name: shifted(i) | {"m": m} for i, (name, m) in enumerate(named)}
    folder = save_sweep(tmp_path / "sweep", states)
    if misfits == {*states}:
        with pytest.raises(NothingFitsError, match=r"NaN or infinite values \(1 of 2\)") as caught:
            Sweep.from_folder(folder)
        assert caught.value.fit.misfits == misfits
    else:
        assert Sweep.from_folder(folder).fit.misfits == misfits


def test_values_are_compared_with_the_first_that_fits_where_there_is_no_base(
    tmp_path: Path,
) -> None:
    half = shifted(2) | {"b": torch.ones(2, dtype=torch.float16)}
    states = {"a": {"w": GOOD["w"]}, "b": shifted(1), "c": half, "d": half | {"n": torch.tensor(8)}}
    sweep = Sweep.from_folder(save_sweep(tmp_path / "sweep", states))
    assert sweep.fit.reference == "b"
    assert [(f.ingredient, f.tensor, f.problem) for f in sweep.fit.findings[1:]] == [
        ("c", "b", "is stored as float16, but as float32 in b"),
        ("d", "b", "is stored as float16, but as float32 in b"),
        ("d", "n", "has int64 values that differ from b"),
    ]


def test_states_of_random_numbers_may_differ(tmp_path: Path) -> None:
    states = {
        name: shifted(seed) | {"cuda_rng_state": torch.full((9,), seed, dtype=torch.uint8)}
        for seed, name in enumerate(["a", "b"])
    }
    assert Sweep.from_folder(save_sweep(tmp_path / "sweep", states)).fit.findings == ()


def test_many_tensors_with_one_problem_are_one_finding(tmp_path: Path) -> None:
    names = [f"t{i}" for i in range(5)]
    good = {name: torch.ones(2) for name in names} | {f"i{i}": torch.tensor(i) for i in range(3)}
    states = {
        "a": good,
        "b": {name: tensor + 1 for name, tensor in good.items()},
        "nan": good | dict.fromkeys(names, torch.tensor([1, torch.nan])),
        "small": {name: t[:1] if t.dim() else t for name, t in good.items()},
    }
    # safetensors' own writer refuses tensors that share memory
    states["nan"] = {name: tensor.clone() for name, tensor in states["nan"].items()}
    states["small"] = {name: tensor.clone() for name, tensor in states["small"].items()}
    found = Sweep.from_folder(save_sweep(tmp_path / "sweep", states)).fit.findings
    assert [(f.ingredient, f.tensor, f.problem) for f in found] == [
        (
            "small",
            "t0",
            "has shape [1], but [2] in most of the sweep (and 4 tensors more)",
        ),
        ("nan", "t0", "has NaN or infinite values (1 of 2) (and 4 tensors more)"),
        ("b", "i0", "has int64 values that differ from a (and 2 tensors more)"),
    ]


def test_an_empty_header_of_one_ingredient_does_not_stop_the_sweep(tmp_path: Path) -> None:
    folder = save_sweep(tmp_path / "sweep", {"a": shifted(1)})
    raw_safetensors(folder / "b.safetensors", b"{}")
    save_file({"w": torch.ones(1)}, tmp_path / "elsewhere.safetensors")
    sweep = Sweep.from_folder(folder)
    assert list(sweep.ingredients) == ["a"]
    assert sweep.fit.misfits == {"b"}
