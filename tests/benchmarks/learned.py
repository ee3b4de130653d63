"""How fast is a step of a learned soup that streams 16 ingredients of 25 M parameters from files?

The baselines hold all ingredients in memory and mix them with autograd. The network is an MLP with
a small batch, so that mixing and inner products, in which the methods differ, dominate a step. Each
run is a new process; times and memory exclude imports.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.processes import memory_above, run, stopwatch
from tests.benchmarks.table import multiples

if TYPE_CHECKING:  # what measures must not import torch: see `run`
    from torch import Tensor, nn

    from soupcore import Split

RUNS = 3
STEPS = 3  # after a warm-up step
FILES, WIDTH, LAYERS = 16, 2048, 6
EXAMPLES, CLASSES = 64, 10
MIB = 1 << 20


def write_ingredients(folder: str) -> None:
    import torch
    from safetensors.torch import save_file

    import soupcore

    Path(folder).mkdir()
    base = _build().state_dict()
    for seed in range(FILES):
        random = torch.Generator().manual_seed(seed)
        state = {
            name: tensor + 0.01 * torch.randn(tensor.shape, generator=random)
            for name, tensor in base.items()
        }
        path = Path(folder) / f"run-{seed}.safetensors"
        save_file(state, path)
        soupcore.open_checkpoint(path).scan()


def streamed(folder: str, report: str) -> None:
    import numpy as np
    import torch

    import soupcore
    from soupcore.recipes.gradients import Objective

    above = memory_above()
    split = _split()
    task = soupcore.ClassificationTask(_build, {"select": split})
    objective = Objective(
        task,
        "select",
        [soupcore.open_checkpoint(path) for path in sorted(Path(folder).iterdir())],
        {"all": list(_build().state_dict())},
        device=torch.device("cpu"),
        batch_size=EXAMPLES,
        memory_budget=0,
    )
    every = torch.arange(EXAMPLES)

    def step(coefficients: list[float]) -> list[float]:
        found = objective.gradient(np.array([coefficients]), 1.0, every, lambda count: None)
        gradient: list[float] = found.by_coefficients[0].tolist()
        return gradient

    _measure(step, above, report)


def resident(folder: str, report: str) -> None:
    """Mix as the paper's code does (github.com/mlfoundations/model-soups): Σ αᵢθᵢ, term by term."""
    from safetensors.torch import load_file

    above = memory_above()
    states = [load_file(path) for path in sorted(Path(folder).iterdir())]

    def mix(name: str, shares: "Tensor") -> "Tensor":
        first, *others = (state[name] * share for state, share in zip(states, shares, strict=True))
        mixed: Tensor = sum(others, first)
        return mixed

    _measure(_step_of(list(states[0]), mix), above, report)


def stacked(folder: str, report: str) -> None:
    """Mix by one matrix-vector product per tensor."""
    import torch
    from safetensors.torch import load_file

    above = memory_above()
    states = [load_file(path) for path in sorted(Path(folder).iterdir())]
    stacks = {name: torch.stack([state.pop(name) for state in states]) for name in list(states[0])}

    def mix(name: str, shares: "Tensor") -> "Tensor":
        mixed: Tensor = torch.tensordot(shares, stacks[name], 1)
        return mixed

    _measure(_step_of(list(stacks), mix), above, report)


def benchmark(folder: Path) -> list[str]:
    """Measure, with files in the folder, and return the report."""
    ingredients, report = folder / "ingredients", folder / "report.json"
    run(write_ingredients, ingredients, workspace=folder)
    costs: dict[str, dict[str, list[float]]] = {}
    for _ in range(RUNS):
        gradients = []
        for way, function in WAYS.items():
            run(function, ingredients, report, workspace=folder)
            figures = json.loads(report.read_text())
            gradients.append(figures.pop("gradient"))
            for figure, value in figures.items():
                costs.setdefault(figure, {}).setdefault(way, []).append(value)
        _check(*gradients)
    size = f"{FILES} ingredients of {_parameters() / 1e6:.0f} M parameters"
    report_lines = [f"One step of a learned soup, {size}, {EXAMPLES} examples, {RUNS} runs"]
    for figure, goal in GOALS.items():
        report_lines += ["", *multiples(costs[figure], figure, {OURS: goal})]
    limit = f"Three such networks: {12 * _parameters() / MIB:.0f} MiB."
    return [*report_lines, "", f"{limit} Checked: the gradients agree."]


OURS = "streamed from the files"
WAYS: dict[str, Callable[..., None]] = {
    "all resident, the paper's code": resident,
    OURS: streamed,
    "all resident, stacked": stacked,
}
GOALS = {"a step, CPU s": "1.5", "a step, s": "1.5", "memory above imports, MiB": ""}


def _step_of(
    names: list[str], mix: Callable[[str, "Tensor"], "Tensor"]
) -> Callable[[list[float]], list[float]]:
    import torch
    from torch.func import functional_call

    model, split = _build(), _split()

    def step(coefficients: list[float]) -> list[float]:
        shares = torch.tensor(coefficients, requires_grad=True)
        outputs = functional_call(model, {name: mix(name, shares) for name in names}, split.inputs)
        loss = torch.nn.functional.cross_entropy(outputs, split.targets)
        (gradient,) = torch.autograd.grad(loss, shares)
        found: list[float] = gradient.tolist()
        return found

    return step


def _measure(
    step: Callable[[list[float]], list[float]], above: Callable[[], int], report: str
) -> None:
    coefficients = [1 / FILES] * FILES
    for number in range(1 + STEPS):
        if number == 1:
            seconds = stopwatch()
        gradient = step(coefficients)
        mean = sum(gradient) / FILES
        coefficients = [c - 0.01 * (g - mean) for c, g in zip(coefficients, gradient, strict=True)]
    cpu, wall = seconds()
    figures = {
        "a step, CPU s": cpu / STEPS,
        "a step, s": wall / STEPS,
        "memory above imports, MiB": above() / MIB,
        "gradient": [g - gradient[0] for g in gradient],
    }
    Path(report).write_text(json.dumps(figures))


def _check(first: list[float], *others: list[float]) -> None:
    largest = max(map(abs, first))
    for other in others:
        if any(abs(a - b) > 1e-3 * largest for a, b in zip(first, other, strict=True)):
            raise AssertionError(f"the gradients differ: {first} and {other}")


def _build() -> "nn.Module":
    import torch

    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for _ in range(LAYERS):
        layers += [torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(WIDTH, CLASSES))


def _split() -> "Split":
    import torch

    import soupcore

    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(EXAMPLES, WIDTH, generator=random)
    return soupcore.Split("select", inputs, torch.arange(EXAMPLES) % CLASSES)


def _parameters() -> int:
    return LAYERS * (WIDTH * WIDTH + WIDTH) + CLASSES * (WIDTH + 1)
