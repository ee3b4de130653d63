"""The verdict: a table of what is known, and the sentences that follow."""

from dataclasses import replace
from typing import Any

import pytest

from soupcore.analysis.verdict import (
    BasinFacts,
    EnsembleFacts,
    Facts,
    Gain,
    Outcome,
    SoupFacts,
    verdict,
)
from soupcore.tasks import MetricInfo

ACCURACY = MetricInfo("accuracy", range=(0, 1))
PERPLEXITY = MetricInfo("perplexity", higher_is_better=False, is_mean=False)
MAE = MetricInfo("MAE", higher_is_better=False, unit="K")

FACTS = Facts(ACCURACY, "select", "report", runs=15, evaluated=15, best="run-02", best_score=0.8329)
ON_SELECT = Gain("select", 700, 0.0443, (0.02, 0.07))
WIN = Gain("report", 700, 0.0343, (0.0169, 0.0514))
EVEN = Gain("report", 700, 0.0029, (-0.0081, 0.0138))
LOSS = Gain("report", 700, -0.0343, (-0.0514, -0.0169))
SURE = Gain("report", 1, 0.0343)
SHIFTS = tuple(replace(WIN, split=f"shift/{name}") for name in ("noise", "fog", "jpeg", "zoom"))
BLUR = replace(EVEN, split="shift/blur")
SOUP = SoupFacts("Greedy", 3, False, True, ON_SELECT, WIN)
BASINS = BasinFacts(13, ("run-14 (lr 0.2)", "stranger"), 105, 105, 0.01, 0.1)
FROM_BEST: dict[str, Any] = {"known": 14, "hub": "run-02"}
BY = "+3.43 pp in accuracy on test (report) (95 % interval +1.69 to +5.14, n = 700)"


def soup(**changes: Any) -> Facts:
    return replace(FACTS, soup=replace(SOUP, **changes))


def lower(metric: MetricInfo, difference: float, low: float, high: float) -> Facts:
    gain = Gain("report", 90, difference, (low, high))
    return replace(FACTS, metric=metric, soup=replace(SOUP, on_report=gain))


CASES: dict[str, tuple[Facts, Outcome, list[str]]] = {
    "nothing": (
        replace(FACTS, best=None, evaluated=0),
        "unknown",
        ["Nothing has been evaluated yet."],
    ),
    "undefined": (
        replace(FACTS, best=None),
        "unknown",
        ["No run has a defined accuracy on validation (select)."],
    ),
    "no soup": (
        FACTS,
        "unknown",
        [
            "The best run on validation (select) is run-02 (accuracy 83.29 % on test (report)). "
            "No soup has been evaluated yet."
        ],
    ),
    "some runs": (
        replace(FACTS, evaluated=4, best_score=None),
        "unknown",
        [
            "The best run on validation (select) is run-02. No soup has been evaluated yet.",
            "Only 4 of 15 runs have been evaluated on validation.",
        ],
    ),
    "better": (
        replace(
            soup(on_shifts=(*SHIFTS, BLUR)),
            basins=BASINS,
            ensemble=EnsembleFacts(5, 0.8786),
        ),
        "better",
        [
            f"Greedy (3 of 15) beats the best run, run-02, by {BY}.",
            "It wins on 4 of 5 shifts; blur is inconclusive.",
            "13 of 15 runs share a basin; apart: run-14 (lr 0.2), stranger.",
            "The greedy ensemble reaches 87.86 % on test at 5 × the inference cost.",
        ],
    ),
    "a fitted soup passed over": (
        soup(on_shifts=SHIFTS[:1], passed_over="Learned (13 of 15)"),
        "better",
        [
            f"Greedy (3 of 15) beats the best run, run-02, by {BY}.",
            "It wins on the only shift.",
            "Learned (13 of 15) scores higher on validation, where its coefficients were fitted, "
            "but not distinguishably.",
        ],
    ),
    "named by a user": (
        soup(name="ours", on_report=LOSS, passed_over="Learned (13 of 15)"),
        "worse",
        [
            "No soup should replace the best run, run-02: ours (Greedy, 3 of 15), the best soup on "
            "validation (select) without fitted coefficients, is worse: −3.43 pp in accuracy on "
            "test (report) (95 % interval −5.14 to −1.69, n = 700).",
            "Learned (13 of 15) scores higher on validation, where its coefficients were fitted, "
            "but not distinguishably.",
        ],
    ),
    "names of splits": (
        replace(soup(), select="validation", report="test"),
        "better",
        [f"Greedy (3 of 15) beats the best run, run-02, by {BY.replace(' (report)', '')}."],
    ),
    "lower perplexity": (
        lower(PERPLEXITY, 0.4213, 0.2, 0.61),
        "better",
        [
            "Greedy (3 of 15) beats the best run, run-02, by −0.421 in perplexity on test (report) "
            "(95 % interval −0.610 to −0.200, n = 90; lower is better)."
        ],
    ),
    "higher MAE": (
        lower(MAE, -1.25, -1.5, -1.0),
        "worse",
        [
            "No soup should replace the best run, run-02: Greedy (3 of 15), the best soup on "
            "validation (select), is worse: +1.25 K in MAE on test (report) (95 % interval "
            "+1.00 to +1.50, n = 90; lower is better)."
        ],
    ),
    "even": (
        soup(on_report=EVEN),
        "even",
        [
            "No soup is distinguishable from the best run, run-02: Greedy (3 of 15), the best soup "
            "on validation (select), differs by +0.29 pp in accuracy on test (report) (95 % "
            "interval −0.81 to +1.38, n = 700)."
        ],
    ),
    "even, but another soup is not": (
        soup(on_report=EVEN, is_any_proven=True),
        "even",
        [
            "Greedy (3 of 15), the best soup on validation (select), is not distinguishable from "
            "the best run, run-02: it differs by +0.29 pp in accuracy on test (report) (95 % "
            "interval −0.81 to +1.38, n = 700)."
        ],
    ),
    "no interval": (
        soup(on_report=SURE),
        "open",
        [
            "Greedy (3 of 15) differs from the best run, run-02, by +3.43 pp in accuracy on test "
            "(report). There is no interval, so this may be chance."
        ],
    ),
    "undefined on report": (
        soup(on_report=Gain("report", 700, float("nan"))),
        "open",
        [
            "Greedy (3 of 15) cannot be compared with the best run, run-02: the accuracy of one of "
            "them is undefined on test (report)."
        ],
    ),
    "not on report yet": (
        soup(on_report=None),
        "open",
        [
            "Greedy (3 of 15) is the best soup on validation (select). It has not been evaluated "
            "on test (report) yet, so it cannot be compared with the best run, run-02."
        ],
    ),
    "the best run alone": (
        soup(members=1, is_best_run=True, on_report=replace(WIN, difference=0.0)),
        "even",
        [
            "No soup beats the best run, run-02: the best soup on validation (select), Greedy (1 "
            "of 15), is run-02 alone. It rejected every other run."
        ],
    ),
    "no report split": (
        replace(soup(on_report=None), report=None),
        "open",
        [
            "There is no test split. Greedy (3 of 15) differs from the best run, run-02, by +4.43 "
            "pp in accuracy on validation (select) (95 % interval +2.00 to +7.00, n = 700), but "
            "both were chosen there, so this difference is optimistic."
        ],
    ),
    "cross-fitted": (
        replace(soup(on_report=None), report=None, cross_fit=0.021),
        "open",
        [
            "There is no test split. Greedy (3 of 15) differs from the best run, run-02, by +4.43 "
            "pp in accuracy on validation (select) (95 % interval +2.00 to +7.00, n = 700), but "
            "both were chosen there, so this difference is optimistic.",
            "The cross-fitted estimate: choosing by greedy changes the score by +2.10 pp in "
            "accuracy over the best run if it is chosen on one half of validation and scored on "
            "the other.",
        ],
    ),
    "hopeless": (
        replace(soup(on_report=LOSS), basins=replace(BASINS, main=1, lowest=1.317)),
        "worse",
        [
            "No soup should replace the best run, run-02: Greedy (3 of 15), the best soup on "
            "validation (select), is worse: −3.43 pp in accuracy on test (report) (95 % interval "
            "−5.14 to −1.69, n = 700).",
            "No two of the 15 runs share a basin: the lowest loss barrier between two of them is "
            "1.32, above 0.1, so averaging them does not help.",
        ],
    ),
    "hopeless by the lines from the best": (
        replace(soup(on_report=LOSS), basins=replace(BASINS, main=1, lowest=1.317, **FROM_BEST)),
        "worse",
        [
            "No soup should replace the best run, run-02: Greedy (3 of 15), the best soup on "
            "validation (select), is worse: −3.43 pp in accuracy on test (report) (95 % interval "
            "−5.14 to −1.69, n = 700).",
            "No run shares a basin with run-02: the lowest loss barrier on a line from it is 1.32, "
            "above 0.1, so averaging it with another run does not help.",
        ],
    ),
}


def plain(text: str) -> str:
    return text.replace("−", "-")


@pytest.mark.parametrize(("facts", "outcome", "sentences"), CASES.values(), ids=CASES)
def test_a_verdict_follows_from_the_facts(
    facts: Facts, outcome: Outcome, sentences: list[str]
) -> None:
    found = verdict(facts)
    assert found.outcome == outcome
    assert [plain(each) for each in found.sentences] == [plain(each) for each in sentences]
    assert str(found) == " ".join(found.sentences)


W, L, E, N = WIN, LOSS, EVEN, SURE


@pytest.mark.parametrize(
    ("gains", "text"),
    [
        ((W, W), "It wins on both shifts."),
        ((W,), "It wins on the only shift."),
        ((E,), "The shift s0 is inconclusive."),
        ((E, E), "Both shifts are inconclusive."),
        ((E, E, E), "All 3 shifts are inconclusive."),
        ((L, L), "It loses on both shifts."),
        ((W, L), "It wins on 1 of 2 shifts and loses on 1 (s1)."),
        ((L, E, E), "It loses on 1 of 3 shifts (s0); s1, s2 are inconclusive."),
        ((W, L, E), "It wins on 1 of 3 shifts and loses on 1 (s1); s2 is inconclusive."),
        ((N, replace(N, difference=-0.1)), "It scores higher on 1 of 2 shifts, without intervals."),
        ((W, N, L), "It wins on 1 and loses on 1 of 3 shifts; 1 has no interval."),
    ],
)
def test_shifts_are_counted(gains: tuple[Gain, ...], text: str) -> None:
    shifts = tuple(replace(gain, split=f"shift/s{i}") for i, gain in enumerate(gains))
    assert verdict(soup(on_shifts=shifts)).sentences[1] == text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"main": 15}, "All 15 runs share a basin."),
        ({"main": 15, "known": 20}, "From 20 of 105 pairs so far: all 15 runs share a basin."),
        ({"known": 20}, "From 20 of 105 pairs so far: 13 of 15 runs share a basin."),
        (
            {"main": 1, "known": 2},
            "From 2 of 105 pairs so far: no two of the 15 runs share a basin.",
        ),
        ({"main": 1, "lowest": None}, "No two of the 15 runs share a basin."),
        (
            {"main": 1, "lowest": 0.2},  # the soup is better all the same, as WiSE-FT's may be
            "No two of the 15 runs share a basin: the lowest loss barrier between two of them is "
            "0.2, above 0.1.",
        ),
        (
            {"screened": 200, "apart": ("a", "b", "c", "d", "e", "f")},
            "13 of 15 runs share a basin (screened on 200 examples); apart: a, b, c, d and 2 more.",
        ),
        # Of many runs, only the lines from the best one are evaluated. Those that are apart there
        # may be linked to it through others.
        ({"main": 15, **FROM_BEST}, "All 15 runs share a basin."),
        (
            FROM_BEST,
            "At least 13 of 15 runs, run-02 among them, share a basin; apart on the line from it: "
            "run-14 (lr 0.2), stranger.",
        ),
        (
            {**FROM_BEST, "screened": 200, "apart": ("a", "b", "c", "d", "e", "f")},
            "At least 13 of 15 runs, run-02 among them, share a basin (screened on 200 examples); "
            "apart on the line from it: a, b, c, d and 2 more.",
        ),
        (
            {"main": 1, "lowest": 0.2, **FROM_BEST},
            "No run shares a basin with run-02: the lowest loss barrier on a line from it is 0.2, "
            "above 0.1.",
        ),
        ({"main": 1, "lowest": None, **FROM_BEST}, "No run shares a basin with run-02."),
    ],
)
def test_the_verdict_names_basins(changes: dict[str, Any], text: str) -> None:
    facts = replace(soup(), basins=replace(BASINS, **changes))
    assert verdict(facts).sentences[1] == text


def test_the_verdict_omits_an_ensemble_of_one() -> None:
    alone = replace(soup(), ensemble=EnsembleFacts(1, 0.9))
    assert verdict(alone) == verdict(soup())
