import re
from typing import Any

import pytest
import torch
from torch import nn

from soupcore.safe_torch.refusal import Refusal
from soupcore.safe_torch.tensors import ITEM_SIZES, Storage, Tensor, storage_of
from soupcore.safe_torch.values import Global
from tests.safe_torch.torch_files import contents

STORAGE = Storage("0", "float32", 400)  # 100 elements
LARGE = 1 << 61


@pytest.mark.parametrize(
    ("offset", "shape", "stride", "problem"),
    [
        (0, (10, 10), (10, 1), None),
        (0, (10, 10), (1, 10), None),
        (99, (1,), (1,), None),
        (99, (), (), None),
        (0, (5, 1), (20, 1 << 40), None),
        (0, (3, 2), (0, 1), None),
        (1 << 40, (0, 5), (1 << 40, 1), None),
        (100, (1,), (1,), "reaches outside its storage"),
        (0, (10, 10), (11, 1), "reaches outside its storage"),
        (0, (2,), (LARGE,), "reaches outside its storage"),
        (0, (101,), (0,), "expands 400 stored bytes to 404"),
        (0, (1 << 40,), (0,), "expands 400 stored bytes to 4398046511104"),
        (0, (LARGE, LARGE), (0, 0), "expands"),
        (0, (1 << 62,), (0,), "with invalid numbers"),
        (-1, (1,), (1,), "with invalid numbers"),
        (0, (-1, -1), (1, 1), "with invalid numbers"),
        (0, (2,), (-1,), "with invalid numbers"),
        (0, (2.0,), (1,), "with invalid numbers"),
        (True, (1,), (1,), "with invalid numbers"),
        ("0", (1,), (1,), "with invalid numbers"),
        (0, ((1,),), (1,), "with invalid numbers"),
        (0, (1, 1), (1,), "contradicts its strides"),
        (0, (1,) * 65, (1,) * 65, "contradicts its strides"),
        (0, [1], [1], "has no shape and strides"),
        (0, None, (1,), "has no shape and strides"),
    ],
)
def test_views_of_no_tensor_are_found(
    offset: Any, shape: Any, stride: Any, problem: str | None
) -> None:
    found = Tensor(STORAGE, "float32", offset, shape, stride).problem()
    reason = found and found[0]
    assert (problem in reason) if problem and reason else (reason == problem)


FLOAT = Global("torch.FloatStorage")


@pytest.mark.parametrize(
    ("pid", "problem"),
    [
        (("storage", FLOAT, "0", "cpu", 4), None),
        (("storage", Global("torch.storage.UntypedStorage"), "0", "cuda:0", 4), None),
        (("storage", FLOAT, "1", "cpu", 4), "two sizes or dtypes"),
        (("storage", Global("torch.HalfStorage"), "2", "cpu", 4), "two sizes or dtypes"),
        (("storage", Global("evil.FloatStorage"), "0", "cpu", 4), "describes a storage"),
        (("storage", Global("torch.Storage"), "0", "cpu", 4), "describes a storage"),
        (("storage", "torch.FloatStorage", "0", "cpu", 4), "describes a storage"),
        (("storage", FLOAT, 0, "cpu", 4), "describes a storage"),
        (("storage", FLOAT, "0" * 41, "cpu", 4), "describes a storage"),
        (("storage", FLOAT, "0", "cpu", -4), "describes a storage"),
        (("storage", FLOAT, "0", "cpu", True), "describes a storage"),
        (("storage", FLOAT, "0", "cpu", 1 << 62), "describes a storage"),
        (("storage", FLOAT, "0", "cpu"), "describes a storage"),
        (("module", FLOAT, "0", "cpu", 4), "describes a storage"),
        ("storage", "describes a storage"),
        (None, "describes a storage"),
    ],
)
def test_ids_of_storages_are_resolved_or_refused(pid: Any, problem: str | None) -> None:
    known = {"1": Storage("1", "float32", 4), "2": Storage("2", "float32", 8)}
    if problem is None:
        assert storage_of(pid, known).nbytes in (4, 16)
        assert set(known) == {"0", "1", "2"}
    else:
        with pytest.raises(Refusal, match=problem):
            storage_of(pid, known)


@pytest.mark.parametrize("name", ITEM_SIZES)
def test_sizes_of_elements_are_those_of_torch(name: str) -> None:
    assert getattr(torch, name).itemsize == ITEM_SIZES[name]


class Tracked(torch.Tensor):
    pass


def quantized() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("make", "problem", "way_out"),
    [
        (lambda: torch.eye(3).to_sparse(), "is sparse and cannot be averaged", "to_dense"),
        (lambda: torch.eye(4).to_sparse_csr(), "is sparse and cannot be averaged", "to_dense"),
        (
            lambda: torch.ones(3, device="meta"),
            "has no values .it was saved from the meta device",
            "once its weights are loaded",
        ),
        (quantized, "is quantized and cannot be averaged", "Save the float weights"),
        (
            lambda: torch.ones(2).as_subclass(Tracked),
            r"is of the class .*\.Tracked, not a plain",
            "Save its .data",
        ),
        (
            lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]),
            "is a nested tensor and cannot be averaged",
            "Save its parts",
        ),
        (lambda: torch.ones(1).expand(9), "expands 4 stored bytes to 36", "contiguous"),
        (lambda: nn.LazyLinear(2).weight, "has no values yet", "Run the model once"),
        (lambda: nn.LazyBatchNorm1d().running_mean, "has no values yet", "Run the model once"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_dtypes_without_plain_elements_are_refused_by_name(
    make: Any, problem: str, way_out: str
) -> None:
    (found,) = contents({"ok": torch.ones(1), "layer.w": make()})["sets"]
    assert "tensors" not in found
    assert found["problem"].startswith("Tensor 'layer.w' ")
    assert re.search(problem, found["problem"])
    assert way_out in found["way_out"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_lazy_layer_is_reported_as_a_tensor_without_values() -> None:
    model = nn.Sequential(nn.LazyLinear(2))
    for saved in (model, model.state_dict(), {"model": model}):
        (found,) = contents(saved)["sets"]
        assert found["problem"].startswith("Tensor '0.weight' has no values yet")


def test_parameters_and_tensors_with_attributes_are_tensors() -> None:
    tagged = nn.Parameter(torch.ones(2))
    tagged.tag = "x"  # type: ignore[attr-defined]
    plain = torch.ones(3)
    plain.tag = "y"  # type: ignore[attr-defined]
    state = {"p": nn.Parameter(torch.ones(1)), "t": tagged, "a": plain, "b": nn.Buffer(plain)}
    (found,) = contents(state)["sets"]
    assert [view[3] for view in found["tensors"].values()] == [(1,), (2,), (3,), (3,)]


def test_names_that_are_no_text_or_too_long_are_refused() -> None:
    (found,) = contents({"x" * 1001: torch.ones(1)})["sets"]
    assert "has a name longer than the limit of 1000" in found["problem"]
    (found,) = contents({"\ud800": torch.ones(1)})["sets"]
    assert "has a name that is not text" in found["problem"]


def test_one_storage_under_very_many_names_is_refused() -> None:
    one = torch.ones(4)
    (found,) = contents({f"w{number}": one for number in range(99)})["sets"]
    assert len(found["tensors"]) == 99
    (found,) = contents({f"w{number}": one for number in range(101)})["sets"]
    assert found["problem"] == "Its tensors repeat stored bytes more than 100 times."


def test_only_storages_that_hold_weights_are_given() -> None:
    unused = {"optimizer": {"state": {0: torch.ones(5)}}}
    read = contents({"state_dict": {"w": torch.ones(2)}, **unused})
    (view,) = read["sets"][0]["tensors"].values()
    assert list(read["storages"]) == [view[0]]
    assert read["storages"][view[0]][1] == 8
