"""Write points in weight space to files, in the form of an ingredient or as safetensors."""

from soupcore.writers.forms import Form
from soupcore.writers.output import Output
from soupcore.writers.safetensors import write_safetensors

__all__ = ["Form", "Output", "write_safetensors"]
