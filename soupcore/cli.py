"""The command `stockpot`: the dashboard, and the same results without a browser.

Results go to standard output, as tables or as JSON. Progress and errors go to standard error. The
exit code is 0, 1 after an error that its sentence explains, 2 for a command line that makes no
sense, and 130 after Ctrl-C. The dashboard replaces this process, so its exit code is Streamlit's.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from soupcore.errors import RemoteError, StockpotError, TaskError
from soupcore.task_spec import TaskSpec
from soupcore.version import VERSION

if TYPE_CHECKING:
    import pandas as pd

    from soupcore.calls import Report
    from soupcore.evaluation import Evaluation, Evaluator
    from soupcore.recipes.spec import Parameter, Recipe
    from soupcore.sweeps import FitReport, Sweep
    from soupcore.sweeps.snapshots import Snapshots
    from soupcore.tasks import TaskInfo

_SPEC = "TASK"
_TASK_FORMS = (
    "FILE.py:NAME, whose file is run; hf:FILE.toml; imagefolder:FILE.toml; ultralytics:FILE; or "
    "command:FILE.toml, which is run"
)
_URLS = "URLs: hf://org/repo@revision, s3://bucket/path, also as NAME=URL and with wildcards"
_TASK_HELP = f"the task: {_TASK_FORMS}"


def _cluster(text: str) -> str:
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; write it before --ray")
    return text


_RAY: dict[str, Any] = {
    "type": _cluster,
    "nargs": "?",
    "const": "local",
    "metavar": "ADDRESS",
    "help": "evaluate on a Ray cluster at this address, or on one that is started on this machine; "
    "see soupcore.evaluation.cluster",
}
_SWITCHES = {"true": True, "false": False}
_COMMANDS = """
without a browser:
  stockpot soup FOLDER       build a soup, evaluate it and write its weights
  stockpot evaluate FOLDER   evaluate checkpoints
  stockpot barriers FOLDER   evaluate the lines between checkpoints
  stockpot report FOLDER     write a report of the stored results, as HTML
  stockpot worker            run jobs of a shared workspace on this machine
Each of them has its own --help. FOLDER may also be URLs, such as hf://org/repo. A folder with one
of these names is opened as ./NAME.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        arguments: The command line without the name of the program; by default, `sys.argv`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["worker"]:
            _work(given[1:])
            return 0
        if not given or given[0] not in _RUN:
            _open_dashboard(given)
        _without_browser(given)
        sys.stdout.flush()
        return 0
    except StockpotError as error:
        print(f"stockpot: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stockpot: interrupted; finished evaluations are stored", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def parse_dashboard(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of the dashboard; exits with a message if they make no sense."""
    parser = argparse.ArgumentParser(
        prog="stockpot",
        description="Open the dashboard, on a sweep or on the bundled sample.",
        epilog=_COMMANDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    several: Any = {"action": "append", "default": []}
    parser.add_argument(
        "folder", nargs="*", type=_place, help=f"the folder of the sweep to open, or {_URLS}"
    )
    parser.add_argument(
        "--task",
        type=_task,
        metavar=_SPEC,
        help=f"task to offer: {_TASK_FORMS}",
        **several,
    )
    parser.add_argument(
        "--root",
        type=_folder,
        help="a folder that contains sweeps; the dashboard opens on the first",
        **several,
    )
    parser.add_argument("--port", type=int, help="port to listen on; 8501 or the next free one")
    parser.add_argument("--address", help="address to listen on, with a token (127.0.0.1)")
    parser.add_argument("--host", help="an additional host name of the server", **several)
    parser.add_argument(
        "--origin",
        help="https://NAME of the pages, behind a proxy that changes the Host header",
        **several,
    )
    parser.add_argument(
        "--token",
        action="store_true",
        help="require a token on 127.0.0.1 too, for machines with several users. $STOCKPOT_TOKEN "
        "sets it; otherwise each start generates one",
    )
    parser.add_argument(
        "--uploads-total", type=float, default=8, metavar="GB", help="limit of all uploads (8)"
    )
    parser.add_argument(
        "--uploads-session", type=float, default=2, metavar="GB", help="limit per session (2)"
    )
    parser.add_argument(
        "--device", help="cpu, cuda, cuda:1, mps or auto; one worker for each", **several
    )
    parser.add_argument(
        "--auto",
        type=float,
        default=10,
        metavar="SECONDS",
        help="start jobs that are known to take less without a click, on sweeps that were opened "
        "by a click or on this command line (10); 0 to always ask",
    )
    parser.add_argument("--ray", **_RAY)
    parser.add_argument(
        "--database",
        default=os.environ.get("STOCKPOT_DATABASE"),
        help="URL of a shared PostgreSQL; $STOCKPOT_DATABASE keeps its password out of the "
        "process list",
    )
    parser.add_argument("--version", action="version", version=f"stockpot {VERSION}")
    parsed = parser.parse_args(arguments)
    _split_places(parsed, parser.error)
    return parsed


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder")
    return Path(text)


def _place(text: str) -> Path | str:
    from soupcore.remote import check_url, is_url

    if not is_url(text):
        return _folder(text)
    try:
        check_url(text)
    except RemoteError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _repo(text: str) -> str:
    from soupcore.provenance import check_repo

    try:
        check_repo(text)
    except RemoteError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _split_places(parsed: argparse.Namespace, error: Callable[[str], NoReturn]) -> None:
    """Replace the places on a command line by `folder`, which may be None, and `urls`."""
    folders = [place for place in parsed.folder if isinstance(place, Path)]
    parsed.urls = [place for place in parsed.folder if not isinstance(place, Path)]
    if len(folders) + bool(parsed.urls) > 1:
        error("name one folder, or URLs, but not both")
    parsed.folder = next(iter(folders), None)


def _task(text: str) -> str:
    try:
        return str(TaskSpec.parse(text).resolved)
    except TaskError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _alphas(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} must be an integer >= 2")
    return int(text)


def _open_dashboard(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by the server, which reads the same arguments."""
    parsed = parse_dashboard(arguments)
    if parsed.address:  # Streamlit binds its socket before the app reads its arguments
        os.environ["STREAMLIT_SERVER_ADDRESS"] = parsed.address
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait leave pages the cores
    port = [] if parsed.port is None else [f"--server.port={parsed.port}"]
    # -P: modules in the folder that the command was called in stand for no others.
    command = [sys.executable, "-P", "-m", "streamlit", "run", str(_app()), *port, "--", *arguments]
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606 - our own app with the user's arguments


def _app() -> Path:
    """Return the dashboard's script: in the package `stockpot` of an installation, or a checkout.

    Raises:
        StockpotError: There is none.
    """
    beside = Path(__file__).parents[1]
    for folder in (beside / "stockpot", beside):
        if (folder / "app.py").is_file() and (folder / "pages").is_dir():
            return folder / "app.py"
    raise StockpotError(f"The dashboard is missing beside {beside}. Install stockpot again.")


def _work(arguments: Sequence[str]) -> None:
    from soupcore.jobs import serve

    parsed = serve.parser(_folder, _task, _RAY).parse_args(arguments)
    serve.serve(parsed.task, parsed.device or ["auto"], parsed.root, parsed.database, parsed.ray)


def _without_browser(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="stockpot")
    commands = parser.add_subparsers(required=True)
    for name, (run, add_options, description) in _RUN.items():
        command = commands.add_parser(name, help=description, description=description)
        command.add_argument(
            "folder", nargs="+", type=_place, help=f"the folder of the sweep, or {_URLS}"
        )
        command.add_argument(
            "--refresh", action="store_true", help="use what the URLs name now, not at first"
        )
        command.add_argument("--base", help="ingredient that is the shared initialisation (base)")
        command.add_argument(
            "--weights", default="", help="weight set to open in files that have several"
        )
        command.add_argument(
            "--snapshot",
            action="append",
            default=[],
            metavar="[RUN=]SNAPSHOT",
            help="snapshot to open of all runs that have several, or of one run: best, last, "
            "final, 'epoch 3', every (the one that its tool prefers)",
        )
        command.add_argument(
            "--metric", metavar="NAME", help="metric of the task to rank and choose by (its first)"
        )
        command.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps or auto")
        command.add_argument("--ray", **_RAY)
        add_options(command)
        command.set_defaults(run=run, error=command.error)
    parsed = parser.parse_args(arguments)
    _split_places(parsed, parsed.error)
    if parsed.urls:
        from soupcore.sweeps.remote import RemoteSweep

        parsed.folder = RemoteSweep.of(parsed.urls).folder
    parsed.run(parsed)


def _printing_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ingredients", metavar="A,B", help="ingredients to use (all)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _soup_options(parser: argparse.ArgumentParser) -> None:
    _printing_options(parser)
    parser.add_argument("--recipe", required=True, help="name of the recipe, such as greedy")
    parser.add_argument(
        "--parameter",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="parameter of the recipe, by its name or symbol, such as λ=0.5",
    )
    parser.add_argument(
        "--tensors",
        default="all",
        metavar="WHICH",
        help="tensors that take part: all, 'all but the head', 'all but the embeddings', or a "
        "pattern such as 'backbone., !*.bias' (all)",
    )
    parser.add_argument(
        "--rest",
        default="",
        metavar="A,B",
        help="ingredients whose mean the other tensors come from (all)",
    )
    parser.add_argument("--task", type=_task, metavar=_SPEC, help=_TASK_HELP)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="file for the weights, or a folder for from_pretrained (a path without a suffix)",
    )
    parser.add_argument(
        "--push",
        type=_repo,
        metavar="ORG/NAME",
        help="upload the weights and their card to this repository of the Hugging Face Hub, with "
        "your token; a new one is private",
    )
    parser.add_argument(
        "--public", action="store_true", help="make a new repository of --push public"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16"), help="dtype of a .safetensors"
    )
    parser.add_argument(
        "--adapter",
        action="store_true",
        help="write a soup of LoRA adapters as one PEFT adapter, into the folder --output",
    )
    parser.add_argument(
        "--rank",
        type=int,
        help="largest rank of the adapter's changes, by a truncated SVD (the sum of the ranks, "
        "which is exact)",
    )


def _evaluate_options(parser: argparse.ArgumentParser) -> None:
    _printing_options(parser)
    parser.add_argument("--task", type=_task, metavar=_SPEC, required=True, help=_TASK_HELP)
    parser.add_argument(
        "--split", action="append", help="split to evaluate on (all but the train split)"
    )


def _barriers_options(parser: argparse.ArgumentParser) -> None:
    _printing_options(parser)
    parser.add_argument("--task", type=_task, metavar=_SPEC, required=True, help=_TASK_HELP)
    parser.add_argument("--split", help="split to evaluate on (the select split)")
    parser.add_argument(
        "--alphas", type=_alphas, help="number of evenly spaced α values (as many as needed)"
    )


def _report_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--task", type=_task, metavar=_SPEC, help=f"{_TASK_HELP}; without one, no verdict"
    )
    parser.add_argument(
        "--analyze",
        action="store_true",
        help="first evaluate checkpoints, screen the lines between them and build soups, as the "
        "Overview page does; only what is not stored yet",
    )
    parser.add_argument(
        "--soup", metavar="ID", help="soup of the evidence (the soup of the verdict)"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="file for the HTML; a .zip also has the tables as CSV and LaTeX, the Python, and the "
        "recipe and model card of the soup",
    )


def _soup(parsed: argparse.Namespace) -> None:
    from soupcore.checkpoints.recognition import TORCH_SUFFIXES, suffix_of
    from soupcore.provenance import push_to_hub, save_adapter
    from soupcore.recipes import RECIPES

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
    sweep = _sweep(parsed).with_tensors(parsed.tensors, _listed(parsed.rest))
    if parsed.task is None:
        soup = recipe.function(sweep, _names(parsed), **checked)
    else:
        evaluator = _evaluator(parsed)
        soup = recipe.follow(sweep, evaluator, _names(parsed), **checked).evaluate(evaluator)
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
    recipe: "Recipe", text: str, error: Callable[[str], NoReturn]
) -> tuple[str, bool | int | float | str]:
    """Return the name and the value that "NAME=VALUE" gives to a parameter of a recipe."""
    given, is_given, value = text.partition("=")
    known = {parameter.name: parameter for parameter in recipe.parameters}
    symbols = {parameter.label.split()[-1].lower(): parameter for parameter in recipe.parameters}
    parameter = known.get(given) or symbols.get(given.lower())
    if parameter is None or not is_given:
        error(f"argument --parameter: {text!r} is no NAME=VALUE with one of {', '.join(known)}")
    try:
        return parameter.name, _value(parameter, value)
    except ValueError:
        kind = type(parameter.default).__name__
        error(f"argument --parameter: {text!r} needs a value of the type {kind}")


def _value(parameter: "Parameter", text: str) -> bool | int | float | str:
    if isinstance(parameter.default, bool):
        if text.lower() not in _SWITCHES:
            raise ValueError(text)
        return _SWITCHES[text.lower()]
    if isinstance(parameter.default, int | float):
        return type(parameter.default)(text)
    return text


def _evaluate(parsed: argparse.Namespace) -> None:
    sweep, evaluator = _sweep(parsed), _evaluator(parsed)
    splits = parsed.split or evaluator.task.reported
    points = {name: sweep[name].mixture for name in sweep.names(_names(parsed))}
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


def _row(name: str, found: "Evaluation", task: "TaskInfo[Any]") -> dict[str, Any]:
    """Return an evaluation in JSON, with values of the metrics as they are defined."""
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


def _barriers(parsed: argparse.Namespace) -> None:
    from soupcore.connectivity import barriers
    from soupcore.connectivity.adaptive import ADAPTIVE

    sweep, evaluator = _sweep(parsed), _evaluator(parsed)
    alphas = ADAPTIVE if parsed.alphas is None else parsed.alphas
    table = barriers(sweep, evaluator, _names(parsed), alphas, split=parsed.split).to_frame()
    if parsed.json:
        _print_json(table.to_dict("records"))
    else:
        _print_table(table)


def _report(parsed: argparse.Namespace) -> None:
    from soupcore.analyze import Analysis
    from soupcore.calls import Context
    from soupcore.evaluation import Evaluations
    from soupcore.new_files import new_file
    from soupcore.report import archive, report
    from soupcore.store import Store
    from soupcore.tasks import load_task

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


def _sweep(parsed: argparse.Namespace) -> "Sweep":
    """Open the sweep, and say on standard error which checkpoints are excluded."""
    from soupcore.sweeps import Sweep, UnusableSweepError

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


def _print_excluded(fit: "FitReport") -> None:
    for finding in fit.findings:
        if finding.severity == "misfit":
            tensor = f"tensor {finding.tensor!r} " if finding.tensor else ""
            problem = f"{tensor}{finding.problem.rstrip('.')}. {finding.way_out}".rstrip()
            print(f"stockpot: excluded {finding.ingredient}: {problem}", file=sys.stderr)


def _evaluator(parsed: argparse.Namespace) -> "Evaluator":
    from soupcore.evaluation import Evaluator
    from soupcore.tasks import load_task

    task = load_task(parsed.task)
    return Evaluator(task, device=parsed.device, ray=parsed.ray).with_primary(parsed.metric)


def _snapshots(texts: Sequence[str]) -> "Snapshots":
    """Return the choice of snapshots that options such as "last" and "run=epoch 3" make."""
    pairs = [text.rpartition("=") for text in texts]
    return {run or "*": snapshot for run, _, snapshot in pairs}


def _listed(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _names(parsed: argparse.Namespace) -> list[str] | None:
    return None if parsed.ingredients is None else parsed.ingredients.split(",")


def _print_table(table: "pd.DataFrame") -> None:
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))


def _print_json(found: Any) -> None:
    print(json.dumps(_plain(found), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    """Return JSON with null in place of numbers that it cannot have: NaN and infinities."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


_RUN = {
    "soup": (_soup, _soup_options, "Build a soup, evaluate it and write its weights."),
    "evaluate": (_evaluate, _evaluate_options, "Evaluate the checkpoints of a sweep."),
    "barriers": (_barriers, _barriers_options, "Evaluate the lines between checkpoints."),
    "report": (_report, _report_options, "Write a report of the stored results, as HTML."),
}

if __name__ == "__main__":
    sys.exit(main())
