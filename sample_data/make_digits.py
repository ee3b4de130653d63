"""Make the bundled sample (data, a pre-trained base, a fine-tuning sweep) and check its effects.

    python -m sample_data.make_digits        (`make sample`)

1. write the splits of the cluttered digits;
2. pre-train a base on another task, fit a linear head for the digits on its frozen features;
3. fine-tune that one base fourteen times, and train one network, the stranger, from scratch;
4. measure the effects that Wortsman et al. 2022 (arXiv:2203.05482) found for such sweeps, and fail
   unless all of them occur. To fix a failure, change the design and never the checks.
"""

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional

from sample_data.digits_data import SIDE, digit_splits, upstream_images, window_index

if TYPE_CHECKING:
    from sample_data.digits.task import DigitNet

HERE = Path(__file__).parent / "digits"
SEED = 0
SHIFTS = ("noise", "blur", "translation", "contrast", "occlusion")
BATCH = 50  # divides both training sets

Weights = dict[str, Tensor]
Examples = tuple[Tensor, Tensor]  # images [n, 1, 16, 16], labels [n]


@dataclass(frozen=True)
class Run:
    """One training run: a line of sweep.jsonl."""

    checkpoint: str
    init: str  # "base", or "scratch" for the stranger
    learning_rate: float
    epochs: int
    augmentation: str  # steps joined by +, see `augment`
    mixup: float  # both parameters of the Beta distribution; 0: off
    label_smoothing: float
    seed: int

    @property
    def sensible(self) -> bool:
        """Whether an expert would keep the run before seeing any accuracy."""
        return self.init == "base" and self.learning_rate <= 0.02


def sweep() -> list[Run]:
    """Return the hyperparameters of the runs; two learning rates are far too high."""
    grid: list[tuple[float, int, str, float, float]] = [
        (0.004, 60, "affine+noise", 0.0, 0.0),
        (0.006, 60, "affine+noise+clutter", 0.0, 0.1),
        (0.006, 60, "none", 0.0, 0.0),
        (0.006, 60, "affine+noise+clutter", 0.0, 0.0),
        (0.006, 100, "affine+clutter+contrast", 0.0, 0.0),
        (0.006, 40, "affine+noise", 0.2, 0.0),
        (0.010, 60, "affine+noise+clutter", 0.0, 0.0),
        (0.010, 60, "affine+clutter+contrast", 0.0, 0.1),
        (0.010, 100, "affine+noise", 0.0, 0.0),
        (0.015, 60, "affine+noise+clutter", 0.0, 0.0),
        (0.015, 100, "affine+clutter+contrast", 0.0, 0.0),
        (0.015, 60, "affine+noise", 0.0, 0.1),
        (0.050, 60, "affine+noise+clutter", 0.0, 0.0),
        (0.200, 60, "affine+noise", 0.0, 0.1),
    ]
    runs = [
        Run(f"run-{i:02}.safetensors", "base", *row, seed=i) for i, row in enumerate(grid, start=1)
    ]
    stranger = Run("stranger.safetensors", "scratch", 0.003, 40, "affine+noise", 0.0, 0.0, seed=15)
    return [*runs, stranger]


# Training


def pretrain(features: nn.Module, images: Tensor, lit: Tensor) -> None:
    """Train the features on seven-segment displays; the head for this is discarded."""
    reader = nn.Sequential(features, nn.Linear(256, 7))
    epochs = 10
    optimizer = torch.optim.AdamW(reader.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=epochs * (len(images) // BATCH)
    )
    for _ in range(epochs):
        for pick in torch.randperm(len(images)).reshape(-1, BATCH):
            loss = functional.binary_cross_entropy_with_logits(reader(images[pick]), lit[pick])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()


def probe(model: "DigitNet", train: Examples) -> None:
    """Fit the head on frozen features.

    All runs start from this head. With separately initialised heads, they could not be averaged.
    """
    with torch.no_grad():
        features = model.features(train[0])
    fit = LogisticRegression(C=0.03, max_iter=1000).fit(features.numpy(), train[1].numpy())
    model.head.weight.data = torch.tensor(fit.coef_, dtype=torch.float32).contiguous()
    model.head.bias.data = torch.tensor(fit.intercept_, dtype=torch.float32)


def fine_tune(model: "DigitNet", train: Examples, run: Run) -> None:
    """Train all weights at a constant learning rate.

    Without decay, each run stops at a noisy point near the bottom of a shared basin. Averaging
    removes this noise.
    """
    torch.manual_seed(run.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.learning_rate)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.05, total_iters=20)
    for _ in range(run.epochs):
        for pick in torch.randperm(len(train[0])).reshape(-1, BATCH):
            images, labels = augment(train[0][pick], run.augmentation), train[1][pick]
            other = torch.randperm(len(pick))
            kept = mixing_share(run.mixup)
            logits = model(kept * images + (1 - kept) * images[other])
            loss = kept * functional.cross_entropy(
                logits, labels, label_smoothing=run.label_smoothing
            )
            loss += (1 - kept) * functional.cross_entropy(
                logits, labels[other], label_smoothing=run.label_smoothing
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            warm_up.step()


def mixing_share(mixup: float) -> float:
    """Draw the mixup coefficients of a batch."""
    return torch.distributions.Beta(mixup, mixup).sample().item() if mixup else 1.0


def augment(images: Tensor, steps: str) -> Tensor:
    """Apply the named steps, in this order: affine, clutter, contrast, noise."""
    n = len(images)
    if "affine" in steps:
        move = torch.eye(2, 3) + torch.randn(n, 2, 3) * torch.tensor([0.11, 0.11, 0.14])
        grid = functional.affine_grid(move, [n, 1, SIDE, SIDE], align_corners=False)
        images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if "clutter" in steps:  # a 6 x 6 scrap of another training image
        donors = images[torch.randperm(n)].roll(int(torch.randint(SIDE, ())), dims=-1)
        view = window_index(torch.randint(0, SIDE - 5, (n, 2)), 6)
        images = images.clone()
        images[view] = torch.maximum(images[view], donors[view])
    if "contrast" in steps:
        images = 0.3 + (images - 0.3) * (0.6 + 0.8 * torch.rand(n, 1, 1, 1))
    if "noise" in steps:
        images = images + 0.15 * torch.randn_like(images)
    return images


# Measuring


class Scorer:
    """Loss and accuracy of weights on the splits, computed in one reused network."""

    def __init__(self, model: nn.Module, splits: dict[str, Examples]) -> None:
        self.model = model
        self.splits = splits

    @torch.no_grad()
    def measure(self, weights: Weights, split: str) -> tuple[float, float]:
        """Mean cross-entropy in nats, and accuracy in percent."""
        images, labels = self.splits[split]
        self.model.load_state_dict(weights)
        logits = self.model(images)
        correct = int((logits.argmax(dim=1) == labels).sum())
        return functional.cross_entropy(logits, labels).item(), 100 * correct / len(labels)

    def accuracy(self, weights: Weights, split: str) -> float:
        """Accuracy in percent."""
        return self.measure(weights, split)[1]

    def scores(self, weights: Weights) -> tuple[float, float, float]:
        """Accuracy on select and report, and the mean over the five shifts."""
        shifts = [self.accuracy(weights, f"shift-{shift}") for shift in SHIFTS]
        return (
            self.accuracy(weights, "select"),
            self.accuracy(weights, "report"),
            sum(shifts) / len(shifts),
        )

    def barrier(self, a: Weights, b: Weights) -> float:
        """Maximum rise of the loss above the chord, over 11 points of the line."""
        losses = []
        for step in range(11):
            point = mix([a, b], [1 - step / 10, step / 10])
            losses.append(self.measure(point, "select")[0])
        chord = [losses[0] + step / 10 * (losses[-1] - losses[0]) for step in range(11)]
        return max(loss - level for loss, level in zip(losses, chord, strict=True))


def mix(models: Sequence[Weights], shares: Sequence[float] | None = None) -> Weights:
    """Return the weighted mean, computed in float64; by default, with equal weights."""
    shares = shares or [1] * len(models)
    mixed = {}
    for name in models[0]:
        parts = [model[name].double() * share for model, share in zip(models, shares, strict=True)]
        mixed[name] = (torch.stack(parts).sum(dim=0) / sum(shares)).float()
    return mixed


def greedy(models: dict[str, Weights], scorer: Scorer) -> list[str]:
    """Return the greedy soup of the paper's Recipe 1."""
    single = {name: scorer.accuracy(weights, "select") for name, weights in models.items()}
    order = sorted(models, key=lambda name: -single[name])
    accepted, best = order[:1], single[order[0]]
    for name in order[1:]:
        score = scorer.accuracy(mix([models[kept] for kept in [*accepted, name]]), "select")
        if score >= best:
            accepted, best = [*accepted, name], score
    return accepted


def report(scorer: Scorer, base: Weights, models: dict[str, Weights], runs: list[Run]) -> bool:
    """Print all scores and the effects that the sample demonstrates; return whether all hold."""
    scores = {run.checkpoint: scorer.scores(models[run.checkpoint]) for run in runs}
    print(f"\n{'':24} {'select':>7} {'report':>7} {'shifts':>7}   hyperparameters")
    for run in runs:
        print(row(run.checkpoint, scores[run.checkpoint]), end="   ")
        print(f"lr {run.learning_rate:<5} {run.epochs:>3} epochs  {run.augmentation}", end="")
        print(f"  mixup {run.mixup}" if run.mixup else "", end="")
        print(f"  smoothing {run.label_smoothing}" if run.label_smoothing else "")

    sensible = [run.checkpoint for run in runs if run.sensible]
    best = max(scores, key=lambda name: scores[name][0])
    accepted = greedy(models, scorer)
    of_base = scorer.scores(base)
    of_best = scores[best]
    of_all = scorer.scores(mix(list(models.values())))
    of_sensible = scorer.scores(mix([models[name] for name in sensible]))
    of_greedy = scorer.scores(mix([models[name] for name in accepted]))
    print()
    print(row("base", of_base))
    print(row("best ingredient", of_best), f"  {best}")
    print(row("uniform, all", of_all), f"  {len(models)} ingredients")
    print(row("uniform, sensible", of_sensible), f"  {len(sensible)} ingredients")
    print(row("greedy", of_greedy), f"  {', '.join(Path(name).stem for name in accepted)}")

    mean = sum(scores[name][0] for name in sensible) / len(sensible)
    apart = min(scorer.barrier(models["stranger.safetensors"], models[name]) for name in sensible)
    close = max(scorer.barrier(models[a], models[b]) for a, b in combinations(sensible, 2))
    effects = [  # name, value, and the bounds of the value
        ("accuracy of the best ingredient on select", of_best[0], 78, 97),
        ("greedy minus best on select", of_greedy[0] - of_best[0], 0.5, 100),
        ("greedy minus best on report", of_greedy[1] - of_best[1], 0, 100),
        ("ingredients greedy accepted", len(accepted), 3, len(models)),
        ("uniform of all minus best on select", of_all[0] - of_best[0], -100, -0.5),
        ("uniform of sensible minus their mean on select", of_sensible[0] - mean, 1, 100),
        ("least barrier, stranger to sensible (nats)", apart, 0.5, math.inf),
        ("greatest barrier between sensible (nats)", close, 0, 0.05),
    ]
    print()
    for effect, value, low, high in effects:
        verdict = "holds" if low <= value <= high else "FAILS"
        print(f"{verdict}  {effect:48} {value:8.3f}   expected {low} to {high}")
    return all(low <= value <= high for _, value, low, high in effects)


def row(name: str, scores: tuple[float, float, float]) -> str:
    """Return a line of the table."""
    return f"{name:24} " + " ".join(f"{score:7.2f}" for score in scores)


def main() -> None:
    """Make the sample, write it to `digits/`, and check its effects."""
    started = time.perf_counter()
    torch.set_num_threads(1)  # for the same bytes on any number of cores
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)

    (HERE / "data").mkdir(parents=True, exist_ok=True)
    (HERE / "sweep").mkdir(parents=True, exist_ok=True)
    splits, scraps = digit_splits()
    for name, tensors in splits.items():
        save_file(tensors, HERE / "data" / f"{name}.safetensors")
    examples = {
        name: (tensors["images"].float() / 255, tensors["labels"])
        for name, tensors in splits.items()
    }

    from sample_data.digits.task import DigitNet  # its import reads the data just written

    base = DigitNet()
    pretrain(base.features, *upstream_images(12_000, scraps))
    probe(base, examples["train"])
    save_file(base.state_dict(), HERE / "sweep" / "base.safetensors")
    print(f"data and base ready after {time.perf_counter() - started:.0f} s", flush=True)

    runs = sweep()
    models: dict[str, Weights] = {}
    for run in runs:
        torch.manual_seed(run.seed)
        model = DigitNet()
        if run.init == "base":
            model.load_state_dict(base.state_dict())
        fine_tune(model, examples["train"], run)
        models[run.checkpoint] = model.state_dict()
        save_file(models[run.checkpoint], HERE / "sweep" / run.checkpoint)
        print(f"{run.checkpoint} trained after {time.perf_counter() - started:.0f} s", flush=True)
    lines = [json.dumps(asdict(run)) + "\n" for run in runs]
    (HERE / "sweep" / "sweep.jsonl").write_text("".join(lines))

    holds = report(Scorer(DigitNet(), examples), base.state_dict(), models, runs)
    size = sum(file.stat().st_size for file in HERE.rglob("*.safetensors")) / 1e6
    print(f"\n{size:.1f} MB in {HERE}, made in {time.perf_counter() - started:.0f} s")
    if not holds:
        sys.exit("Some effects do not occur: see the lines marked FAILS above.")


if __name__ == "__main__":
    main()
