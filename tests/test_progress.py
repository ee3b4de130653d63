"""Progress: callbacks of parts, and the bar of long calls."""

import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import soupcore
from soupcore import Evaluator, Soup, Sweep, analysis, progress
from soupcore.progress import Progress, no_progress, with_bar

PUBLIC: dict[str, Callable[..., Any]] = {
    **{name: getattr(soupcore, name) for name in soupcore.__all__},
    **{name: getattr(analysis, name) for name in analysis.__all__},
    "Evaluator.evaluate": Evaluator.evaluate,
    "Evaluator.evaluate_all": Evaluator.evaluate_all,
    "Soup.evaluate": Soup.evaluate,
    "Sweep.from_folder": Sweep.from_folder,
}
LONG = {
    name: call
    for name, call in PUBLIC.items()
    if inspect.isroutine(call) and "on_progress" in inspect.signature(call).parameters
}


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[float]]]:
    """The bars that calls show: title, and fractions reported."""
    shown: list[tuple[str, list[float]]] = []

    @contextmanager
    def bar(title: str) -> Iterator[Progress]:
        fractions: list[float] = []
        shown.append((title, fractions))
        yield lambda done, total: fractions.append(done / total)

    monkeypatch.setattr(progress, "bar", bar)
    monkeypatch.setattr(progress, "is_watched", lambda: True)
    return shown


@with_bar("Inner")
def inner(*, on_progress: Progress = no_progress, progress: bool = True) -> None:
    on_progress(1, 1)


@with_bar("Outer")
def outer(
    steps: int, *, fails: bool = False, on_progress: Progress = no_progress, progress: bool = True
) -> int:
    for step in range(steps):
        inner()
        on_progress(step + 1, steps)
    if fails:
        raise ValueError("failed")
    return steps


def test_only_the_outermost_call_shows_a_bar(bars: list[Any]) -> None:
    assert outer(2) == 2
    assert bars == [("Outer", [0.5, 1.0])]


@pytest.mark.parametrize(
    "options", [{"progress": False}, {"on_progress": no_progress}], ids=lambda o: next(iter(o))
)
def test_a_bar_is_switched_off(bars: list[Any], options: dict[str, Any]) -> None:
    assert outer(2, **options) == 2
    assert bars == []


def test_a_callback_replaces_the_bar(bars: list[Any]) -> None:
    seen = []
    outer(2, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert bars == []


def test_a_call_after_a_failed_call_shows_a_bar(bars: list[Any]) -> None:
    with pytest.raises(ValueError, match="failed"):
        outer(1, fails=True)
    outer(1)
    assert [title for title, _ in bars] == ["Outer", "Outer"]


def test_another_thread_has_its_own_bar(bars: list[Any]) -> None:
    thread = threading.Thread(target=outer, args=(1,))
    thread.start()
    thread.join()
    assert bars == [("Outer", [1.0])]


@pytest.mark.parametrize("name", sorted(LONG))
def test_every_long_call_can_show_a_bar(name: str) -> None:
    parameter = inspect.signature(LONG[name]).parameters["progress"]
    assert parameter.default is True
    assert hasattr(LONG[name], "__wrapped__")


def test_the_tested_calls_include_those_that_take_long() -> None:
    assert {"barriers", "plane", "geometry", "linear_path", "greedy", "learned"} <= {*LONG}
    assert {"curve", "shapley_values", "Evaluator.evaluate_all", "Sweep.from_folder"} <= {*LONG}


def test_a_function_without_the_keywords_is_refused() -> None:
    def positional(on_progress: Progress, *, progress: bool = True) -> None: ...

    with pytest.raises(TypeError, match="must take 'on_progress' as a keyword"):
        with_bar("Bar")(positional)


def terminal(is_one: bool) -> Any:
    return SimpleNamespace(isatty=lambda: is_one)


def notebook(config: dict[str, Any] | None) -> Any:
    module = ModuleType("IPython")
    shell = None if config is None else SimpleNamespace(config=config)
    module.get_ipython = lambda: shell  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(
    ("stderr", "ipython", "silenced", "watched"),
    [
        (terminal(True), None, False, True),
        (terminal(False), None, False, False),
        (None, None, False, False),  # pythonw, and some services
        (terminal(False), notebook({"IPKernelApp": {}}), False, True),
        (terminal(False), notebook({}), False, False),  # IPython's shell, into a file
        (terminal(False), notebook(None), False, False),  # imported by a script
        (terminal(True), None, True, False),
    ],
)
def test_bars_are_for_terminals_and_notebooks(
    stderr: Any, ipython: Any, silenced: bool, watched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(progress, "_silenced", silenced)
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    if ipython is not None:
        monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert progress.is_watched() is watched


def test_without_tqdm_there_is_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)  # importing it raises ImportError
    with progress.bar("Barriers") as on_progress:
        on_progress(1, 2)


def test_the_bar_is_from_tqdm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.setattr(progress, "_DELAY", 0)
    with progress.bar("Barriers") as on_progress:
        on_progress(1, 8)
        on_progress(1, 4)  # totals may change
    shown = capsys.readouterr().err
    assert shown.startswith("\rBarriers:   0 % |")
    assert "Barriers: 100 % |" in shown
    assert shown.endswith("\n")
