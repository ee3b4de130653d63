"""Files in S3 and other file systems of fsspec: pinned by version or ETag, read in exact ranges.

The file system finds credentials itself, such as `$AWS_ACCESS_KEY_ID` or a profile. Files are read
by `cat_file` with a start and an end, which sends one request for exactly this range.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from soupcore.checkpoints.recognition import is_checkpoint_name, stem_of
from soupcore.errors import RemoteError
from soupcore.remote.files import CutOffError, Found, RemoteFile
from soupcore.remote.urls import is_pattern, select, without_credentials

_AT_ONCE = 32 << 20  # bytes per request: a compromise between the number of requests and memory
_MD5 = re.compile(r"[0-9a-f]{32}")
_EXTRAS = {"s3": "s3fs", "s3a": "s3fs"}
_CHANGES = ("mtime", "LastModified", "updated", "last_modified", "created")


class FileSystem:
    """The files of one scheme.

    Args:
        scheme: The scheme, such as `s3`.
    """

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme
        try:
            import fsspec

            fsspec.get_filesystem_class(scheme)
        except ImportError:
            package = _EXTRAS.get(scheme)
            way_out = "the package that fsspec names for it"
            if package:
                way_out = f"{package}: pip install 'stockpot[s3]'"
            raise RemoteError(f"{scheme}:// cannot be read here. Install {way_out}.") from None
        except ValueError:
            raise RemoteError(
                f"{scheme}:// is not supported. Use hf://, s3:// or another scheme of fsspec."
            ) from None

    def find(self, url: str) -> list[Found]:
        """Return the files and folders that a URL names; see `Source`."""
        with _errors(url):
            fs, path = self._open(url)
            pattern = ""
            if is_pattern(path):
                parts = path.split("/")
                first = next(i for i, part in enumerate(parts) if is_pattern(part))
                path, pattern = "/".join(parts[:first]), "/".join(parts[first:])
            top = fs.info(path)
            if top["type"] == "file":
                name = path.rpartition("/")[2]
                pinned = self._pinned(fs, path, top)
                return [Found(_names(name, path), {name: pinned}, is_file=True)]
            infos = fs.find(path, detail=True)
            inside = {
                name[len(path) :].strip("/"): (name, info)
                for name, info in infos.items()
                if name.startswith(path) and not name.endswith("/")
            }
            selected = select(pattern, inside) if pattern else {"": [*inside]}
            if not any(selected.values()):
                what = "Nothing matches" if pattern else "There are no files in"
                raise RemoteError(f"{what} {without_credentials(url)}.")
            return [
                Found(
                    _names(at.rpartition("/")[2] or path.rpartition("/")[2], f"{path}/{at}"),
                    {
                        (f[len(at) :].strip("/") or f.rpartition("/")[2]): self._pinned(
                            fs, *inside[f]
                        )
                        for f in files
                    },
                    files == [at],
                )
                for at, files in selected.items()
            ]

    def _open(self, url: str, **options: Any) -> tuple[Any, str]:
        import fsspec

        fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False, **options)
        fs.invalidate_cache()
        return fs, path

    def _pinned(self, fs: Any, path: str, info: dict[str, Any]) -> RemoteFile:
        if self._scheme not in _EXTRAS:
            info = fs.info(path)  # listings may show other times
        elif is_checkpoint_name(Path(path)):
            info = fs.info(path, refresh=True)  # the version, which listings do not have
        url = without_credentials(fs.unstrip_protocol(path))
        if info.get("size") is None:
            raise RemoteError(f"{url}: the server does not report the file's size.")
        version = info.get("VersionId") or info.get("generation") or ""
        etag = str(info.get("ETag") or info.get("etag") or "").strip('"')
        modified = next((str(info[name]) for name in _CHANGES if info.get(name)), "")
        return RemoteFile(
            url,
            int(info["size"]),
            version="" if version == "null" else str(version),
            etag=etag,
            modified="" if etag else modified,
        )

    def read(self, file: RemoteFile, start: int, stop: int) -> bytes:
        """Read a range by one request; see `Source`."""
        with _errors(file.url):
            fs, path = self._open(file.url)
            version = {"version_id": file.version} if file.version else {}
            found = fs.cat_file(path, start=start, end=min(stop, file.size), **version)
            content = bytes(found)
        if len(content) > stop - start:  # a server without ranges sends the whole file
            content = content[start:stop]
        return content

    def stream(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        """Yield the bytes from `start` on; see `Source`."""
        while start < file.size:
            block = self.read(file, start, min(start + _AT_ONCE, file.size))
            if not block:
                return
            yield block
            start += len(block)

    def check_same(self, file: RemoteFile) -> None:
        """Check that the file was not changed since it was pinned; see `Source`."""
        if file.version:
            return
        with _errors(file.url):
            fs, path = self._open(file.url)
            now = self._pinned(fs, path, fs.info(path))
        if (now.size, now.etag, now.modified) != (file.size, file.etag, file.modified):
            raise RemoteError(
                f"{file.url} was changed: it is pinned to {file.identity} and is now "
                f"{now.identity}. Resolve the sweep's URLs again to use the new file, or restore "
                "the old one."
            )

    def is_md5(self, file: RemoteFile) -> bool:
        """Return whether the ETag is an MD5: not of uploads in parts, nor of some encryptions."""
        if self._scheme not in _EXTRAS or not _MD5.fullmatch(file.etag):
            return False
        with _errors(file.url):
            fs, path = self._open(file.url)
            bucket, key, _ = fs.split_path(path)
            version = {"VersionId": file.version} if file.version else {}
            head = fs.call_s3("head_object", Bucket=bucket, Key=key, **version)
        is_plain = head.get("ServerSideEncryption") in (None, "AES256")
        return is_plain and not head.get("SSECustomerAlgorithm")


def _names(name: str, path: str) -> tuple[str, ...]:
    stem = stem_of(Path(name)) or name
    above = path.strip("/").rpartition("/")[0].rpartition("/")[2]
    return stem, f"{above}-{stem}" if above else stem, path.strip("/")


@contextmanager
def _errors(url: str) -> Iterator[None]:
    """Replace errors of file systems by errors whose messages contain no credentials."""
    shown = without_credentials(url)
    try:
        yield
    except FileNotFoundError:
        raise RemoteError(f"{shown} does not exist.") from None
    except PermissionError:
        raise RemoteError(
            f"{shown}: access refused. Check your credentials: $AWS_ACCESS_KEY_ID and "
            "$AWS_SECRET_ACCESS_KEY, or $AWS_PROFILE, for S3."
        ) from None
    except (RemoteError, CutOffError):
        raise
    except (OSError, TimeoutError) as error:
        raise CutOffError(f"the connection was lost ({type(error).__name__})") from None
    except Exception as error:
        kind = type(error).__name__
        if "Credentials" in kind:
            raise RemoteError(
                f"{shown}: there are no credentials. Set $AWS_ACCESS_KEY_ID and "
                "$AWS_SECRET_ACCESS_KEY, or $AWS_PROFILE."
            ) from None
        if "Connect" in kind or "Timeout" in kind or "Payload" in kind or "Disconnected" in kind:
            raise CutOffError(f"the connection was lost ({kind})") from None
        raise RemoteError(f"{shown} cannot be read ({kind}).") from None
