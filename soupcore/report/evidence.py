"""The evidence for a soup: paired differences to the best ingredient, and selection bias."""

import math
from collections.abc import Iterator
from dataclasses import replace

from soupcore.calls import (
    BestIngredientBias,
    Context,
    Optimism,
    ParameterCurve,
    SearchOptimism,
)
from soupcore.errors import StockpotError
from soupcore.evaluation import compare
from soupcore.overview import Overview
from soupcore.recipes import RECIPES, Number, Step
from soupcore.report import html
from soupcore.report.html import Cell, Part
from soupcore.stored_soups import StoredSoup
from soupcore.tasks import Labels
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
    body += _against(known, stored, best)
    if accepted := [step for step in stored.soup.trace[1:] if step.accepted]:
        body += html.subtitle("Gain per accepted ingredient")
        body += _acceptances(stored.soup.chosen_by(known.context.task).labels, accepted)
    body += html.subtitle("Selection bias")
    bias = _bias(known, stored)
    return body + (html.bullets(bias) if bias else html.paragraph("Not available yet."))


def _against(known: Overview, stored: StoredSoup, best: str) -> str:
    task, unit = known.context.task, known.context.task.score_unit
    rows: list[list[Part]] = []
    missing: list[str] = []
    without: dict[str, str] = {}
    counted = False
    for split in task.reported:
        soup, alone = known.of_soups[stored.soup.id][split], known.runs[best][split]
        if soup is None or alone is None:
            missing.append(known.context.task.split_title(split))
            continue
        found = compare(task, soup, alone)
        if found.interval is None:
            without[known.context.task.split_title(split)] = found.why_no_interval
        changes = [UNKNOWN] * 3
        if found.gained is not None and found.lost is not None:
            counted = True
            p = UNKNOWN if found.p_value is None else f"{found.p_value:.3g}"
            changes = [str(found.gained), str(found.lost), p]
        rows.append(
            [
                Cell(
                    known.context.task.split_title(split), f"n = {found.n}" if found.n > 1 else ""
                ),
                unit.number(soup.score),
                unit.number(alone.score),
                unit.difference(found.difference),
                unit.difference_interval(found.interval),
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
    for why in dict.fromkeys(without.values()):
        splits = ", ".join(split for split in without if without[split] == why)
        body += html.note(f"No interval on {splits}: {why}")
    if missing:
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
    found = [*_gains(known, stored), *_of_best(known), *_of_greedy(known, stored)]
    found += _of_search(known, stored)
    found += _of_parameters(known, stored)
    return found


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
    unit, names = known.context.task.score_unit, tuple(known.evaluated)
    if len(names) < 2:
        return
    found = BestIngredientBias(names).result(known.context)
    if found is None:
        yield (
            "Not estimated for the choice of the best ingredient. Compute it on the page of a soup."
        )
    elif "why_none" in found:
        yield found["why_none"]
    else:
        promised, delivered = found["promised"], found["delivered"]
        yield (
            f"Picking the best of {len(names)} ingredients inflates its validation score by "
            f"{unit.gap(promised - delivered)}: {unit.text(promised)} on the half of the examples "
            f"used to pick, {unit.text(delivered)} on the other half (mean of 200 random splits)."
        )


def _of_greedy(known: Overview, stored: StoredSoup) -> Iterator[str]:
    """Return the cross-fitted estimate for greedy, which covers its default order only."""
    soup = stored.soup
    options, unit = soup.parameters, soup.chosen_by(known.context.task).score_unit
    if soup.recipe != "greedy" or options.get("order") == "random" or options.get("backward"):
        return
    tried = {step.candidate for step in soup.trace}
    offered = {name: key for name, key in stored.offered.items() if name in tried}
    try:
        names = (*known.sweep.names(tried - offered.keys()), *offered)
        context = known.context.including(known.context.soups.by_name(offered))
    except StockpotError as error:  # a rejected candidate was deleted
        yield f"Not available for greedy: {error}"
        return
    if len(names) < 2:
        return
    parameters = {"accept": options["accept"], "metric": options.get("metric", "score")}
    context = _with_rule(context, stored)
    task = soup.chosen_by(known.context.task)
    context = replace(context, source=context.evaluations.with_primary(task.primary))
    found = Optimism(names, parameters).result(context)
    if found is None:
        yield "Not estimated for greedy. Compute it on the page of the soup."
        return
    yield (
        "Cross-fitted greedy (20 half-splits of validation): gain over the best ingredient "
        f"{unit.difference_text(found['gain_promised'])} on the half used to choose, "
        f"{unit.difference_text(found['gain_delivered'])} on the other half; its score is inflated "
        f"by {unit.gap(found['promised'] - found['delivered'])}."
    )


def _of_search(known: Overview, stored: StoredSoup) -> Iterator[str]:
    """Return the cross-fitted estimate for coefficients that CMA-ES searched."""
    soup, task = stored.soup, stored.soup.chosen_by(known.context.task)
    call = SearchOptimism.of_soup(soup, soup.ingredients)
    if call is None or not task.has_examples:
        return
    context = _with_rule(known.context.including(stored.soups), stored)
    context = replace(context, source=context.evaluations.with_primary(task.primary))
    found, unit = call.result(context), task.score_unit
    if found is None:
        yield "Not estimated for the coefficient search. Compute it on the page of the soup."
        return
    yield (
        "Cross-fitted CMA-ES (two searches on half of validation): gain over the best ingredient "
        f"{unit.difference_text(found['gain_promised'])} on the half used to search, "
        f"{unit.difference_text(found['gain_delivered'])} on the other half; its score is inflated "
        f"by {unit.gap(found['promised'] - found['delivered'])}."
    )


def _of_parameters(known: Overview, stored: StoredSoup) -> Iterator[str]:
    """Return the estimate for each parameter that was picked from a curve with this soup."""
    soup, unit = stored.soup, known.context.task.score_unit
    recipe = RECIPES.get(soup.recipe)
    context = _with_rule(known.context.including(stored.soups), stored)
    for number in recipe.parameters if recipe else ():
        if not isinstance(number, Number) or not number.curve:
            continue
        drawn = ParameterCurve.of_soup(soup, number, soup.ingredients).result(context)
        if drawn is None or all(point["soup"] != soup.id for point in drawn["points"]):
            continue
        if found := drawn.get("cross_fit"):
            inflated = found["promised"] - found["delivered"]
            if math.isfinite(inflated):
                yield (
                    f"Picking the best of {len(drawn['points'])} values of {number.symbol} "
                    f"inflates its validation score by {unit.gap(inflated)}: "
                    f"{unit.text(found['promised'])} on the half used to pick, "
                    f"{unit.text(found['delivered'])} on the other half."
                )


def _with_rule(context: Context, stored: StoredSoup) -> Context:
    rule = stored.soup.rule
    return replace(context, sweep=context.sweep.with_tensors(rule.take, rule.rest))
