"""What a file with several sets of weights gives, from opening it to a soup that torch loads."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from soupcore import CheckpointError, Sweep, open_checkpoint, uniform
from tests.helpers import State, save_checked

NETWORK = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def state(seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in NETWORK.state_dict().items()
    }


def in_two_parts(seed: int) -> dict[str, Any]:
    whole = state(seed)
    head = {name.removeprefix("2."): tensor for name, tensor in whole.items() if name[0] == "2"}
    body = {name: tensor for name, tensor in whole.items() if name[0] != "2"}
    return {"model": body, "generator": head, "step": seed, "optim": {"state": {}}}


def means(states: list[State]) -> State:
    return {
        name: torch.stack([one[name].double() for one in states]).mean(0).float()
        for name, tensor in states[0].items()
        if tensor.is_floating_point()
    }


def sweep_of(folder: Path, saved: list[Any], **options: Any) -> Sweep:
    for number, value in enumerate(saved):
        torch.save(value, folder / f"run{number}.pt")
    return Sweep.from_folder(folder, **options)


def test_a_soup_of_a_network_in_parts_is_in_every_part_of_the_copied_file(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, [in_two_parts(seed) for seed in range(3)])
    soup = uniform(sweep)
    assert soup.output.why_no_pt is None
    save_checked(soup, tmp_path / "soup.pt")
    loaded = torch.load(tmp_path / "soup.pt", weights_only=True)
    for part in ("model", "generator"):
        expected = means([in_two_parts(seed)[part] for seed in range(3)])
        for name, tensor in expected.items():
            torch.testing.assert_close(loaded[part][name], tensor, rtol=0, atol=1e-7)
    notes = [finding.problem for finding in sweep.fit.findings if finding.severity == "note"]
    assert any("'model', 'generator'" in note for note in notes)


@pytest.mark.parametrize("part", ["model", "generator"])
def test_a_part_can_be_averaged_alone_but_not_into_a_copy_of_the_file(
    tmp_path: Path, part: str
) -> None:
    sweep = sweep_of(tmp_path, [in_two_parts(seed) for seed in range(2)], weights=part)
    soup = uniform(sweep)
    expected = means([in_two_parts(seed)[part] for seed in range(2)])
    found = soup.state_dict()
    assert all(torch.allclose(found[name], tensor) for name, tensor in expected.items())
    (other,) = {"model", "generator"} - {part}
    assert f"contains {other!r} besides these weights" in (soup.output.why_no_pt or "")
    with pytest.raises(CheckpointError, match=r"Save the soup as \.safetensors"):
        save_checked(soup, tmp_path / "soup.pt")
    save_checked(soup, tmp_path / "soup.safetensors")


@pytest.mark.parametrize(
    ("other", "name"),
    [
        (lambda average: average, "model_avg"),
        (lambda average: {f"module.{name}": average[name] for name in average}, "swa_model"),
        (lambda average: {"shadow": average, "decay": 0.99}, "average.shadow"),
    ],
)
def test_every_set_can_be_opened_by_its_name(tmp_path: Path, other: Any, name: str) -> None:
    torch.save({"model": state(0), name.partition(".")[0]: other(state(1))}, tmp_path / "a.pt")
    first = open_checkpoint(tmp_path / "a.pt")
    assert {found.name for found in first.weight_sets} == {"model", name}
    assert first.weights == "model"
    assert any(name in note for note in first.notes)
    average = open_checkpoint(tmp_path / "a.pt", name)
    values: list[Tensor] = [average.read(tensor) for tensor in average.tensors]
    assert all(map(torch.equal, values, state(1).values()))


def test_an_average_saved_as_a_list_is_read_under_the_names_of_its_parameters(
    tmp_path: Path,
) -> None:
    average = [parameter.detach() + 1 for parameter in NETWORK.parameters()]
    saved = {"model": NETWORK.state_dict(), "ema": {"decay": 0.9, "shadow_params": average}}
    torch.save(saved, tmp_path / "a.pt")
    opened = open_checkpoint(tmp_path / "a.pt", "ema.shadow_params")
    for name, parameter in NETWORK.named_parameters():
        assert torch.equal(opened.read(name), parameter.detach() + 1)


@pytest.mark.parametrize("suffix", ["pkl", "pth", "pt"])
def test_arrays_inside_a_pickle_are_averaged_but_not_into_a_copy(
    tmp_path: Path, suffix: str
) -> None:
    for number in range(2):
        saved = {"model": {name: tensor.numpy() for name, tensor in state(number).items()}}
        path = tmp_path / f"run{number}.{suffix}"
        if suffix == "pt":
            torch.save(saved, path, pickle_protocol=4)
        else:
            path.write_bytes(pickle.dumps(saved | {"__author__": "a model zoo"}, 4))
    soup = uniform(Sweep.from_folder(tmp_path))
    expected = means([state(0), state(1)])
    assert all(torch.allclose(soup.state_dict()[name], expected[name]) for name in expected)
    assert "NumPy arrays inside its pickle" in (soup.output.why_no_pt or "")
    save_checked(soup, tmp_path / "soup.safetensors")


def test_a_list_that_fits_no_names_cannot_be_opened_and_says_why(tmp_path: Path) -> None:
    saved = {"model": NETWORK.state_dict(), "ema": {"shadow_params": [torch.ones(9, 9)]}}
    torch.save(saved, tmp_path / "a.pt")
    assert open_checkpoint(tmp_path / "a.pt").weights == "model"
    with pytest.raises(
        CheckpointError, match=r"'ema\.shadow_params' is a list of 1 tensor"
    ) as error:
        open_checkpoint(tmp_path / "a.pt", "ema.shadow_params")
    assert "Save the average as a state dict." in error.value.way_out
