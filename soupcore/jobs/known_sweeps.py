"""The list of a workspace's sweeps with their verdicts, from stored rows alone.

A verdict needs all evaluations of a sweep, so it is stored after each change (`remember`).
`known_sweeps` reads these rows, jobs and soups. It opens no folder and computes nothing.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import func, select

from soupcore.analysis.verdict import Outcome
from soupcore.calls import OpenSweep
from soupcore.jobs.job import Job, State
from soupcore.overview import Overview
from soupcore.store import Store
from soupcore.store.tables import ResultRow, SoupRow

_KIND = "verdict"


@dataclass(frozen=True)
class KnownVerdict:
    """The last stored verdict on a sweep by a task.

    Attributes:
        folder: Folder of the sweep.
        task: The task, such as `file.py:attribute`.
        ingredients: Number of ingredients.
        best: The best run on the select split; "" if none was evaluated.
        soup: Name of the soup of the verdict; "" if there is none.
        split: The split on which the two are compared: report, or select without one.
        gain: Difference of their scores, written with its unit; "" if it is unknown.
        interval: Its 95 % interval, written; "" if there is none.
        n: Number of examples of the split.
        metric: Name of the primary metric.
        outcome: Outcome of the verdict.
        sentence: Its first sentence.
    """

    folder: str
    task: str
    ingredients: int
    best: str
    soup: str
    split: str
    gain: str
    interval: str
    n: int
    metric: str
    outcome: Outcome
    sentence: str

    @property
    def key(self) -> str:
        """The key of its row: 64 hex digits."""
        return hashlib.sha256(json.dumps([_KIND, self.folder, self.task]).encode()).hexdigest()


@dataclass(frozen=True)
class KnownSweep:
    """A sweep of the workspace, with a task if there is a verdict by it.

    Attributes:
        folder: Folder of the sweep, which may no longer exist.
        changed: Time of the last change, in seconds since 1970.
        ingredients: Number of ingredients; None if unknown.
        verdict: The verdict; None if none is stored.
    """

    folder: str
    changed: float
    ingredients: int | None
    verdict: KnownVerdict | None = None


def verdict_of(known: Overview) -> KnownVerdict:
    """Return the verdict in the form for the list."""
    facts, stored = known.facts, known.headline
    gain = facts.soup and (facts.soup.on_report or facts.soup.on_select)
    unit = facts.metric.written
    return KnownVerdict(
        folder=known.context.folder,
        task=known.context.task_spec,
        ingredients=facts.runs,
        best=facts.best or "",
        soup=stored.label if stored is not None else "",
        split=gain.split if gain else facts.report or facts.select,
        gain=unit.difference_text(gain.difference) if gain else "",
        interval=unit.difference_interval(gain.interval) if gain and gain.interval else "",
        n=gain.n if gain else 0,
        metric=facts.metric.name,
        outcome=known.verdict.outcome,
        sentence=known.verdict.sentences[0],
    )


def remember(known: Overview) -> None:
    """Store the verdict on a sweep for `known_sweeps`, if it differs from the stored one."""
    store, found = known.context.store, verdict_of(known)
    row = store.result(found.key)
    if row is None or row.body != asdict(found):
        store.add_result(found.key, _KIND, asdict(found))


def known_sweeps(store: Store) -> list[KnownSweep]:
    """Return the sweeps with a verdict, jobs or soups in a store, most recently changed first.

    A sweep with verdicts by several tasks is in the list once for each.
    """
    verdicts, times = _verdicts(store), _times(store)
    counts = _counts(store)
    found = []
    for row in verdicts:
        verdict = KnownVerdict(**row.body)
        same = (verdict.folder, verdict.task)
        changed = max(row.created, times.get(same, 0.0))
        found.append(KnownSweep(verdict.folder, changed, verdict.ingredients, verdict))
    with_verdict = {each.folder for each in found}
    for folder in sorted({folder for folder, _ in times} - with_verdict):
        changed = max(time for (each, _), time in times.items() if each == folder)
        found.append(KnownSweep(folder, changed, counts.get(folder)))
    return sorted(found, key=lambda each: (-each.changed, each.folder))


def _verdicts(store: Store) -> list[ResultRow]:
    """Return the rows of the verdicts, without those of other versions with other fields.

    They are stored again when their sweep is opened.
    """
    with store.session() as session:
        rows = session.scalars(select(ResultRow).where(ResultRow.kind == _KIND)).all()
    names = {field.name for field in fields(KnownVerdict)}
    return [row for row in rows if row.body.keys() == names]


def _times(store: Store) -> dict[tuple[str, str], float]:
    """Return the times of the last changes of jobs and soups, by folder and task ("" for none)."""
    folder, task = Job.request["sweep"].as_string(), func.coalesce(Job.task, "")
    jobs = select(folder, task, func.max(func.coalesce(Job.finished, Job.created)))
    its_task = func.coalesce(SoupRow.body["task"].as_string(), "")
    soups = select(SoupRow.sweep, its_task, func.max(SoupRow.created))
    with store.session() as session:
        rows: Iterable[Any] = [
            *session.execute(jobs.where(folder.is_not(None)).group_by(folder, task)),
            *session.execute(soups.group_by(SoupRow.sweep, its_task)),
        ]
    found: dict[tuple[str, str], float] = {}
    for name, spec, changed in rows:
        found[name, spec] = max(changed, found.get((name, spec), 0.0))
    return found


def _counts(store: Store) -> dict[str, int]:
    """Return the number of ingredients at the last reading of each folder."""
    read = (
        select(Job.request, Job.result)
        .where(Job.kind == OpenSweep.kind, Job.state == State.DONE)
        .order_by(Job.finished)
    )
    with store.session() as session:
        rows = session.execute(read).all()
    return {
        OpenSweep.from_request(request).folder: result["ingredients"]
        for request, result in rows
        if result and "ingredients" in result
    }
