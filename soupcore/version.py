"""The version of Stockpot, as the package and the soups' manifests give it."""

VERSION = "0.1.0"
