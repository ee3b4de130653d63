"""The commands of `stockpot` that need no browser, run with their parsed options.

Results go to standard output, as tables or as JSON; progress and errors go to standard error.
"""

import argparse
import json
import math
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from soupcore.evaluation import Evaluation, Evaluations, Evaluator
from soupcore.recipes import RECIPES, Parameter, Recipe
from soupcore.sweeps import FitReport, Sweep, UnusableSweepError
from soupcore.sweeps.snapshots import Snapshots
from soupcore.tasks import TaskInfo, load_task

if TYPE_CHECKING:
    import pandas as pd

    from soupcore.calls import Report

_SWITCHES = {"true": True, "false": False}


def build_soup(parsed: argparse.Namespace) -> None:
    """Build a soup, evaluate it, and write, push or print it."""
    from soupcore.checkpoints.recognition import TORCH_SUFFIXES, suffix_of
    from soupcore.provenance import push_to_hub, save_adapter

    if parsed.recipe not in RECIPES:
        known = ", ".join(RECIPES)
        parsed.error(f"argument --recipe: invalid choice: {parsed.recipe!r} (choose from {known})")
    recipe = RECIPES[parsed.recipe]
    if recipe.chooses and parsed.task is None:
        parsed.error(f"{recipe.title} chooses by evaluations: name a --task")
    if parsed.metric and parsed.task is None:
        parsed.error("argument --metric: requires --task")
    if parsed.output is None and parsed.task is None and parsed.push is None:
        parsed.error(
            "name an --output for the weights, a --task to evaluate the soup, or a repository to "
            "--push it to"
        )
    if parsed.public and parsed.push is None:
        parsed.error("argument --public: requires --push")
    if parsed.adapter:
        _check_adapter_options(parsed)
    elif parsed.rank is not None:
        parsed.error("argument --rank: requires --adapter")
    elif parsed.output is not None:
        suffixes = [".safetensors", *TORCH_SUFFIXES]
        is_folder = parsed.output.is_dir() or not parsed.output.suffix
        if not is_folder and suffix_of(parsed.output) not in suffixes:
            parsed.error(
                f"argument --output: {parsed.output} ends in none of {', '.join(suffixes)}"
            )
        if parsed.dtype and not is_folder and suffix_of(parsed.output) != ".safetensors":
            parsed.error("argument --dtype: only safetensors can have another dtype")
        if not parsed.output.parent.is_dir():
            parsed.error(f"argument --output: {parsed.output.parent} is not a folder")
    parameters = dict(_parameter(recipe, text, parsed.error) for text in parsed.parameter)
    checked = recipe.check(parameters)
    sweep = _sweep(parsed).with_tensors(parsed.tensors, parsed.rest)
    if parsed.task is None:
        soup = recipe.function(sweep, parsed.ingredients, **checked)
    else:
        evaluator = _evaluator(parsed)
        soup = recipe.follow(sweep, evaluator, parsed.ingredients, **checked).evaluate(evaluator)
    files: list[Path] = []
    about: dict[str, Any] = {}
    if parsed.adapter:
        about = {"relative_error": save_adapter(soup, parsed.output, parsed.rank)}
        files = sorted(parsed.output.glob("adapter_*"))
    elif parsed.output is not None:
        files = soup.save(parsed.output, parsed.dtype)
    if parsed.push is not None:
        url = push_to_hub(soup, parsed.push, public=parsed.public, dtype=parsed.dtype)
        about |= {"pushed": url}
    if parsed.json:
        names = [str(file) for file in files]
        _print_json({"soup": soup.to_json(), "files": names, **about})
        return
    print(f"{recipe.title} soup of {', '.join(soup.ingredients)}")
    for name, coefficient in soup.coefficient_texts.items():
        print(f"  {name}: {coefficient}".removesuffix(": "))
    for each in soup.fixed:
        print(f"taking no part: {each}")
    for split, found in soup.evaluations.items():
        print(f"{split}: {found.score_text}, n = {found.n}")
    for note in soup.notes:
        print(note)
    if "relative_error" in about:
        print(f"relative error of the adapter's change: {about['relative_error']:.3g}")
    for file in files:
        print(f"wrote {file}")
    if "pushed" in about:
        print(f"pushed to {about['pushed']}")


def _check_adapter_options(parsed: argparse.Namespace) -> None:
    if parsed.output is None or not parsed.output.absolute().parent.is_dir():
        parsed.error("argument --adapter: requires --output FOLDER, in an existing folder")
    if parsed.dtype:
        parsed.error("argument --dtype: not allowed with --adapter (dtype of the first adapter)")
    if parsed.rank is not None and parsed.rank < 1:
        parsed.error("argument --rank: it must be positive")


def _parameter(
    recipe: Recipe, text: str, error: Callable[[str], NoReturn]
) -> tuple[str, bool | int | float | str]:
    """Parse "NAME=VALUE"; return the name of the recipe's parameter, and its value."""
    given, is_given, value = text.partition("=")
    known = {parameter.name: parameter for parameter in recipe.parameters}
    symbols = {parameter.label.split()[-1].lower(): parameter for parameter in recipe.parameters}
    parameter = known.get(given) or symbols.get(given.lower())
    if parameter is None or not is_given:
        error(f"argument --parameter: {text!r} is not NAME=VALUE with one of {', '.join(known)}")
    try:
        return parameter.name, _value(parameter, value)
    except ValueError:
        kind = type(parameter.default).__name__
        error(f"argument --parameter: {text!r} needs a value of the type {kind}")


def _value(parameter: Parameter, text: str) -> bool | int | float | str:
    if isinstance(parameter.default, bool):
        if text.lower() not in _SWITCHES:
            raise ValueError(text)
        return _SWITCHES[text.lower()]
    if isinstance(parameter.default, int | float):
        return type(parameter.default)(text)
    return text


def evaluate(parsed: argparse.Namespace) -> None:
    """Evaluate checkpoints and print their scores."""
    sweep, evaluator = _sweep(parsed), _evaluator(parsed)
    splits = parsed.split or evaluator.task.reported
    points = {name: sweep[name].mixture for name in sweep.names(parsed.ingredients)}
    if parsed.ingredients is None and sweep.base is not None:
        points = {sweep.base.name: sweep.base.mixture} | points
    found = {
        split: dict(zip(points, evaluator.evaluate_all([*points.values()], split), strict=True))
        for split in splits
    }
    if parsed.json:
        rows = [(name, each) for some in found.values() for name, each in some.items()]
        _print_json([_row(name, each, evaluator.task) for name, each in rows])
        return
    import pandas as pd

    unit, score = evaluator.task.score_unit, evaluator.task.score_name
    table = pd.DataFrame(
        {split: {n: unit.number(e.score) for n, e in some.items()} for split, some in found.items()}
    )
    _print_table(table.rename_axis(unit.label(score)).reset_index())


def _row(name: str, found: Evaluation, task: TaskInfo[Any]) -> dict[str, Any]:
    """Return an evaluation as JSON, with values of the metrics instead of scores."""
    primary, metrics = task.metric, task.metrics or (task.metric,)
    low, high = sorted(primary.sign * end for end in found.score_interval)
    scores = {primary.name: found.score, **found.all_scores}
    values = {metric.name: metric.sign * scores.get(metric.name, math.nan) for metric in metrics}
    return {
        "name": name,
        "split": found.split,
        "n": found.n,
        "loss": found.loss,
        "metrics": values,
        "primary": primary.name,
        "interval": [low, high],  # of the primary metric
    }


def evaluate_lines(parsed: argparse.Namespace) -> None:
    """Evaluate the lines between checkpoints and print their barriers."""
    from soupcore.connectivity import barriers
    from soupcore.connectivity.adaptive import ADAPTIVE

    sweep, evaluator = _sweep(parsed), _evaluator(parsed)
    alphas = ADAPTIVE if parsed.alphas is None else parsed.alphas
    table = barriers(sweep, evaluator, parsed.ingredients, alphas, split=parsed.split).to_frame()
    if parsed.json:
        _print_json(table.to_dict("records"))
    else:
        _print_table(table)


def write_report(parsed: argparse.Namespace) -> None:
    """Write the report of the stored results."""
    from soupcore.calls import Context
    from soupcore.new_files import new_file
    from soupcore.plan import Analysis
    from soupcore.report import archive, report
    from soupcore.store import Store

    if parsed.output.is_dir() or not parsed.output.absolute().parent.is_dir():
        parsed.error(f"argument --output: {parsed.output} is no file in an existing folder")
    if parsed.task is None and (parsed.analyze or parsed.soup or parsed.metric):
        parsed.error("--analyze, --soup and --metric need evaluations: name a --task")
    sweep = _sweep(parsed)
    source: Evaluations | Store = Store()
    if parsed.analyze:
        source = _evaluator(parsed)
    elif parsed.task is not None:
        source = Evaluations(load_task(parsed.task)).with_primary(parsed.metric)
    # Jobs of the dashboard store soups under the absolute path of the folder.
    context = Context(sweep, source, str(parsed.folder.resolve()), parsed.task or "")
    if parsed.analyze:
        Analysis().work(context, _reporting_steps())
    is_folder = parsed.output.suffix.lower() == ".zip"
    content = archive(context, parsed.soup) if is_folder else report(context, parsed.soup).encode()
    with new_file(parsed.output) as file:
        file.write(content)
    print(f"wrote {parsed.output}")


def _reporting_steps() -> "Report":
    """Return a function that reports the steps of the analysis on standard error."""
    reported: set[str] = set()

    def report(done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
        for step in (partial or {}).get("steps", []):
            if step["state"] == "running" and step["title"] not in reported:
                reported.add(step["title"])
                print(f"stockpot: {step['title']}", file=sys.stderr)

    return report


def work(parsed: argparse.Namespace) -> None:
    """Run jobs until the process receives SIGINT or SIGTERM. Unfinished jobs can be resumed."""
    from soupcore.jobs import Supervisor
    from soupcore.store import Store

    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    store = Store(url=parsed.database)
    devices = parsed.device or ["auto"]
    supervisor = Supervisor(store, parsed.task, devices, parsed.root, ray=parsed.ray)
    try:
        supervisor.start()
        print(f"Waiting for jobs in {store.folder}. Ctrl-C stops this worker.", flush=True)
        stopped.wait()
    finally:
        supervisor.stop()
        store.close()


def _sweep(parsed: argparse.Namespace) -> Sweep:
    """Open the sweep, and report excluded checkpoints on standard error."""
    try:
        sweep = Sweep.from_folder(
            parsed.folder,
            base=parsed.base,
            weights=parsed.weights,
            snapshot=_snapshots(parsed.snapshot),
            refresh=parsed.refresh,
        )
    except UnusableSweepError as error:
        _print_excluded(error.fit)
        raise
    _print_excluded(sweep.fit)
    return sweep


def _print_excluded(fit: FitReport) -> None:
    for finding in fit.findings:
        if finding.severity == "misfit":
            tensor = f"tensor {finding.tensor!r} " if finding.tensor else ""
            problem = f"{tensor}{finding.problem.rstrip('.')}. {finding.way_out}".rstrip()
            print(f"stockpot: excluded {finding.ingredient}: {problem}", file=sys.stderr)


def _evaluator(parsed: argparse.Namespace) -> Evaluator:
    task = load_task(parsed.task)
    return Evaluator(task, device=parsed.device, ray=parsed.ray).with_primary(parsed.metric)


def _snapshots(texts: Sequence[str]) -> Snapshots:
    """Return the choice of snapshots from options such as "last" and "run=epoch 3"."""
    pairs = [text.rpartition("=") for text in texts]
    return {run or "*": snapshot for run, _, snapshot in pairs}


def _print_table(table: "pd.DataFrame") -> None:
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))


def _print_json(found: Any) -> None:
    print(json.dumps(_plain(found), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    """Return JSON with null in place of NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
