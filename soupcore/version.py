"""The version of Stockpot, for the package and the manifests of soups."""

VERSION = "0.1.0"
