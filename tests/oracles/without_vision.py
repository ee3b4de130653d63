"""Stands in for torchvision and OpenCV where tools import them.

These packages build no part of the networks of the tests and read or write no part of a checkpoint,
and torchvision's operators do not load beside the torch of the tests.
"""

import importlib.metadata
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

from torch import nn

VERSION = "0.28.0"  # of torchvision, as goes with the torch of the tests
_ABSENT = ("cv2", "torchvision")


class _Absent(MetaPathFinder, Loader):
    """Finds a module for every import from an absent package; it answers everything asked of it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.partition(".")[0] in _ABSENT else None

    def create_module(self, spec: ModuleSpec) -> Any:
        return MagicMock(name=spec.name, __version__=VERSION, __path__=[])

    def exec_module(self, module: ModuleType) -> None:
        pass


def pretend() -> None:
    """Have all later imports from the absent packages succeed."""
    version = importlib.metadata.version
    importlib.metadata.version = lambda distribution_name: (
        VERSION if distribution_name in _ABSENT else version(distribution_name)
    )
    sys.meta_path.insert(0, _Absent())
    # timm asks whether a layer is one of these.
    misc: Any = importlib.import_module("torchvision.ops.misc")
    misc.FrozenBatchNorm2d = type("FrozenBatchNorm2d", (nn.Module,), {})
