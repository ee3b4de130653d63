"""The verdict on a sweep, in sentences, by fixed rules over stored results.

The soup of the verdict is the best on the select split, unless its coefficients were fitted to that
split and another soup is not distinguishable from it there (see
`soupcore.overview.choose_headline`). It is compared with the best single run on the report split
alone:

- better or worse: the 95 % interval of the paired difference excludes 0;
- not distinguishable: it includes 0;
- open: there is no interval, or no report split. Without a report split the verdict gives the
  cross-fitted estimate of greedy, if there is one. It never calls a score on the select split
  evidence.

Shift splits are counted by the same rule. `verdict` runs no evaluations.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from soupcore.tasks import MetricInfo

Outcome = Literal["unknown", "better", "even", "worse", "open"]

_NAMED = 4  # names in a list


@dataclass(frozen=True)
class Gain:
    """The paired difference between the soup and the best run on a split.

    Attributes:
        split: Name of the split.
        n: Number of examples.
        difference: Score of the soup minus score of the run; positive is better.
        interval: 95 % interval of the difference; None if there is none.
    """

    split: str
    n: int
    difference: float
    interval: tuple[float, float] | None = None

    @property
    def outcome(self) -> Outcome:
        """Whether the soup is better, worse, not distinguishable, or without an interval."""
        if self.interval is None:
            return "open"
        low, high = self.interval
        return "better" if low > 0 else "worse" if high < 0 else "even"


@dataclass(frozen=True)
class SoupFacts:
    """The soup of the verdict.

    Attributes:
        title: Title of its recipe.
        members: Number of ingredients in it.
        is_best_run: Whether it is the best run alone.
        is_greedy: Whether the greedy recipe chose its ingredients.
        on_select: Its gain over the best run on the select split.
        on_report: The same on the report split; None if there is no such split or evaluation.
        on_shifts: The same on the evaluated shift splits.
        name: The name that a user gave it; "" for none.
        passed_over: A soup with fitted coefficients that scores higher on the select split, but
            not by more than chance, such as "Learned (13 of 15)"; "" for none.
        is_any_proven: Whether a soup of the sweep is better or worse than the best run on the
            report split, by its interval.
    """

    title: str
    members: int
    is_best_run: bool
    is_greedy: bool
    on_select: Gain
    on_report: Gain | None = None
    on_shifts: tuple[Gain, ...] = ()
    name: str = ""
    passed_over: str = ""
    is_any_proven: bool = False


@dataclass(frozen=True)
class BasinFacts:
    """The basins of the runs.

    Attributes:
        main: Number of runs in the largest basin, or in that of the hub.
        apart: The runs outside it, each followed by the hyperparameter that distinguishes it in
            parentheses, if known.
        known: Number of evaluated pairs.
        pairs: Number of pairs.
        lowest: Lowest barrier between two runs, or on a line from the hub; None if there is none.
        threshold: Largest barrier within a basin.
        loss_name: Name of the loss.
        screened: Number of examples, if pairs were evaluated on a part of the split only.
        hub: The best run, if its lines to all other runs were evaluated but other pairs were not;
            "" otherwise. A run outside the hub's basin has a barrier on the line from the hub; if
            the basin has more runs, it may still be linked to it through one of them.
    """

    main: int
    apart: tuple[str, ...]
    known: int
    pairs: int
    lowest: float | None
    threshold: float
    loss_name: str = "loss"
    screened: int | None = None
    hub: str = ""


@dataclass(frozen=True)
class EnsembleFacts:
    """The number of members of the greedy ensemble, and its score on the report split.

    Without a report split the score is that on the select split.
    """

    members: int
    score: float


@dataclass(frozen=True)
class Facts:
    """The stored results of a sweep and a task, as far as the verdict needs them.

    Attributes:
        metric: The primary metric.
        select: Name of the select split.
        report: Name of the report split; None without one.
        runs: Number of ingredients.
        evaluated: Number of them that were evaluated on the select split.
        best: The best of these; None if no score is defined.
        best_score: Its score on the report split, or on select without one; None if unknown.
        soup: The best soup; None if none was evaluated on the select split.
        cross_fit: Mean gain of greedy over the best run on held-out halves of the select split.
        basins: The basins; None if no pair was evaluated.
        ensemble: The greedy ensemble, if it was evaluated.
    """

    metric: MetricInfo
    select: str
    report: str | None
    runs: int
    evaluated: int
    best: str | None
    best_score: float | None = None
    soup: SoupFacts | None = None
    cross_fit: float | None = None
    basins: BasinFacts | None = None
    ensemble: EnsembleFacts | None = None

    @property
    def validation(self) -> str:
        """The select split as it is called at its first mention, such as "validation (select)"."""
        return _titled("validation", self.select)

    @property
    def test(self) -> str:
        """The report split in the same way, such as "test (report)"."""
        return _titled("test", self.report or "")


@dataclass(frozen=True)
class Verdict:
    """The verdict on a sweep.

    Attributes:
        outcome: Whether the best soup is better than the best run.
        sentences: The verdict, as plain text; the first sentence is the outcome.
    """

    outcome: Outcome
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.sentences)


def verdict(facts: Facts) -> Verdict:
    """Return the verdict on a sweep; see the module for the rules."""
    if facts.best is None:
        return Verdict("unknown", (_nothing(facts), *_basins(facts, "unknown")))
    sentences = []
    if facts.evaluated < facts.runs:
        sentences.append(
            f"Only {facts.evaluated} of {facts.runs} runs have been evaluated on validation."
        )
    if facts.soup is None:
        return Verdict("unknown", (_best_run(facts), *sentences, *_basins(facts, "unknown")))
    outcome, first = _outcome(facts, facts.best, facts.soup)
    shifts = [] if facts.soup.is_best_run else _shifts(facts.soup.on_shifts)
    if facts.soup.passed_over:
        shifts.append(
            f"{facts.soup.passed_over} scores higher on validation, where its coefficients were "
            "fitted, but not distinguishably."
        )
    sentences = [*first, *sentences, *shifts, *_basins(facts, outcome), *_ensemble(facts)]
    return Verdict(outcome, tuple(sentences))


def _titled(title: str, name: str) -> str:
    return title if name == title else f"{title} ({name})"


def _nothing(facts: Facts) -> str:
    if not facts.evaluated:
        return "Nothing has been evaluated yet."
    return f"No run has a defined {facts.metric.name} on {facts.validation}."


def _best_run(facts: Facts) -> str:
    text = f"The best run on {facts.validation} is {facts.best}"
    if facts.best_score is not None:
        score = facts.metric.written.text(facts.best_score)
        text += f" ({facts.metric.name} {score}{f' on {facts.test}' if facts.report else ''})"
    return f"{text}. No soup has been evaluated yet."


def _outcome(facts: Facts, best: str, soup: SoupFacts) -> tuple[Outcome, list[str]]:
    named = f"{soup.title} ({soup.members} of {facts.runs})"
    if soup.name:
        named = f"{soup.name} ({soup.title}, {soup.members} of {facts.runs})"
    best_soup = f"the best soup on {facts.validation}"
    if soup.passed_over:
        best_soup += " without fitted coefficients"
    if soup.is_best_run:
        why = " It rejected every other run." if soup.is_greedy else ""
        return "even", [
            f"No soup beats the best run, {best}: {best_soup}, {named}, is {best} alone.{why}"
        ]
    if facts.report is None:
        return "open", _without_report(facts, best, soup, named)
    gain = soup.on_report
    if gain is None:
        return "open", [
            f"{named} is {best_soup}. It has not been evaluated on {facts.test} yet, so it cannot "
            f"be compared with the best run, {best}."
        ]
    if not math.isfinite(gain.difference):
        return "open", [
            f"{named} cannot be compared with the best run, {best}: the {facts.metric.name} of "
            f"one of them is undefined on {facts.test}."
        ]
    by = _by(facts, gain, facts.test)
    match gain.outcome:
        case "better":
            first = f"{named} beats the best run, {best}, by {by}."
        case "worse":
            first = (
                f"No soup should replace the best run, {best}: {named}, {best_soup}, is "
                f"worse: {by}."
            )
        case "even" if not soup.is_any_proven:
            first = (
                f"No soup is distinguishable from the best run, {best}: {named}, {best_soup}, "
                f"differs by {by}."
            )
        case "even":
            first = (
                f"{named}, {best_soup}, is not distinguishable from the best run, "
                f"{best}: it differs by {by}."
            )
        case _:
            first = (
                f"{named} differs from the best run, {best}, by {by}. There is no interval, so "
                "this may be chance."
            )
    return gain.outcome, [first]


def _without_report(facts: Facts, best: str, soup: SoupFacts, named: str) -> list[str]:
    text = (
        f"There is no test split. {named} differs from the best run, {best}, by "
        f"{_by(facts, soup.on_select, facts.validation)}, but both were chosen there, so this "
        "difference is optimistic."
    )
    if facts.cross_fit is None:
        return [text]
    estimate = _difference(facts, facts.cross_fit)
    return [
        text,
        f"The cross-fitted estimate: choosing by greedy changes the score by {estimate} over the "
        "best run if it is chosen on one half of validation and scored on the other.",
    ]


def _by(facts: Facts, gain: Gain, where: str) -> str:
    """Return a difference with its metric, split, interval and number of examples."""
    unit = facts.metric.written
    details = []
    if gain.interval is not None:
        low, high = gain.interval[:: unit.sign]
        details.append(f"95 % interval {unit.difference(low)} to {unit.difference(high)}")
    if gain.n > 1:
        details.append(f"n = {gain.n:,}")
    text = f"{_difference(facts, gain.difference)} on {where}"
    if details:
        text += f" ({', '.join(details)}{'' if unit.sign > 0 else '; lower is better'})"
    return text


def _difference(facts: Facts, difference: float) -> str:
    return f"{facts.metric.written.difference_text(difference)} in {facts.metric.name}"


def _shifts(gains: Sequence[Gain]) -> list[str]:
    if not gains:
        return []
    won, lost, even, unsure = (
        [_short(gain.split) for gain in gains if gain.outcome == outcome]
        for outcome in ("better", "worse", "even", "open")
    )
    if len(unsure) == len(gains):
        ahead = sum(gain.difference > 0 for gain in gains)
        return [f"It scores higher on {ahead} of {len(gains)} shifts, without intervals."]
    if unsure:
        return [
            f"It wins on {len(won)} and loses on {len(lost)} of {len(gains)} shifts; "
            f"{len(unsure)} {'has' if len(unsure) == 1 else 'have'} no interval."
        ]
    parts = []
    if won or not lost:
        parts.append(f"wins on {_of(len(won), len(gains))}")
    if lost:
        count = f"{_of(len(lost), len(gains))}" if not parts else f"{len(lost)}"
        parts.append(f"loses on {count}" + (f" ({_listed(lost)})" if won or even else ""))
    text = f"It {' and '.join(parts)}"
    if even and len(even) < len(gains):
        text += f"; {_listed(even)} {'is' if len(even) == 1 else 'are'} inconclusive"
    elif even:
        text = (
            f"{_all(len(gains)).capitalize()} shifts are inconclusive"
            if len(gains) > 1
            else f"The shift {even[0]} is inconclusive"
        )
    return [f"{text}."]


def _of(count: int, total: int) -> str:
    if total == 1:
        return "the only shift"
    return f"{_all(total)} shifts" if count == total else f"{count} of {total} shifts"


def _all(count: int) -> str:
    return "both" if count == 2 else f"all {count}"


def _short(split: str) -> str:
    return split.removeprefix("shift/")


def _basins(facts: Facts, outcome: Outcome) -> list[str]:
    found = facts.basins
    if found is None:
        return []
    where = f" (screened on {found.screened} examples)" if found.screened else ""
    is_complete = found.known == found.pairs
    is_partial = not is_complete and not found.hub
    start = f"From {found.known:,} of {found.pairs:,} pairs so far: " if is_partial else ""
    if found.main == facts.runs:
        return [f"{start}{'all' if start else 'All'} {facts.runs} runs share a basin{where}."]
    if found.main > 1:
        text = f"{found.main} of {facts.runs} runs share a basin"
        if is_partial:
            return [f"{start}{text}{where}."]
        apart = "apart"
        if found.hub:
            runs = f"{found.main} of {facts.runs} runs, {found.hub} among them,"
            text, apart = f"At least {runs} share a basin", "apart on the line from it"
        return [f"{text}{where}; {apart}: {_listed(found.apart)}."]
    text = f"{start}{'no' if start else 'No'} two of the {facts.runs} runs share a basin{where}"
    lines, runs = "between two of them", "them"
    if found.hub:
        text = f"No run shares a basin with {found.hub}{where}"
        lines, runs = "on a line from it", "it with another run"
    if is_partial or found.lowest is None:
        return [f"{text}."]
    text += (
        f": the lowest {found.loss_name} barrier {lines} is {found.lowest:.3g}, above "
        f"{found.threshold:g}"
    )
    return [f"{text}." if outcome == "better" else f"{text}, so averaging {runs} does not help."]


def _ensemble(facts: Facts) -> list[str]:
    found = facts.ensemble
    if found is None or found.members < 2:
        return []
    score = facts.metric.written.text(found.score)
    where = "test" if facts.report else "validation"
    return [
        f"The greedy ensemble reaches {score} on {where} at {found.members} × the inference cost."
    ]


def _listed(names: Iterable[str]) -> str:
    every = [*names]
    more = len(every) - _NAMED
    return ", ".join(every) if more < 2 else f"{', '.join(every[:_NAMED])} and {more} more"
