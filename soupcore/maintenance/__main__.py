"""Maintain a workspace: check and repair it, show and reduce its size, back up and move results."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from soupcore import maintenance
from soupcore.display import counted, in_words
from soupcore.errors import StockpotError
from soupcore.remote import Cache
from soupcore.store import Store
from soupcore.workspace import workspace_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0 for success, 1 if there are problems."""
    parsed = _parser().parse_args(arguments)
    folder = (parsed.workspace or workspace_folder()).resolve()
    try:
        status: int = parsed.command(folder, parsed)
    except StockpotError as error:
        print(error, file=sys.stderr)
        return 1
    return status


def _check(folder: Path, parsed: argparse.Namespace) -> int:
    problems = maintenance.check(folder, parsed.database, on_files=_progress)
    for problem in problems:
        print(problem)
    if problems:
        count = counted(len(problems), "problem")
        print(f"{count}. Run `repair` to fix them.")
    else:
        print("No problems found.")
    return bool(problems)


def _repair(folder: Path, parsed: argparse.Namespace) -> int:
    done = maintenance.repair(folder, parsed.database)
    print("\n".join(done) or "Nothing to repair.")
    return 0


def _size(folder: Path, parsed: argparse.Namespace) -> int:
    sizes = maintenance.sizes(folder)
    for kind, size in sizes.items():
        print(f"{in_words(size.nbytes):>10}  {size.files:>7} files  {kind}")
    print(f"{in_words(sum(size.nbytes for size in sizes.values())):>10}  in {folder}")
    return 0


def _cache(folder: Path, parsed: argparse.Namespace) -> int:
    cache = Cache(folder)
    if parsed.clear:
        print(f"Removed {in_words(cache.clear())}.")
        return 0
    entries = cache.entries()
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        state = "" if entry.is_complete else " (unfinished)"
        print(f"{in_words(entry.nbytes):>10}  used {used}  {entry.url or entry.key}{state}")
    total = in_words(sum(entry.nbytes for entry in entries))
    print(f"{total} of {in_words(cache.budget)} in {cache.folder}")
    return 0


def _prune(folder: Path, parsed: argparse.Namespace) -> int:
    store = Store(folder, parsed.database, read_only=True)  # the disk may be full
    find = maintenance.unused if parsed.dry_run else maintenance.prune
    leftovers = find(store, parsed.kind or tuple(maintenance.PRUNED), parsed.days)
    for leftover in leftovers:
        print(f"{in_words(leftover.nbytes):>10}  {leftover}")
    total = in_words(sum(leftover.nbytes for leftover in leftovers))
    print(f"{'Would remove' if parsed.dry_run else 'Removed'} {total}.")
    store.close()
    return 0


def _backup(folder: Path, parsed: argparse.Namespace) -> int:
    store = Store(folder, parsed.database)
    copied = maintenance.backup(store, parsed.target)
    print(
        f"{parsed.target} has {copied.rows} rows and {copied.files} array files; "
        f"{in_words(copied.nbytes)} of these are new."
    )
    store.close()
    return 0


def _export(folder: Path, parsed: argparse.Namespace) -> int:
    store = Store(folder, parsed.database)
    copied = maintenance.export_results(store, parsed.target)
    print(f"Wrote {copied.rows} rows and {in_words(copied.nbytes)} of arrays to {parsed.target}.")
    store.close()
    return 0


def _import(folder: Path, parsed: argparse.Namespace) -> int:
    store = Store(folder, parsed.database)
    moved = dict(pair.split("=", 1) for pair in parsed.moved)
    copied = maintenance.import_results(store, parsed.source, moved)
    print(f"Added {copied.rows} rows and {in_words(copied.nbytes)} of arrays.")
    store.close()
    return 0


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{done} of {total} files", end=end, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m soupcore.maintenance", description=__doc__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--workspace", type=Path, help="the folder (default: $STOCKPOT_WORKSPACE or ~/.stockpot)"
    )
    common.add_argument(
        "--database",
        default=os.environ.get("STOCKPOT_DATABASE"),
        help="URL of the database (default: $STOCKPOT_DATABASE, which keeps the password out of "
        "the process list, or the SQLite database in the folder)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: object, text: str) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=text, description=text, parents=[common])
        subparser.set_defaults(command=command)
        return subparser

    add("check", _check, "Verify all stored data against checksums.")
    add("repair", _repair, "Repair the problems found by check. Stop all users of the workspace.")
    add("size", _size, "Show the disk usage of the workspace by kind of data.")
    cache = add("cache", _cache, "List the remote checkpoints in the cache.")
    cache.add_argument("--clear", action="store_true", help="remove them instead")
    prune = add("prune", _prune, "Remove unused data.")
    prune.add_argument(
        "kind",
        nargs="*",
        choices=[*maintenance.PRUNED, []],  # argparse checks the empty default too
        help="kinds of data (default: all)",
    )
    prune.add_argument("--dry-run", action="store_true", help="list the data without removing it")
    prune.add_argument(
        "--days",
        type=float,
        default=30,
        help="days since decoded data, uploads and remote files were last used, or jobs ended "
        "(default: 30)",
    )
    backup = add("backup", _backup, "Copy all results except weights. The workspace may be in use.")
    backup.add_argument("target", type=Path, help="a folder, which can be reused for later backups")
    export = add("export", _export, "Write all results except weights to an archive.")
    export.add_argument("target", type=Path, help="path of the archive, a .zip")
    take_in = add("import", _import, "Add the results of an archive to the workspace.")
    take_in.add_argument("source", type=Path, help="the archive")
    take_in.add_argument(
        "--moved",
        action="append",
        default=[],
        metavar="THERE=HERE",
        help="folder of a sweep on the other machine and on this one, so that its soups are listed",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
