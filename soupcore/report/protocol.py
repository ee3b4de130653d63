"""The protocol, notes, ingredients, soups, fit report and limitations of a report."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from soupcore.calls import Context
from soupcore.connectivity.basins import CONNECTED
from soupcore.overview import Overview
from soupcore.recipes import Soup
from soupcore.report import html
from soupcore.report.html import Cell, Part
from soupcore.store.soups import annotations
from soupcore.stored_soups import StoredSoup, is_of_task
from soupcore.sweeps import FitReport, Sweep
from soupcore.tasks import TaskInfo
from soupcore.tasks.unit import UNKNOWN
from soupcore.version import VERSION

_DIGITS = 16  # of a digest
_OTHERS = 20  # names of files that are not checkpoints

_USES = {
    "train": "BatchNorm statistics only",
    "select": "choosing",
    "report": "reporting only",
    "shift": "reporting only",
}
_RULES = {">=": "accepts ties (≥)", ">": "rejects ties (>)"}


def protocol(known: Overview) -> str:
    """Return the section: splits, selection, rules, versions."""
    task = known.context.task
    rows = [
        [
            known.context.task.split_title(name),
            split.role,
            "one score" if len(split) == 1 and not task.has_examples else str(len(split)),
            _use(known.context, split.role),
            split.digest[:_DIGITS],
        ]
        for name, split in task.splits.items()
    ]
    heads = ["split", "role", "n", "used for", "SHA-256 of the data"]
    return html.table(heads, rows, left=len(heads)) + html.terms(_terms(known))


def ingredients(sweep: Sweep, stored: StoredSoup | None) -> str:
    """Return the section: coefficients in a soup, hyperparameters and digests."""
    columns, logged = sweep.columns, sweep.logged_columns
    coefficients = stored.soup.coefficient_texts if stored else {}
    heads = ["ingredient", *(["in the soup"] if stored else []), *columns]
    heads += [f"{name} (logged)" for name in logged]
    rows = []
    base = [sweep.base] if sweep.base else []
    for each in (*base, *sweep.ingredients.values()):
        values = [*map(each.hyperparameters.get, columns), *map(each.logged_metrics.get, logged)]
        row = [Cell(each.name, f"SHA-256 {each.digest[:_DIGITS]}")]
        row += [Cell(_share(stored, coefficients, each.name))] if stored else []
        rows.append([*row, *(Cell(_value(value)) for value in values)])
    body = html.table(heads, rows, left=len(heads))
    body += html.files(sweep.to_frame(), "ingredients")
    if stored is not None:
        body += html.note(f"The soup is {stored.label}; {UNKNOWN} = not in it.")
        body += "".join(html.note(f"Not merged: {each}.") for each in stored.soup.fixed)
        body += "".join(html.note(text) for text in stored.soup.notes)
    if logged:
        body += html.note("Logged metrics come from the training tool and were not measured here.")
    return body


def soups(stored: list[StoredSoup]) -> str:
    """Return the soups of a sweep without a task, and so without scores."""
    rows = [
        [
            each.label,
            ", ".join(
                f"{name} × {text}" if text else name
                for name, text in each.soup.coefficient_texts.items()
            ),
        ]
        for each in stored
    ]
    return html.table(["soup", "made of"], rows, left=2)


def notes(context: Context, stored: Sequence[StoredSoup]) -> str:
    """Return the section: the starred, tagged or annotated soups and ingredients; "" for none.

    Args:
        context: The sweep.
        stored: Its soups.
    """
    found = annotations(context.store, [each.digest for each in context.sweep.ingredients.values()])
    rows = [(soup.label, soup.annotation) for soup in stored]
    rows += [
        (name, found[each.digest])
        for name, each in context.sweep.ingredients.items()
        if each.digest in found
    ]
    lines: list[list[Part]] = [
        [f"{'★ ' if each.starred else ''}{name}", ", ".join(each.tags), each.note]
        for name, each in rows
        if each.note or each.tags or each.starred
    ]
    return html.table(["name", "tags", "note"], lines, left=3) if lines else ""


def fit(report: FitReport) -> str:
    """Return the section: which checkpoints were excluded, and all other findings."""
    excluded = f"Excluded: {', '.join(sorted(report.misfits))}." if report.misfits else ""
    body = html.paragraph(excluded or "All checkpoints are compatible.")
    if report.reference:
        body += html.note(f"All tensors were compared with {report.reference}.")
    if report.findings:
        rows: list[list[Part]] = [
            [each.severity, ", ".join(names), Cell(each.problem, each.tensor), each.way_out]
            for names, each in report.grouped
        ]
        heads = ["severity", "checkpoint", "problem", "how to fix"]
        body += html.table(heads, rows, left=len(heads))
        body += html.files(report.to_frame(), "fit")
    if report.ignored:
        body += html.note(f"Ignored files of trainers: {_some(report.ignored)}.")
    if report.others:
        body += html.note(f"Not checkpoints: {_some(report.others)}.")
    return body


def limitations(known: Overview) -> str:
    """Return the section, by fixed rules over the stored results."""
    return html.bullets(_limits(known))


def _use(context: Context, role: str) -> str:
    if role == "train" and context.evaluations.estimate is None:
        return "not used"
    return _USES[role]


def _terms(known: Overview) -> dict[str, str]:
    context, task = known.context, known.context.task
    metrics = [task.metric, *(m for m in task.metrics if m.name != task.metric.name)]
    primary, *others = [
        f"{m.name} ({'higher' if m.higher_is_better else 'lower'} is better)" for m in metrics
    ]
    found = {
        "Task": f"{task.name}, {context.task_spec}" if context.task_spec else task.name,
        "Task's identity": task.key[:_DIGITS],
        "Metric": primary + (f"; also measured: {', '.join(others)}" if others else ""),
        "Chosen on": f"{known.facts.validation} only: {_chosen(known)}",
        "Ties": _ties(known),
    }
    if intervals := _intervals(task):
        found["Intervals"] = intervals
    if len(known.pairs):
        found["Barriers"] = _barriers(known)
    if task.has_batchnorm:
        found["BatchNorm"] = _batchnorm(context)
    found["Averages"] = "float32 weights are summed in float64, half types in float32"
    found |= _versions([stored.soup for stored in known.soups])
    return found


def _chosen(known: Overview) -> str:
    texts = []
    if known.best is not None:
        texts.append(f"the best ingredient, {known.best}, of {len(known.evaluated)} evaluated")
    if known.headline is not None:
        text = f"the soup of the verdict, {known.headline.label}, of {len(known.soups)} built"
        if known.passed_over is not None:
            text += (
                f" ({known.passed_over.label} scores higher there, where its coefficients were "
                "fitted, but not distinguishably)"
            )
        texts.append(text)
    return ", and ".join([*texts, "all that recipes choose"])


def _ties(known: Overview) -> str:
    texts = ["of equal scores the first counts, in the order of the sweep or of building"]
    rules = {
        _RULES[str(stored.soup.parameters["accept"])]: None
        for stored in known.soups
        if stored.soup.parameters.get("accept") in _RULES
    }
    if rules:
        texts.append(f"greedy {' or '.join(rules)}")
    return "; ".join(texts)


def _intervals(task: TaskInfo[Any]) -> str:
    if not task.has_examples:
        return ""
    if not task.metric.is_mean:
        return "95 %, from 200 bootstrap resamples of the examples, the same for all networks"
    if task.is_weighted:
        return (
            "95 %. Weighted means: by linearisation; weighted shares: Wilson's interval for the "
            "effective number of examples. Differences: paired over examples, by linearisation"
        )
    return (
        "95 %. Scores: Wilson's interval if all examples score 0 or 1, else Student's t. "
        "Differences: paired over examples, by Agresti and Min or Student's t; the test is "
        "McNemar's, exact"
    )


def _barriers(known: Overview) -> str:
    screened = known.facts.basins.screened if known.facts.basins else None
    where = f"{screened} examples of " if screened else ""
    return (
        f"largest rise in {known.context.task.loss_name} above the line between its ends, on "
        f"{where}{known.facts.validation}; runs share a basin if a chain of pairs with barriers "
        f"up to {CONNECTED:g} connects them"
    )


def _batchnorm(context: Context) -> str:
    estimate = context.evaluations.estimate
    if estimate is None:
        return "statistics averaged like the weights"
    return f"statistics re-estimated on {estimate.examples} examples of {estimate.split}"


def _versions(soups: list[Soup]) -> dict[str, str]:
    """Return the versions that wrote the report and, as recorded, those that built the soups."""
    found = {"Report by": f"Stockpot {VERSION}"}
    built = {
        ", ".join(f"{what} {version}" for what, version in soup.to_json()["versions"].items())
        for soup in soups
    }
    if built:
        found["Soups by"] = "; ".join(sorted(built))
    return found


def _share(stored: StoredSoup | None, coefficients: Mapping[str, str], name: str) -> str:
    if stored is None or name not in coefficients:
        return UNKNOWN
    if name in stored.soup.donors:
        return "source of the tensors that are not merged"
    return coefficients[name] or ("base" if name == stored.soup.base else "varies by tensor")


def _value(value: object) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _some(names: tuple[str, ...]) -> str:
    more = len(names) - _OTHERS
    return ", ".join(names[:_OTHERS]) + (f" and {more} more" if more > 0 else "")


def _limits(known: Overview) -> Iterator[str]:
    task, facts = known.context.task, known.facts
    if task.has_examples:
        yield (
            "Intervals reflect the sampling of examples. They do not include variation between "
            "training runs, and they are not corrected for the number of soups and splits."
        )
    else:
        yield (
            "The task gives one score for each split, so there are no intervals, and a difference "
            "may be chance."
        )
    yield (
        f"Scores on {facts.validation} are optimistic, because soups and ingredients are ranked "
        f"there: {_count(len(known.soups), 'soup')} and "
        f"{_count(len(known.evaluated), 'ingredient')}."
    )
    if known.report:
        yield (
            f"The soup that was chosen on validation is compared on {facts.test}. If you choose "
            "another soup by its test score, that score is optimistic too."
        )
    else:
        yield "There is no test split. No score here is evidence that a soup is better."
    if len(known.evaluated) < len(known.names):
        yield (
            f"Only {len(known.evaluated)} of {len(known.names)} ingredients were evaluated on "
            "validation."
        )
    yield from _limits_of_basins(known)
    if task.undefined == "exclude":
        yield (
            "Each score is the mean over the examples where it is defined, so scores may be over "
            "different examples."
        )
    if len(task.splits_with_role("shift")) > 1:
        yield "Means over shifted splits weight each split equally, whatever its size."
    if task.why_no_ensemble is not None:
        yield f"No ensembles. {task.why_no_ensemble}"
    if known.sweep.fit.misfits:
        excluded = _count(len(known.sweep.fit.misfits), "checkpoint")
        yield f"Excluded: {excluded}; see the fit report."
    if others := _not_shown(known):
        yield (
            f"Not shown: {_count(others, 'stored soup')} of this sweep and task with other "
            "BatchNorm statistics, or that cannot be rebuilt from the checkpoints."
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _limits_of_basins(known: Overview) -> Iterator[str]:
    basins = known.facts.basins
    if basins is None:
        if known.context.task.has_examples and len(known.names) > 1:
            yield "No lines between ingredients were evaluated, so basins are unknown."
        return
    if basins.known < basins.pairs:
        yield (
            f"{basins.known} of {basins.pairs} pairs of ingredients were evaluated; basins may "
            "still merge."
        )
    if basins.screened:
        yield f"Barriers were screened on {basins.screened} examples and are preliminary."
    yield "Barriers come from a finite number of points; narrow peaks between them can be missed."


def _not_shown(known: Overview) -> int:
    context = known.context
    stored = context.soups.rows(context.folder)
    return sum(is_of_task(row.body, context.task_spec) for row in stored) - len(known.soups)
