"""An archive of files, created while it is sent, without a copy of the weights on disk."""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

_AT_ONCE = 1 << 20
_DATE = (1980, 1, 1, 0, 0, 0)  # so that equal files give equal archives


class _Sent:
    """A file without `seek`, whose content is removed piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: there is no buffer to write."""

    def close(self) -> None:
        """Do nothing: there is no file."""

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


def zip_of(files: Mapping[str, Path]) -> Iterator[bytes]:
    """Return a ZIP archive in pieces, without compression, since weights do not compress.

    Args:
        files: `{name in the archive: path}`.
    """
    sent = _Sent()
    with zipfile.ZipFile(sent, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files.items():
            info = zipfile.ZipInfo(name, _DATE)
            info.external_attr = 0o644 << 16
            with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as entry:
                while block := source.read(_AT_ONCE):
                    entry.write(block)
                    yield sent.take()
            yield sent.take()
    yield sent.take()
