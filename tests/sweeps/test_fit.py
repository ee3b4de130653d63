import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soupcore import Finding, Sweep, SweepError
from tests.helpers import State, moved, random_state, raw_safetensors, save_sweep

GOOD = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2), "n": torch.tensor(5)}


def shifted(by: float) -> State:
    return GOOD | {"w": GOOD["w"] + by}


def findings_of(sweep: Sweep, name: str) -> list[Finding]:
    return [finding for finding in sweep.fit.findings if finding.ingredient == name]


@pytest.mark.parametrize("with_base", [True, False])
@pytest.mark.parametrize(
    ("state", "tensor", "problem"),
    [
        pytest.param({"w": GOOD["w"], "n": GOOD["n"]}, "b", "1 tensor.* missing: b", id="missing"),
        pytest.param(GOOD | {"head": torch.ones(1)}, "head", "1 tensor.* lacks: head", id="extra"),
        pytest.param(
            GOOD | {f"x{i}": torch.ones(1) for i in range(5)},
            "x0",
            "5 tensor.* lacks: x0, x1, x2, …",
            id="several extra",
        ),
        pytest.param(
            GOOD | {"w": torch.ones(3, 2)}, "w", r"shape \[3, 2\], .* \[2, 3\]", id="shape"
        ),
        pytest.param(
            GOOD | {"b": torch.tensor([float("nan"), 1])}, "b", "1 of 2 values are NaN", id="NaN"
        ),
        pytest.param(
            GOOD | {"w": torch.full((2, 3), float("inf"))}, "w", "6 of 6 values", id="infinite"
        ),
        pytest.param(
            GOOD | {"b": torch.ones(2).to(torch.float8_e4m3fn)},
            "b",
            "stored as float8_e4m3fn, .* as float32",
            id="dtype without a common one",
        ),
    ],
)
def test_a_misfit_is_left_out_and_told_with_its_tensor_and_the_way_out(
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
    assert "Leave it out" in finding.way_out
    with pytest.raises(SweepError, match="has no ingredient 'odd' that can be used"):
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
    ("name", "content"),
    [
        ("odd.safetensors", b""),
        ("odd.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
        ("odd.safetensors", b"0123456789"),
        ("odd.pt", b"no pickle"),
        ("odd.safetensors.index.json", b'{"weight_map": {"w": "gone.safetensors"}}'),
    ],
)
def test_an_unreadable_file_is_a_finding_and_the_sweep_goes_on(
    tmp_path: Path, name: str, content: bytes
) -> None:
    folder = save_sweep(tmp_path / "sweep", {"a": shifted(1), "b": shifted(2)})
    (folder / name).write_bytes(content)
    sweep = Sweep.from_folder(folder)
    assert list(sweep.ingredients) == ["a", "b"]
    (finding,) = sweep.fit.findings
    assert (finding.severity, finding.ingredient, finding.tensor) == ("misfit", "odd", "")
    assert str(folder / name) in finding.problem
    assert finding.way_out


def test_without_a_base_the_layout_of_most_decides(tmp_path: Path) -> None:
    few = {"other": torch.ones(3)}
    states = {"a": few, "b": shifted(1), "c": shifted(2)}
    sweep = Sweep.from_folder(save_sweep(tmp_path / "sweep", states))
    assert list(sweep.ingredients) == ["b", "c"]
    assert {finding.problem.split(" are ")[0] for finding in findings_of(sweep, "a")} == {
        "3 tensor(s) of most of the sweep",
        "1 tensor(s) that most of the sweep lacks: other",
    }


def test_with_a_base_the_base_decides(tmp_path: Path) -> None:
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
            "stored as float16, in the base as float32",
            id="dtype",
        ),
        pytest.param(
            shifted(9) | {"n": torch.tensor(6)},
            "n",
            "these int64 values are not those of the base",
            id="other integers",
        ),
        pytest.param(shifted(1), "", "the same weights as a", id="duplicate"),
    ],
)
def test_a_warning_is_told_and_the_ingredient_takes_part(
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
    assert (finding.ingredient, finding.problem) == ("run10", "the same weights as run2")


def test_counters_of_batchnorm_may_differ(tmp_path: Path) -> None:
    base = random_state(0)
    states = {
        name: moved(base, 0.1, seed) | {"1.num_batches_tracked": torch.tensor(seed)}
        for seed, name in enumerate(["a", "b", "base"], start=1)
    }
    assert Sweep.from_folder(save_sweep(tmp_path / "sweep", states)).fit.findings == ()


def test_a_sweep_that_fits_has_no_findings(sweep: Sweep) -> None:
    assert sweep.fit.findings == ()


def test_a_misfit_is_not_compared_with_others(tmp_path: Path) -> None:
    nan = {"w": torch.full((2, 3), torch.nan), "b": torch.ones(2), "n": torch.tensor(99)}
    states = {"a": shifted(1), "b": shifted(2), "x": nan, "y": nan}
    sweep = Sweep.from_folder(save_sweep(tmp_path / "sweep", states))
    assert [(f.ingredient, f.severity) for f in sweep.fit.findings] == [
        ("x", "misfit"),
        ("y", "misfit"),
    ]


@pytest.mark.parametrize("name", ["base", "zero"])
def test_a_base_that_is_not_finite_is_told(tmp_path: Path, name: str) -> None:
    bad = GOOD | {"w": torch.full((2, 3), torch.nan)}
    folder = save_sweep(tmp_path / "sweep", {"a": shifted(1), name: bad})
    with pytest.raises(SweepError, match=rf"the base '{name}' cannot be used: 6 of 6 values"):
        Sweep.from_folder(folder, base=name)


def test_an_empty_header_of_one_ingredient_does_not_stop_the_sweep(tmp_path: Path) -> None:
    folder = save_sweep(tmp_path / "sweep", {"a": shifted(1)})
    raw_safetensors(folder / "b.safetensors", b"{}")
    save_file({"w": torch.ones(1)}, tmp_path / "elsewhere.safetensors")
    sweep = Sweep.from_folder(folder)
    assert list(sweep.ingredients) == ["a"]
    assert sweep.fit.misfits == {"b"}
