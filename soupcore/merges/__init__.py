"""Merges that are not one mixture for all tensors: checkpoints computed while they are read."""

from soupcore.merges.dare import Dare
from soupcore.merges.derived import Derived
from soupcore.merges.description import merge_from_json, with_sources
from soupcore.merges.fixed import Fixed, own_of
from soupcore.merges.grouped import Group, Grouped, as_mixed
from soupcore.merges.lora import LowRank, MergedAdapter
from soupcore.merges.ties import Ties

__all__ = [
    "Dare",
    "Derived",
    "Fixed",
    "Group",
    "Grouped",
    "LowRank",
    "MergedAdapter",
    "Ties",
    "as_mixed",
    "merge_from_json",
    "own_of",
    "with_sources",
]
