"""Where a soup comes from, told so that anybody can make it again."""

from soupcore.provenance.card import model_card
from soupcore.provenance.mergekit import mergekit_config
from soupcore.provenance.rebuilding import rebuild

__all__ = ["mergekit_config", "model_card", "rebuild"]
