"""Provenance of soups: model cards, configurations for mergekit, and rebuilding."""

from soupcore.provenance.card import model_card
from soupcore.provenance.mergekit import mergekit_config
from soupcore.provenance.rebuilding import rebuild
from soupcore.provenance.scatter import scores_svg

__all__ = ["mergekit_config", "model_card", "rebuild", "scores_svg"]
