"""Provenance of soups: cards, uploads, adapters, configurations for mergekit, and rebuilding."""

from soupcore.provenance.adapter_folder import relative_error, save_adapter, summed_rank
from soupcore.provenance.card import base_models_of, files_for_hub, model_card
from soupcore.provenance.hub import check_repo, push_to_hub, write_hub_folder
from soupcore.provenance.mergekit import mergekit_config
from soupcore.provenance.rebuilding import rebuild
from soupcore.provenance.scatter import scores_svg

__all__ = [
    "base_models_of",
    "check_repo",
    "files_for_hub",
    "mergekit_config",
    "model_card",
    "push_to_hub",
    "rebuild",
    "relative_error",
    "save_adapter",
    "scores_svg",
    "summed_rank",
    "write_hub_folder",
]
