"""The formats of a soup's weights."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pages.components import download
from soupcore import Sweep, uniform
from tests.helpers import State


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_the_overview_writes_the_default_format(
    tmp_path: Path, states: Mapping[str, State], suffix: str
) -> None:
    for name in ("run1", "run2"):
        file = tmp_path / f"{name}{suffix}"
        if suffix == ".pt":
            torch.save(states[name], file)
        else:
            save_file(states[name], file)
    soup = uniform(Sweep.from_folder(tmp_path))
    first = download._formats(soup)[0]
    assert download._FORMS[first] == download._choose_form(soup)
    assert download._FORMS[first].as_ingredient == (suffix == ".pt")
