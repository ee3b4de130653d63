"""Each call: its JSON, its work, the result that a page reads, and the same from its printed code.

The code runs on a store of its own, so it computes everything again.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import soupcore
from soupcore import ClassificationTask, Evaluator, LinearPath, Soup, StockpotError, Sweep, uniform
from soupcore.calls import (
    CALLS,
    Attribution,
    BestIngredientBias,
    Breakdown,
    Calibrations,
    Call,
    ClickedPath,
    Context,
    EnsembleScores,
    GreedyEnsembleScores,
    GreedyOrders,
    IngredientScores,
    ManualSoup,
    MetricIntervals,
    OpenSweep,
    Optimism,
    OtherStatistics,
    Pairs,
    ParameterCurve,
    Paths,
    PlaneGrid,
    Preview,
    PushedSoup,
    RecipeSoup,
    Result,
    SearchOptimism,
    SeveralSoups,
    ShownExamples,
    SoupFiles,
    SoupScores,
    StoredCall,
    TwoModelEnsembles,
    TwoModelTheory,
    WeightGeometry,
)
from soupcore.evaluation import Evaluation, Evaluations, StatisticsChoice
from soupcore.jobs.kinds import KINDS
from soupcore.overview import Overview
from soupcore.plan import PART, TIMED, Analysis, TimedPasses
from soupcore.tasks import Shown
from soupcore.writers.forms import Form

NAMES = ("run1", "run2", "run10")
GREEDY = {"accept": ">", "metric": "score"}
THIRDS = {"run1": Fraction(1, 3), "run2": Fraction(2, 3)}

#: Those of pages, and those that join several of them.
ALL = CALLS | {call.kind: call for call in (Analysis, TimedPasses)}

Namespace = Mapping[str, Any]


@pytest.fixture(autouse=True)
def examples_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the toy task show its examples as text."""
    monkeypatch.setattr(
        ClassificationTask, "show", lambda self, split, index: Shown(f"{split} {index}")
    )


@pytest.fixture(autouse=True)
def nothing_is_uploaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Return where a soup would go, and its weights, in place of an upload."""

    def push(soup: Soup, repo: str, *, public: bool = False, **options: Any) -> str:
        return f"{repo} {public} {soup.mixture.key}"

    monkeypatch.setattr(soupcore.calls.files, "push_to_hub", push)
    monkeypatch.setattr(soupcore, "push_to_hub", push)


@pytest.fixture
def running(sweep: Sweep, evaluator: Evaluator) -> Context:
    return Context(sweep, evaluator, str(sweep.folder), "task.py:task")


@pytest.fixture
def reading(running: Context, task: ClassificationTask) -> Context:
    """What a page has: no task, only its description."""
    known = Evaluations(task.describe(), running.evaluations.store)
    return Context(running.sweep, known, running.folder, running.task_spec)


@pytest.fixture
def soup(running: Context) -> str:
    """The id of a soup in the store, made of a soup in the store."""
    first = uniform(running.sweep, ["run1", "run2"])
    more = running.sweep.including({"first": first.checkpoint})
    second = uniform(more, ["run10", "first"])
    # With another task, so that no verdict is about them.
    elsewhere = replace(running, task_spec="another.py:task")
    elsewhere.keep_soup(first, {})
    return elsewhere.keep_soup(second, {"first": first.id})


@pytest.fixture
def execute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: ClassificationTask
) -> Callable[[str], Namespace]:
    """Run Python as a user does, in an empty folder."""
    folder = tmp_path / "shown"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(soupcore, "load_task", lambda spec: task)

    def run(code: str) -> Namespace:
        namespace: dict[str, Any] = {}
        exec(compile(code, "printed", "exec"), namespace)  # noqa: S102 - it is what is tested
        return namespace

    return run


@dataclass(frozen=True)
class Case:
    """A call, and the same values from the namespace of its code and from what a page reads.

    Attributes:
        call: The call.
        printed: The values from the namespace of the code.
        read: The values from what a page reads, given what the job tells.
    """

    call: Call
    printed: Callable[[Namespace], Any]
    read: Callable[[Context, Result], Any]


def stored(call: StoredCall, printed: Callable[[Namespace], Any]) -> Case:
    return Case(call, printed, lambda context, told: call.result(context))


def of_evaluations(found: Mapping[str, Mapping[str, Evaluation]]) -> Any:
    return {s: {n: (e.score, e.loss) for n, e in each.items()} for s, each in found.items()}


def of_soup(soup: Soup) -> Any:
    """Its weights and scores; `manual` makes the weights of others again, under another id."""
    body = soup.to_json()
    scores = {split: found["score"] for split, found in body["scores"].items()}
    return soup.mixture.key, body["batchnorm"], scores


def of_paths(paths: Mapping[Any, list[LinearPath]]) -> Any:
    return [
        (path.alphas.tolist(), path.losses.tolist(), path.scores.tolist())
        for many in paths.values()
        for path in many
    ]


def kept_soup(context: Context, told: Result) -> Any:
    return of_soup(context.soups[told["soup"]].soup)


def paths(call: Paths) -> Case:
    def read(context: Context, told: Result) -> Any:
        found = call.result(context)
        count = len(call.lines(context))
        many = {index: [f.paths[index] for f in found.values()] for index in range(count)}
        return of_paths(many)  # type: ignore[arg-type]

    return Case(call, lambda ns: of_paths(ns["paths"]), read)


def calibrations(ns: Namespace) -> Any:
    both = {
        name: {"before": before.to_json(), "after": after.to_json()}
        for name, (before, after) in ns["found"].items()
    }
    of_soup, ensemble, *_ = both
    return {
        "soup": both.pop(of_soup),
        "ensemble": both.pop(ensemble),
        "ingredients": both,
    }


def cases(soup: str) -> dict[str, Case]:
    files, evaluated = SoupFiles(soup, {}), IngredientScores(NAMES, ("val", "test"))
    plane = PlaneGrid(corners=("base", "run1", {"soup": soup}), split="val", size=3)
    pairs = Pairs(names=NAMES, alphas=3, split="val", part=20)
    several = SeveralSoups(
        (
            {"recipe": "greedy", "parameters": GREEDY},
            {"recipe": "uniform", "parameters": {}},
        ),
        NAMES,
    )
    found = [
        Case(
            evaluated,
            lambda ns: of_evaluations(ns["found"]),
            lambda context, told: of_evaluations(evaluated.result(context)),  # type: ignore[arg-type]
        ),
        Case(
            MetricIntervals(),
            lambda ns: ns["intervals"],
            lambda context, told: {
                (split, name): found.score_interval
                for split, by_name in IngredientScores(NAMES, ("val", "test", "shift/noise"))
                .result(context)
                .items()
                for name, found in by_name.items()
                if found is not None
            },
        ),
        Case(RecipeSoup("greedy", NAMES, GREEDY), lambda ns: of_soup(ns["soup"]), kept_soup),
        Case(
            PushedSoup(soup, "org/name", public=True),
            lambda ns: ns["url"],
            lambda context, told: told["url"],
        ),
        Case(
            several,
            lambda ns: {name: of_soup(made) for name, made in ns["soups"].items()},
            lambda context, told: {
                each["recipe"]: of_soup(context.soups[each["soup"]].soup) for each in told["soups"]
            },
        ),
        Case(SoupScores(soup), lambda ns: of_soup(ns["soup"]), kept_soup),
        Case(OtherStatistics(soup), lambda ns: of_soup(ns["other"]), kept_soup),
        Case(ManualSoup.of(THIRDS, ["val"], keep=True), lambda ns: of_soup(ns["soup"]), kept_soup),
        Case(
            Preview.of(THIRDS, ["val"]),
            lambda ns: {s: asdict(seen)["score"] for s, seen in ns["previews"].items()},
            lambda context, told: {s: seen["score"] for s, seen in told["previews"].items()},
        ),
        Case(
            files,
            lambda ns: {path.name: weights(path) for path in Path().glob("*.safetensors")},
            lambda context, told: {
                name: weights(context.evaluations.store.soup_folder(soup, Form().key) / name)
                for name in told["files"]
            },
        ),
        stored(EnsembleScores(NAMES), lambda ns: {"scores": ns["scores"]}),
        stored(
            GreedyEnsembleScores(NAMES),
            lambda ns: {"members": [*ns["chosen"].members], "scores": ns["scores"]},
        ),
        stored(
            TwoModelEnsembles(NAMES, "test"),
            lambda ns: {"pairs": [[a, b, score] for (a, b), score in ns["ensembles"].items()]},
        ),
        stored(
            TwoModelTheory(NAMES, "test"),
            lambda ns: {
                "pairs": [
                    [
                        *pair,
                        {
                            "predicted": each.predicted_gap,
                            "gap": each.gap,
                            "β": each.beta,
                            "curvature": each.curvature,
                            "variance": each.variance,
                        },
                    ]
                    for pair, each in ns["terms"].items()
                ]
            },
        ),
        stored(Calibrations(soup, NAMES, "test"), calibrations),
        stored(
            Attribution(soup, "test"),
            lambda ns: {
                "without": ns["without"],
                "shapley": {n: [*asdict(share).values()] for n, share in ns["shapley"].items()},
            },
        ),
        stored(
            Breakdown({"soup": soup}, "test"),
            lambda ns: {
                "score": ns["task"].mean_score.to_json(),
                "classes": [
                    [str(name), int(n), *numbers]
                    for name, (n, *numbers) in zip(
                        ns["table"].index, ns["table"].itertuples(index=False), strict=True
                    )
                ],
                "groups": [],
            },
        ),
        stored(
            ShownExamples("test", (2, 0)),
            lambda ns: {"examples": [shown.to_json() for shown in ns["examples"]]},
        ),
        stored(
            BestIngredientBias(NAMES),
            lambda ns: asdict(ns["bias"]) | {"chosen": [*ns["bias"].chosen]},
        ),
        stored(Optimism(NAMES, GREEDY), lambda ns: asdict(ns["found"])),
        stored(SearchOptimism(NAMES, {"evaluations": 12}), lambda ns: asdict(ns["found"])),
        stored(
            GreedyOrders(NAMES, GREEDY, 2),
            lambda ns: {
                "scores": {split: ns["orders"].scores(split) for split in ns["task"].reported}
            },
        ),
        Case(
            ParameterCurve("wise_ft", "alpha", ("run1", "run2"), (0.0, 0.5), {"keep": ""}),
            lambda ns: [
                (value, soup.id)
                for value, soup in zip(ns["curve"].values, ns["curve"].soups, strict=True)
            ],
            lambda context, told: [
                (point["value"], point["soup"]) for point in read_curve(context)["points"]
            ],
        ),
        paths(ClickedPath(pairs=(("run1", "run2"),), alphas="adaptive", splits=("val",))),
        paths(
            Paths(
                pairs=(("base", "run1"), ("run2", {"soup": soup})),
                alphas=3,
                splits=("val", "test"),
                beyond=(-0.5, 1.5),
            )
        ),
        Case(
            pairs,
            lambda ns: ns["barriers"].loss.tolist(),
            lambda context, told: pairs.result(context).matrix("barrier").tolist(),
        ),
        Case(
            plane,
            lambda ns: ns["plane"].losses.tolist(),
            lambda context, told: plane.result(context).losses.tolist(),  # type: ignore[union-attr]
        ),
        Case(
            WeightGeometry(),
            lambda ns: ns["geometry"].gram.tolist(),
            lambda context, told: WeightGeometry().result(context).gram.tolist(),  # type: ignore[union-attr]
        ),
        Case(
            Analysis(),
            lambda ns: ns["verdict"].sentences,
            lambda context, told: Overview.of(context).verdict.sentences,
        ),
        Case(TimedPasses(), lambda ns: [each.loss for each in ns["timed"]], timed),
    ]
    return {case.call.kind: case for case in found}


def timed(context: Context, told: Result) -> list[float]:
    points = [each.mixture for each in context.sweep.ingredients.values()][:TIMED]
    part = context.task.part(context.task.select, PART)
    return [found.loss for found in context.evaluations.stored(points, part) if found is not None]


def read_curve(context: Context) -> Result:
    call = ParameterCurve("wise_ft", "alpha", ("run1", "run2"), (0.0, 0.5), {"keep": ""})
    found = call.result(context)
    assert found is not None
    return found


def weights(path: Path) -> dict[str, Any]:
    return {name: tensor.tolist() for name, tensor in load_file(path).items()}


def quietly(done: int, total: int, partial: object = None) -> None:
    assert 0 <= done <= total


def test_each_call_has_a_case_and_a_job(soup: str) -> None:
    assert cases(soup).keys() == ALL.keys() == KINDS.keys() - {OpenSweep.kind}


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"sweep": "/a", "weights": ""}, OpenSweep("/a")),
        ({"sweep": "/a", "weights": "model"}, OpenSweep("/a", "model")),
        ({"sweep": "/a", "weights": {"b": "ema"}}, OpenSweep("/a", {"b": "ema"})),
        ({"sweep": "/a", "weights": "", "snapshot": "best"}, OpenSweep("/a", snapshot="best")),
        (
            {"sweep": "/a", "weights": "", "snapshot": {"run": "last"}, "refresh": True},
            OpenSweep("/a", "", {"run": "last"}, refresh=True),
        ),
    ],
)
def test_requests_to_open_a_sweep_round_trip(request_: dict[str, Any], expected: OpenSweep) -> None:
    assert OpenSweep.from_request(request_ | {"task": "b"}) == expected
    assert json.loads(json.dumps(expected.request)) == request_


def test_a_stored_request_may_have_the_folder_only() -> None:
    assert OpenSweep.from_request({"sweep": "/a"}) == OpenSweep("/a")


@pytest.mark.parametrize("kind", ALL)
def test_a_call_is_queued_done_read_and_printed(
    running: Context, reading: Context, soup: str, execute: Callable[[str], Namespace], kind: str
) -> None:
    case = cases(soup)[kind]
    request = json.loads(json.dumps({"sweep": "a", "task": "b"} | case.call.arguments))
    call = ALL[kind].from_request(request)
    assert call == case.call
    if kind == SearchOptimism.kind:
        pytest.importorskip("cma")
    if kind == Pairs.kind:  # it notes what is evaluated already
        Paths(names=NAMES, alphas=3, splits=("val",), part=20).work(running, quietly)
    if kind == MetricIntervals.kind:  # it completes what is evaluated already
        IngredientScores(NAMES, ("val", "test", "shift/noise")).work(running, quietly)
    if kind in (SoupFiles.kind, PushedSoup.kind):
        name = f"uniform-{soup}.json"
        Path(name).write_text(json.dumps(running.soups[soup].soup.to_json()))
    if isinstance(call, StoredCall):
        assert call.known(reading) is None
        with pytest.raises(TypeError, match="Evaluator"):
            call.run(reading, quietly, lambda result: None)
    told = json.loads(json.dumps(call.work(running, quietly), allow_nan=False))
    read = case.read(reading, told)
    assert read
    if isinstance(call, StoredCall):
        assert call.result(reading) == call.known(reading)
    assert case.printed(execute(call.script(reading))) == read


@pytest.mark.parametrize("statistics", ["averaged", "re-estimated"])
def test_printed_code_has_the_statistics_of_its_context(
    running: Context, execute: Callable[[str], Namespace], statistics: StatisticsChoice
) -> None:
    chosen = running.evaluator.with_statistics(statistics)
    context = Context(running.sweep, chosen, running.folder, running.task_spec)
    found = execute(RecipeSoup("uniform", NAMES, {}).script(context))["soup"]
    assert found.evaluations["val"].losses.equal(
        uniform(running.sweep).evaluate(chosen, ["val"]).evaluations["val"].losses
    )


@pytest.mark.parametrize(
    ("kind", "request_", "words"),
    [
        ("evaluate", {"names": ["run1"]}, r"\(evaluate\) lacks splits. Another version"),
        ("paths", {}, "lacks alphas, splits"),
        ("weights", {"soup": "0123"}, "lacks form"),
    ],
)
def test_a_request_of_another_version_is_refused_with_a_sentence(
    kind: str, request_: dict[str, Any], words: str
) -> None:
    with pytest.raises(StockpotError, match=words):
        CALLS[kind].from_request(request_)


@pytest.mark.parametrize(
    ("kind", "request_"),
    [
        ("paths", {"names": ["run1", "run2"], "alphas": 3, "splits": ["val"], "beyond": []}),
        ("curve", {"recipe": "wise_ft", "parameter": "alpha", "names": ["run1"], "values": [0],
                   "parameters": {}, "splits": ["val"]}),
        ("plane", {"corners": ["base", "run1", "run2"], "split": "val", "size": 3}),
    ],
)  # fmt: skip
def test_a_request_of_an_earlier_version_is_run(
    running: Context, kind: str, request_: dict[str, Any]
) -> None:
    """They had arguments that are not needed now, and left out or spelled out defaults."""
    call = CALLS[kind].from_request({"sweep": "s", "task": "t", "batchnorm": "averaged"} | request_)
    assert call.work(running, quietly) is not None
    assert CALLS[kind].from_request(call.arguments) == call
