"""Torch files in memory, read strictly in this process."""

import io
import pickle
from typing import Any

import torch

from soupcore.safe_torch.contents import read_contents
from soupcore.safe_torch.machine import Call, Machine
from soupcore.safe_torch.values import Global
from tests.safe_torch import foreign


def saved(value: object, protocol: int = 2, *, zipped: bool = True) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(
        value,
        file,
        pickle_module=foreign,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=zipped,
    )
    return file


def contents(value: object, protocol: int = 2, *, zipped: bool = True) -> dict[str, Any]:
    return read_contents(saved(value, protocol, zipped=zipped))


def unpickled(value: object, protocol: int = 4) -> Any:
    return machine(pickle.dumps(value, protocol)).load()


def machine(data: bytes, calls: dict[str, Call] | None = None) -> Machine:
    return Machine(data, calls or {}, lambda pid: ("stored", pid))


def path_of(value: object) -> str:
    assert isinstance(value, Global)
    return value.path
