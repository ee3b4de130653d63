"""The command `stockpot`: the dashboard, and the same results without a browser.

This module parses the command line, and `soupcore.commands` runs the commands. The exit code is 0,
1 for an error, 2 for a wrong command line, and 130 after Ctrl-C. The dashboard replaces this
process, so its exit code is Streamlit's.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from soupcore.errors import RemoteError, StockpotError, TaskError
from soupcore.task_spec import TaskSpec
from soupcore.version import VERSION

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
_WORKER = """
Run jobs of a shared workspace on this machine, beside the dashboard and other workers. All of them
share the database, the workspace folder ($STOCKPOT_WORKSPACE), the checkpoints and the task files,
each under the same path on all machines. The points of a job are shared between all workers of its
task. If a worker is lost, the others compute its points.
"""
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
        if not given or given[0] not in _OPTIONS:
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
    """Return the options of the dashboard; exits with a message if they are wrong."""
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


# Functions for `type=` of an argument.


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


def _task(text: str) -> str:
    try:
        return str(TaskSpec.parse(text).resolved)
    except TaskError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name for part in text.split(",") if (name := part.strip()))
    if not names:
        raise argparse.ArgumentTypeError("name at least one ingredient")
    return names


def _alphas(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} must be an integer >= 2")
    return int(text)


def _split_places(parsed: argparse.Namespace, error: Callable[[str], NoReturn]) -> None:
    """Replace the places on a command line by `folder`, which may be None, and `urls`."""
    folders = [place for place in parsed.folder if isinstance(place, Path)]
    parsed.urls = [place for place in parsed.folder if not isinstance(place, Path)]
    if len(folders) + bool(parsed.urls) > 1:
        error("name one folder, or URLs, but not both")
    parsed.folder = next(iter(folders), None)


def _open_dashboard(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by the server, which reads the same arguments."""
    parsed = parse_dashboard(arguments)
    if parsed.address:  # Streamlit binds its socket before the app reads its arguments
        os.environ["STREAMLIT_SERVER_ADDRESS"] = parsed.address
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # waiting threads release the cores
    port = [] if parsed.port is None else [f"--server.port={parsed.port}"]
    # -P: no modules are imported from the working directory.
    command = [sys.executable, "-P", "-m", "streamlit", "run", str(_app()), *port, "--", *arguments]
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606 - our own app with the user's arguments


def _app() -> Path:
    """Return the dashboard's script, in the package `stockpot` or in a checkout.

    Raises:
        StockpotError: There is none.
    """
    beside = Path(__file__).parents[1]
    for folder in (beside / "stockpot", beside):
        if (folder / "app.py").is_file() and (folder / "pages").is_dir():
            return folder / "app.py"
    raise StockpotError(f"The dashboard is missing beside {beside}. Install stockpot again.")


def _work(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="stockpot worker", description=_WORKER)
    parser.add_argument(
        "--task",
        type=_task,
        action="append",
        required=True,
        help="task whose jobs it runs, as for the dashboard",
    )
    parser.add_argument(
        "--device",
        action="append",
        help="cpu, cuda, cuda:1, mps or auto; one worker for each (auto)",
    )
    parser.add_argument("--ray", **_RAY)
    parser.add_argument(
        "--root",
        type=_folder,
        action="append",
        default=[],
        help="folder that contains sweeps (any)",
    )
    parser.add_argument(
        "--database",
        default=os.environ.get("STOCKPOT_DATABASE"),
        help="URL of the shared PostgreSQL; $STOCKPOT_DATABASE keeps its password out of the "
        "process list (the SQLite file of the workspace)",
    )
    parsed = parser.parse_args(arguments)
    from soupcore import commands  # loads torch

    commands.work(parsed)


def _without_browser(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="stockpot")
    subparsers = parser.add_subparsers(required=True)
    for name, (add_options, description) in _OPTIONS.items():
        command = subparsers.add_parser(name, help=description, description=description)
        command.add_argument(
            "folder", nargs="+", type=_place, help=f"the folder of the sweep, or {_URLS}"
        )
        command.add_argument(
            "--refresh", action="store_true", help="resolve the URLs again, and use current files"
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
        command.set_defaults(name=name, error=command.error)
    parsed = parser.parse_args(arguments)
    _split_places(parsed, parsed.error)
    if parsed.urls:
        from soupcore.sweeps.remote import RemoteSweep

        parsed.folder = RemoteSweep.of(parsed.urls).folder
    from soupcore import commands  # loads torch

    run = {
        "soup": commands.build_soup,
        "evaluate": commands.evaluate,
        "barriers": commands.evaluate_lines,
        "report": commands.write_report,
    }
    run[parsed.name](parsed)


def _printing_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ingredients", type=_names, metavar="A,B", help="ingredients to use (all)"
    )
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
        type=_names,
        default=(),
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


_OPTIONS = {
    "soup": (_soup_options, "Build a soup, evaluate it and write its weights."),
    "evaluate": (_evaluate_options, "Evaluate the checkpoints of a sweep."),
    "barriers": (_barriers_options, "Evaluate the lines between checkpoints."),
    "report": (_report_options, "Write a report of the stored results, as HTML."),
}

if __name__ == "__main__":
    sys.exit(main())
