"""Choose the snapshots of each run for a sweep."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from soupcore.checkpoints.run_folders import Choice, Run
from soupcore.errors import SweepError
from soupcore.sweeps.findings import SnapshotChoice

Snapshots = str | Mapping[str, str]
"""The snapshot of every run, or `{run: snapshot}`, with `"*"` for all other runs."""

EVERY = "every"
OTHERS = "*"
_BY_USER = "requested"


@dataclass(frozen=True)
class Taken:
    """A snapshot that becomes an ingredient.

    Attributes:
        name: Name of its run.
        run: The run.
        choice: The snapshot; None if it is unclear which one represents the run.
        missing: The requested snapshot, if the run lacks it.
        is_required: Whether the user named this snapshot for this run; then no other may replace
            it.
    """

    name: str
    run: Run
    choice: Choice | None
    missing: str = ""
    is_required: bool = False


def take(runs: Mapping[str, Run], wanted: Snapshots, base_name: str = "") -> dict[str, Taken]:
    """Return the snapshots to open, by the names of the ingredients.

    Args:
        runs: The runs of the sweep.
        wanted: `""` for the rule of each tool; `best`, `last`, `final`; `epoch 3`, `step 500` or
            another name of a snapshot; `every` for an ingredient for each, named `run/epoch 3`; or
            `{run: one of these, or a file}`.
        base_name: Name of the base, which follows the rule of its tool unless it is named.

    Raises:
        SweepError: A run that is named does not exist.
    """
    each = {OTHERS: wanted} if isinstance(wanted, str) else wanted
    if unknown := each.keys() - runs.keys() - {OTHERS}:
        raise SweepError(f"There is no checkpoint {min(unknown)!r}, which `snapshot` names.")
    taken: dict[str, Taken] = {}
    for name, run in runs.items():
        asked = each.get(name, "" if name == base_name else each.get(OTHERS, ""))
        if asked == EVERY and len(run.snapshots) > 1:
            taken |= {
                f"{name}/{snapshot.name}": Taken(name, run, Choice(snapshot, ""))
                for snapshot in run.snapshots
            }
            continue
        choice = run.named(asked) if asked and asked != EVERY else run.chosen
        if choice is not None:
            is_name = asked not in ("", EVERY, "best", "last")
            taken[name] = Taken(name, run, Choice(choice.snapshot, _BY_USER) if is_name else choice)
        elif name in each:
            taken[name] = Taken(name, run, None, asked, is_required=True)
        else:
            missing = asked if len(run.snapshots) > 1 else ""
            taken[name] = Taken(name, run, run.chosen, missing)
    return taken


def snapshot_choices(taken: Mapping[str, Taken]) -> tuple[SnapshotChoice, ...]:
    """Return the runs that have several snapshots, with the chosen ones."""
    opened: dict[str, list[str]] = {}
    for each in taken.values():
        names = opened.setdefault(each.name, [])
        names += [each.choice.snapshot.name] if each.choice else []
    runs = {each.name: each.run for each in taken.values()}
    return tuple(
        SnapshotChoice(
            name,
            run.tool.name if run.tool else "",
            tuple(snapshot.name for snapshot in run.snapshots),
            tuple(opened[name]),
        )
        for name, run in runs.items()
        if len(run.snapshots) > 1
    )


def all_of(runs: Mapping[str, Run]) -> list[Taken]:
    """Return all snapshots of runs in all forms, those that represent their runs first."""
    choices = [(name, run, run.chosen) for name, run in runs.items()]
    for name, run in runs.items():
        choices += [(name, run, Choice(snapshot, "")) for snapshot in run.snapshots]
        forms = (file for snapshot in run.snapshots for file, _ in snapshot.model.left_out)
        choices += [(name, run, run.named(file)) for file in forms]
    return [Taken(*choice) for choice in choices]


def snapshots_from_text(text: str) -> Snapshots:
    """Return a choice of snapshots from text: one for all runs, or a JSON object."""
    if not text.startswith("{"):
        return text
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    return {run: name for run, name in found.items() if isinstance(name, str)}


def snapshots_to_text(wanted: Snapshots) -> str:
    """Return a choice of snapshots as text, for `snapshots_from_text`."""
    return wanted if isinstance(wanted, str) else json.dumps(dict(wanted), ensure_ascii=False)
