"""The source of a URL, by its scheme."""

from functools import cache

from soupcore.remote.files import Source
from soupcore.remote.urls import HUB, scheme_of


def source_of(url: str) -> Source:
    """Return the source that holds the files of a URL.

    Raises:
        RemoteError: A package that it needs is not installed, or the scheme is unknown.
    """
    return _source(scheme_of(url))


@cache
def _source(scheme: str) -> Source:
    if scheme == HUB:
        from soupcore.remote.hub import Hub

        return Hub()
    from soupcore.remote.filesystems import FileSystem

    return FileSystem(scheme)
