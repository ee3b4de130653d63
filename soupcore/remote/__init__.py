"""Files on the Hugging Face Hub, on S3 and elsewhere: names, range requests, and a local cache.

Data flows from `urls` to a source (`hub` or `filesystems`), which pins each file to content that
cannot change, and from there to the `cache`, which downloads whole files once.
"""

from soupcore.remote.cache import Cache, Entry
from soupcore.remote.files import Found, RemoteFile, Source, source_of
from soupcore.remote.urls import check_url, is_url, without_credentials

__all__ = [
    "Cache",
    "Entry",
    "Found",
    "RemoteFile",
    "Source",
    "check_url",
    "is_url",
    "source_of",
    "without_credentials",
]
