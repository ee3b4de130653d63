"""Sweeps whose checkpoints are on the Hugging Face Hub, on S3 or elsewhere.

Such a sweep is a folder in the workspace that is opened like any other folder. Its manifest,
`.remote.json`, stores the URLs and the files that they were resolved to: with commit, ETag or
version, and size. URLs are resolved once, so opening the sweep again sends no requests, and the
same manifest always gives the same files.

The first time, one or two range requests for each checkpoint read its header. Checkpoints that
cannot fit the others by their headers are left out. The weights of the rest are downloaded into the
cache (`soupcore.remote.cache`), and the folder links to them. Small files are copied into the
folder.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Self

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.models import why_distributed
from soupcore.checkpoints.opening import open_run
from soupcore.checkpoints.recognition import is_distributed, suffix_of
from soupcore.errors import CheckpointError, RemoteError, SweepError
from soupcore.new_files import new_file
from soupcore.progress import Progress, no_progress
from soupcore.remote import Cache, RemoteFile, check_url, source_of
from soupcore.remote.cache import REMOTE
from soupcore.remote.files import read_range
from soupcore.remote.headers import write_placeholder
from soupcore.sweeps.findings import (
    Finding,
    FitReport,
    NothingFitsError,
    SnapshotChoice,
    without_misfits,
)
from soupcore.sweeps.folder import find_runs
from soupcore.sweeps.layout import header_findings
from soupcore.sweeps.remote_files import checked, find_files, is_plain, kind_of, title_of
from soupcore.sweeps.snapshots import Snapshots, snapshot_choices, snapshots_to_text, take
from soupcore.workspace import private_folder, workspace_folder

MANIFEST = ".remote.json"
_FORMAT = 1
_AT_ONCE = 8  # requests for headers and small files
NONE: Mapping[str, Checkpoint] = MappingProxyType({})


@dataclass(frozen=True)
class Plan:
    """The files to download for a choice of snapshots, according to the headers.

    Attributes:
        weights: The files of weights, relative to the folder.
        findings: The checkpoints that are left out because they cannot fit.
        snapshots: The runs with several snapshots, including those that are not downloaded.
    """

    weights: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    snapshots: tuple[SnapshotChoice, ...] = ()


@dataclass
class RemoteSweep:
    """The folder of a remote sweep, and its manifest.

    Attributes:
        folder: The folder.
        urls: The URLs as given.
        files: `{path in the folder: file}`, pinned; empty before the URLs are resolved.
        plans: Plans by the base and the choice of snapshots.
    """

    folder: Path
    urls: tuple[str, ...]
    files: dict[str, RemoteFile] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)

    @classmethod
    def of(cls, urls: str | Sequence[str]) -> Self:
        """Return the sweep of some URLs, and create its folder if it is new. Sends no requests.

        Raises:
            RemoteError: A URL is malformed or contains credentials.
            StoreError: The workspace cannot be written.
        """
        texts = [urls] if isinstance(urls, str) else list(urls)
        wanted = tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))
        if not wanted:
            raise RemoteError("Name at least one URL, such as hf://org/repo@revision.")
        for text in wanted:
            check_url(text)
        return cls._in_workspace(title_of(wanted), wanted, {})

    @classmethod
    def of_files(cls, files: Mapping[str, RemoteFile]) -> Self:
        """Return the sweep of files that are pinned already, as in the manifest of a soup.

        Args:
            files: `{path in the folder: file}`.

        Raises:
            RemoteError: A path leads out of the folder.
        """
        for path in files:
            if not is_plain(path):
                raise RemoteError(f"{path!r} is not a plain path.")
        urls = tuple(file.url for file in files.values())
        for url in urls:
            check_url(url)
        return cls._in_workspace(title_of(urls), urls, dict(files))

    @classmethod
    def _in_workspace(cls, title: str, urls: tuple[str, ...], files: dict[str, RemoteFile]) -> Self:
        pinned = [[path, file.to_json()] for path, file in files.items()]
        digest = hashlib.sha256(json.dumps([urls, pinned]).encode()).hexdigest()[:8]
        folder = workspace_folder() / REMOTE / f"{title}-{digest}"
        known = cls.at(folder)
        if known is not None:
            return known
        sweep = cls(private_folder(folder), urls, files)
        sweep._save()
        return sweep

    @classmethod
    def at(cls, folder: Path) -> Self | None:
        """Return the remote sweep in a folder; None if it is another folder.

        Only folders of the workspace count. Elsewhere, as in an upload, a manifest may come from
        others, and this machine would read the files that it names.

        Raises:
            SweepError: Its manifest is damaged.
        """
        path = folder / MANIFEST
        try:
            text = path.read_bytes()
        except OSError:
            return None
        if folder.resolve().parent != (workspace_folder() / REMOTE).resolve():
            return None
        try:
            body = json.loads(text)
            plans = {str(key): _plan_from_json(each) for key, each in body["plans"].items()}
            sweep = cls._from_json(folder, body)
            is_known = body["format"] == _FORMAT
            if sweep is not None:
                sweep.plans = plans
                is_known = is_known and all(map(is_plain, sweep.files))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            is_known = False
        if not is_known:
            raise SweepError(
                f"{path} is not the manifest of a remote sweep, or of another version of Stockpot. "
                "Delete the folder, and open the URLs again."
            )
        return sweep

    @classmethod
    def _from_json(cls, folder: Path, body: Mapping[str, Any]) -> Self | None:
        """Return the sweep of a manifest; None if the manifest is that of another class."""
        if "files" not in body:
            return None
        return cls(folder, tuple(map(str, body["urls"])), files_of(body["files"]))

    def _files_to_json(self) -> dict[str, Any]:
        return {"files": {path: file.to_json() for path, file in self.files.items()}}

    def _save(self) -> None:
        body = {
            "format": _FORMAT,
            "urls": list(self.urls),
            **self._files_to_json(),
            "plans": {key: asdict(plan) for key, plan in self.plans.items()},
        }
        with new_file(self.folder / MANIFEST) as file:
            file.write(json.dumps(body, indent=1, ensure_ascii=False).encode())

    def refresh(self) -> None:
        """Resolve the URLs again, and use the current files.

        Raises:
            RemoteError: They name nothing, or cannot be resolved. Then nothing changes.
        """
        files = self._resolve()
        if files != self.files:
            self._replace(files)

    def _replace(self, files: dict[str, RemoteFile]) -> None:
        """Use other files, and remove the entries of the folder whose files have changed.

        Entries stay or go as a whole, since a run is read with all files in its folder.
        """
        private_folder(self.folder)
        stored = type(self).at(self.folder)
        before, after = _by_entry(stored.files if stored else {}), _by_entry(files)
        for path in self.folder.iterdir():
            is_same = path.name in after and after[path.name] == before.get(path.name)
            if is_same or path.name == MANIFEST:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        self.files, self.plans = files, {}
        self._save()

    def is_complete(
        self, base_name: str, snapshot: Snapshots, local: Mapping[str, Checkpoint] = NONE
    ) -> bool:
        """Return whether opening it needs no download, because all of its files are local.

        The arguments are those of `complete`.
        """
        plan = self.plans.get(_key(base_name, snapshot, local))
        return plan is not None and not self._missing(plan)

    def complete(
        self,
        base_name: str,
        snapshot: Snapshots,
        on_progress: Progress = no_progress,
        *,
        local: Mapping[str, Checkpoint] = NONE,
    ) -> Plan:
        """Download the missing files that are needed to open it.

        Args:
            base_name: Name of the base.
            snapshot: The snapshots to open.
            local: `{name: checkpoint}` of the local checkpoints of the same sweep, which the remote
                ones have to fit.
            on_progress: Called with the number of bytes downloaded and in total. Raise in it to
                cancel; the next call continues there.

        Raises:
            NothingFitsError: No checkpoint can fit, by the headers. Then nothing is downloaded.
            RemoteError: A file is missing, changed or damaged, or access is refused.
            StoreError: The budget of the cache or the disk is too small.
        """
        cache = Cache()
        self._prepare()
        key = _key(base_name, snapshot, local)
        plan = self.plans.get(key)
        if plan is None:
            self.plans[key] = plan = self._plan(cache, base_name, snapshot, on_progress, local)
            self._save()
        self._download(cache, plan.weights, on_progress)
        return plan

    def download(self) -> None:
        """Download all files, whether or not they fit each other, unless they are in the cache.

        Raises:
            RemoteError: A file is missing, changed or damaged, or access is refused.
            StoreError: The budget of the cache or the disk is too small.
        """
        cache = Cache()
        for path, file in self.files.items():
            if kind_of(path, file.size) == "beside":
                self._copy(cache, path)
        self._download(cache, [*filter(self._is_weights, self.files)], no_progress)

    def _download(self, cache: Cache, weights: Sequence[str], on_progress: Progress) -> None:
        files = [self.files[path] for path in weights]
        keep = {file.key for file in self.files.values()}
        for file in files:
            cache.touch(file)
        total = sum(file.size for file in files)
        absent = {file.key: file.size for file in files if not cache.has(file)}
        if absent:
            cache.make_room(sum(absent.values()) - _begun(cache, absent), keep)
        done = 0

        def on_bytes(nbytes: int) -> None:
            nonlocal done
            done += nbytes
            on_progress(min(done, total), total)

        for path, file in zip(weights, files, strict=True):
            self._link(path, cache.fetch(file, source_of(file.url), on_bytes, keep))

    def _prepare(self) -> None:
        """Resolve the URLs that are not resolved yet, and store their files."""
        if not self.files:
            self.files = self._resolve()
            self._save()

    def _missing(self, plan: Plan) -> list[str]:
        missing = [
            path
            for path in plan.weights
            if not (self.folder / path).is_file()
            or (self.folder / path).stat().st_size != self.files[path].size
        ]
        beside = [p for p, f in self.files.items() if kind_of(p, f.size) == "beside"]
        return missing + [path for path in beside if not (self.folder / path).is_file()]

    def _resolve(self) -> dict[str, RemoteFile]:
        return checked(self.urls, find_files(self.urls))

    def _plan(
        self,
        cache: Cache,
        base_name: str,
        snapshot: Snapshots,
        on_progress: Progress,
        local: Mapping[str, Checkpoint],
    ) -> Plan:
        """Read the headers, and decide which files to download."""
        with self._placeholders(cache, on_progress) as (folder, partial_only):
            runs = find_runs(folder)
            taken = take(runs, snapshot, base_name)
            opened: dict[str, Checkpoint] = {}
            findings = [*map(_distributed, self._parts())]
            unseen: dict[str, list[Path]] = {}
            for name, each in taken.items():
                try:
                    opened[name] = open_run(each.run, each.choice)
                except (CheckpointError, OSError) as error:
                    files = [*(each.choice.snapshot.model.files if each.choice else each.run.files)]
                    if partial_only.intersection(files):  # the whole file may be readable
                        unseen[name] = files
                    else:
                        findings.append(_unreadable(name, folder, error))
            every = {**local, **opened}
            findings += [f for f in header_findings(every, base_name) if f.ingredient not in local]
            wanted = [f for c in without_misfits(opened, findings).values() for f in c.files]
            wanted += [file for files in unseen.values() for file in files]
            inside = (path.relative_to(folder).as_posix() for path in wanted)
            weights = tuple(p for p in dict.fromkeys(inside) if self._is_weights(p))
            plan = Plan(weights, tuple(findings), snapshot_choices(taken))
        fitting = {n for n in (*opened, *unseen) if n != base_name}
        if not local and not fitting - {f.ingredient for f in findings if f.severity == "misfit"}:
            report = FitReport(tuple(findings))
            raise NothingFitsError(self.folder, report, "")
        return plan

    def _parts(self) -> list[PurePosixPath]:
        """Return the folders of distributed checkpoints, which are not downloaded."""
        parts = map(PurePosixPath, self.files)
        return [*dict.fromkeys(path.parent for path in parts if is_distributed(Path(path)))]

    def _is_weights(self, path: str) -> bool:
        return path in self.files and kind_of(path, self.files[path].size) == "weights"

    @contextmanager
    def _placeholders(
        self, cache: Cache, on_progress: Progress
    ) -> Iterator[tuple[Path, set[Path]]]:
        """Yield a folder with placeholders of the weights, and the placeholders that may not open.

        Small files are copied into the sweep's folder, and from there into this one.
        """
        parent = private_folder(self.folder.parent / ".headers")
        with tempfile.TemporaryDirectory(dir=parent) as name:
            folder = Path(name)
            partial_only: set[Path] = set()
            tasks: list[Callable[[], None]] = []
            for path, file in self.files.items():
                kind = kind_of(path, file.size)
                if not kind:
                    continue
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                if kind == "weights" and cache.has(file):
                    (folder / path).symlink_to(cache.path(file))
                elif kind == "beside":
                    tasks.append(partial(self._copy_beside, cache, path, folder))
                else:
                    tasks.append(partial(_header, file, folder / path, partial_only))
            _run(tasks, on_progress)
            yield folder, partial_only

    def _copy_beside(self, cache: Cache, path: str, placeholders: Path) -> None:
        self._copy(cache, path)
        shutil.copyfile(self.folder / path, placeholders / path)

    def _copy(self, cache: Cache, path: str) -> None:
        target, file = self.folder / path, self.files[path]
        if not target.is_file() or target.stat().st_size != file.size:
            source = cache.fetch(file, source_of(file.url))
            target.parent.mkdir(parents=True, exist_ok=True)
            with new_file(target, durable=False) as copied, source.open("rb") as original:
                shutil.copyfileobj(original, copied)

    def _link(self, path: str, cached: Path) -> None:
        """Link from the folder to a file in the cache, unless it is linked already."""
        link = self.folder / path
        depth = len(PurePosixPath(path).parts)
        target = Path(*[".."] * depth, cached.parent.name, cached.name)
        if link.is_symlink() and link.readlink() == target:
            return
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        with suppress(FileExistsError):  # another process has just linked it
            link.symlink_to(target)


def files_of(body: Mapping[str, Any]) -> dict[str, RemoteFile]:
    """Return files from the JSON of a manifest, by path."""
    return {str(path): RemoteFile.from_json(each) for path, each in body.items()}


def _by_entry(files: Mapping[str, RemoteFile]) -> dict[str, dict[str, RemoteFile]]:
    """Return files by the entry of the folder that they are in."""
    found: dict[str, dict[str, RemoteFile]] = {}
    for path, file in files.items():
        found.setdefault(path.partition("/")[0], {})[path] = file
    return found


def _begun(cache: Cache, keys: Mapping[str, int]) -> int:
    """Return the size of unfinished downloads of these files."""
    return sum(entry.nbytes for entry in cache.entries() if entry.key in keys)


def _header(file: RemoteFile, path: Path, partial_only: set[Path]) -> None:
    source = source_of(file.url)
    if not write_placeholder(path, file.size, partial(read_range, source, file)):
        partial_only.add(path)
    elif suffix_of(path) != ".safetensors":
        partial_only.add(path)  # if it does not open, the reason may be in the other bytes


def _run(tasks: Sequence[Callable[[], None]], on_progress: Progress) -> None:
    """Run tasks in a few threads; stop if one fails or `on_progress` raises."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            futures = [pool.submit(task) for task in tasks]
            for future in futures:
                on_progress(0, 1)
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _key(base_name: str, snapshot: Snapshots, local: Mapping[str, Checkpoint]) -> str:
    layouts = sorted(
        [name, *sorted([n, str(i.dtype), *i.shape] for n, i in checkpoint.tensors.items())]
        for name, checkpoint in local.items()
    )
    digest = [hashlib.sha256(json.dumps(layouts).encode()).hexdigest()] if layouts else []
    return json.dumps([base_name, snapshots_to_text(snapshot), *digest], ensure_ascii=False)


def _distributed(folder: PurePosixPath) -> Finding:
    return Finding("misfit", str(folder), "", *why_distributed(Path(folder)))


def _unreadable(name: str, folder: Path, error: CheckpointError | OSError) -> Finding:
    problem, way_out = str(error), ""
    if isinstance(error, CheckpointError):
        problem, way_out = error.problem, error.way_out
    problem = problem.replace(f"{folder}/", "")
    return Finding("misfit", name, "", problem, way_out or "Exclude or replace it.")


def _plan_from_json(body: Mapping[str, Any]) -> Plan:
    return Plan(
        tuple(body["weights"]),
        tuple(Finding(**each) for each in body["findings"]),
        tuple(
            SnapshotChoice(each["run"], each["tool"], tuple(each["names"]), tuple(each["taken"]))
            for each in body["snapshots"]
        ),
    )
