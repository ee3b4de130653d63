"""The evidence for a soup: paired differences to the best ingredient, and selection bias."""

import math
from collections.abc import Iterator

from soupcore.calls import Result
from soupcore.errors import StockpotError
from soupcore.evidence import (
    against_best,
    best_ingredient_bias,
    curves_with,
    greedy_bias,
    search_bias,
    why_no_intervals,
)
from soupcore.overview import Overview
from soupcore.recipes import Step
from soupcore.report import html
from soupcore.report.html import Cell, Part
from soupcore.stored_soups import StoredSoup
from soupcore.tasks import Labels, Unit
from soupcore.tasks.unit import UNKNOWN


def evidence(known: Overview, stored: StoredSoup) -> str:
    """Return the section."""
    best = known.best
    if best is None:
        return html.paragraph(
            "Nothing to compare with: no ingredient has a defined score on "
            f"{known.facts.validation}."
        )
    body = ""
    if known.headline is not None and known.headline.soup.id != stored.soup.id:
        body += html.paragraph(
            f"About {stored.label}. The verdict is about {known.headline.label}."
        )
    body += html.subtitle(f"{stored.label} vs. best single ingredient ({best})")
    body += _against(known, stored)
    if accepted := [step for step in stored.soup.trace[1:] if step.accepted]:
        body += html.subtitle("Gain per accepted ingredient")
        body += _acceptances(stored.soup.chosen_by(known.context.task).labels, accepted)
    body += html.subtitle("Selection bias")
    bias = _bias(known, stored)
    return body + (html.bullets(bias) if bias else html.paragraph("Not available yet."))


def _against(known: Overview, stored: StoredSoup) -> str:
    task, unit = known.context.task, known.context.task.score_unit
    found = against_best(known, stored)
    counted = any(c is not None and c.difference.gained is not None for c in found.values())
    rows: list[list[Part]] = []
    for split, compared in found.items():
        if compared is None:
            continue
        difference = compared.difference
        changes = [UNKNOWN] * 3
        if difference.gained is not None and difference.lost is not None:
            p = UNKNOWN if difference.p_value is None else f"{difference.p_value:.3g}"
            changes = [str(difference.gained), str(difference.lost), p]
        n = f"n = {difference.n}" if difference.n > 1 else ""
        rows.append(
            [
                Cell(task.split_title(split), n),
                unit.number(compared.soup.score),
                unit.number(compared.best.score),
                unit.difference(difference.difference),
                unit.difference_interval(difference.interval),
                *changes,
            ]
        )
    body = ""
    if rows:
        heads = [
            "split",
            unit.label("soup"),
            unit.label("best ingredient"),
            unit.difference_label("Δ"),
            "95 % interval of Δ",
            *(("newly correct", "newly wrong", "p (McNemar)") if counted else ()),
        ]
        body = html.table(heads, [row[: len(heads)] for row in rows])
        body += html.note(_paired_note(known, counted=counted))
    for why, splits in why_no_intervals(found).items():
        body += html.note(f"No interval on {', '.join(map(task.split_title, splits))}: {why}")
    if missing := [task.split_title(split) for split, each in found.items() if each is None]:
        body += html.note(f"Not evaluated with both: {', '.join(missing)}.")
    return body


def _paired_note(known: Overview, *, counted: bool) -> str:
    task = known.context.task
    texts = [f"Δ = {task.score_name} of the soup minus that of {known.best}."]
    if task.has_examples:
        texts.append("Both are compared on the same examples.")
    if not task.metric.higher_is_better:
        texts.append("Lower is better, so a negative Δ is a gain.")
    if counted:
        texts.append("Newly correct and newly wrong count examples whose correctness flipped.")
    texts.append(
        f"Scores on {known.facts.validation} are optimistic, since soups and ingredients are "
        "chosen there. Judge by the other splits."
    )
    return " ".join(texts)


def _acceptances(labels: Labels, steps: list[Step]) -> str:
    unit = labels.score_unit
    rows = [
        [
            f"{'+' if step.action == 'add' else '−'} {step.candidate}",
            unit.number(step.score),
            unit.difference_interval(step.interval),
        ]
        for step in steps
    ]
    heads = [
        "step",
        unit.label(f"validation {labels.score_name} after"),
        f"{unit.difference_label('Δ')}, 95 % interval",
    ]
    return html.table(heads, rows) + html.note(
        "For information only. Individual steps are rarely significant, and dropping the "
        "non-significant ones discards most of the soup's gain."
    )


def _bias(known: Overview, stored: StoredSoup) -> list[str]:
    return [
        *_gains(known, stored),
        *_of_best(known),
        *_of_greedy(known, stored),
        *_of_search(known, stored),
        *_of_parameters(known, stored),
    ]


def _gains(known: Overview, stored: StoredSoup) -> Iterator[str]:
    """Compare the gain on the select split, which is optimistic, with that on the report split."""
    unit = known.context.task.score_unit
    on_select = known.gain(stored.soup.id, known.context.task.select)
    on_report = known.gain(stored.soup.id, known.report) if known.report else None
    if on_select is not None and on_report is not None:
        yield (
            f"Gain over {known.best}: {unit.difference_text(on_select.difference)} on "
            f"{known.facts.validation}, {unit.difference_text(on_report.difference)} on "
            f"{known.facts.test}."
        )


def _of_best(known: Overview) -> Iterator[str]:
    unit, call = known.context.task.score_unit, best_ingredient_bias(known)
    if call is None:
        return
    found = call.result(known.context)
    if found is None:
        yield (
            "Not estimated for the choice of the best ingredient. Compute it on the page of a soup."
        )
    elif "why_none" in found:
        yield found["why_none"]
    else:
        used, other = found["promised"], found["delivered"]
        yield (
            f"Picking the best of {len(call.names)} ingredients inflates its validation score by "
            f"{unit.gap(used - other)}: {unit.text(used)} on the half of the examples "
            f"used to pick, {unit.text(other)} on the other half (mean of 200 random splits)."
        )


def _of_greedy(known: Overview, stored: StoredSoup) -> Iterator[str]:
    try:
        estimate = greedy_bias(known.context, stored)
    except StockpotError as error:  # a rejected candidate was deleted
        yield f"Not available for greedy: {error}"
        return
    if estimate is None:
        return
    seen, call = estimate
    found = call.result(seen)
    if found is None:
        yield "Not estimated for greedy. Compute it on the page of the soup."
        return
    how = "Cross-fitted greedy (20 half-splits of validation)"
    yield _cross_fit(how, "choose", found, seen.task.score_unit)


def _of_search(known: Overview, stored: StoredSoup) -> Iterator[str]:
    estimate = search_bias(known.context, stored)
    if estimate is None:
        return
    seen, call = estimate
    found = call.result(seen)
    if found is None:
        yield "Not estimated for the coefficient search. Compute it on the page of the soup."
        return
    how = "Cross-fitted CMA-ES (two searches on half of validation)"
    yield _cross_fit(how, "search", found, seen.task.score_unit)


def _cross_fit(how: str, use: str, found: Result, unit: Unit) -> str:
    return (
        f"{how}: gain over the best ingredient {unit.difference_text(found['gain_promised'])} on "
        f"the half used to {use}, {unit.difference_text(found['gain_delivered'])} on the other "
        f"half; its score is inflated by {unit.gap(found['promised'] - found['delivered'])}."
    )


def _of_parameters(known: Overview, stored: StoredSoup) -> Iterator[str]:
    """Describe the estimate for each parameter that was picked from a curve with this soup."""
    unit = known.context.task.score_unit
    for number, drawn in curves_with(known.context, stored):
        if found := drawn.get("cross_fit"):
            inflated = found["promised"] - found["delivered"]
            if math.isfinite(inflated):
                yield (
                    f"Picking the best of {len(drawn['points'])} values of {number.symbol} "
                    f"inflates its validation score by {unit.gap(inflated)}: "
                    f"{unit.text(found['promised'])} on the half used to pick, "
                    f"{unit.text(found['delivered'])} on the other half."
                )
