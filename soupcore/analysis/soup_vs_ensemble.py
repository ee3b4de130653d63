"""A two-model soup against the ensemble of the two, and what the theory says of them.

Wortsman et al. 2022, section 4 and appendix L (arXiv:2203.05482). With θα = (1−α)θ₀ + αθ₁, the soup
answers f(x; θα) and the ensemble (1−α)f(x; θ₀) + αf(x; θ₁). Equation 1 says of their losses

    L_soup − L_ens ≈ ½α(1−α) · ( −d²L_soup/dα² + β² · E_x Var_{Y ∼ softmax(βf(x; θα))} [Δf_Y(x)] ),

Δf = f(x; θ₁) − f(x; θ₀): where the loss is flat along the line and the soup sure of its answers,
the two do equally well. All losses are cross-entropies of logits times β, which is fitted to the
soup. It is a theory of second order: between networks far apart it says little.
"""

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from soupcore.analysis.calibration import fit_temperature
from soupcore.errors import TaskError
from soupcore.evaluation import Evaluator, Progress, no_progress
from soupcore.mixtures import Coefficient, Mixture, as_fraction, interpolate
from soupcore.tasks import ClassificationTask

# Networks of ReLUs bend in steps: a narrower difference sees fewer of them, and more noise.
STEP = Fraction(1, 8)


@dataclass(frozen=True)
class SoupVsEnsemble:
    """What a two-model soup and the ensemble of the two scored, and what was predicted.

    Attributes:
        alpha: Share of the second model.
        split: Which split.
        n: Number of examples in it.
        soup_score: Score of the soup (accuracy, 0 to 1).
        ensemble_score: Score of the ensemble.
        beta: The inverse temperature that makes the soup's loss least, from 0.01 to 100.
        soup_loss: The soup's loss with its logits times β, in nats.
        ensemble_loss: The ensemble's, with the same β.
        curvature: Second derivative of the soup's loss in α, β held, by central differences.
        variance: Mean variance of Δf_Y under the soup's own answers.
    """

    alpha: float
    split: str
    n: int
    soup_score: float
    ensemble_score: float
    beta: float
    soup_loss: float
    ensemble_loss: float
    curvature: float
    variance: float

    @property
    def gap(self) -> float:
        """The soup's loss less the ensemble's: positive where the ensemble is better."""
        return self.soup_loss - self.ensemble_loss

    @property
    def predicted_gap(self) -> float:
        """What equation 1 says of the gap."""
        share = self.alpha * (1 - self.alpha) / 2
        return share * (self.beta**2 * self.variance - self.curvature)


def soup_vs_ensemble(
    evaluator: Evaluator,
    start: Mixture,
    end: Mixture,
    alpha: Coefficient = Fraction(1, 2),
    *,
    split: str | None = None,
    on_progress: Progress = no_progress,
) -> SoupVsEnsemble:
    """Compare a two-model soup with the ensemble, evaluating what is not known.

    Args:
        evaluator: Knows the task, which has to be a classification.
        start: θ₀.
        end: θ₁.
        alpha: Share of θ₁, between 0 and 1.
        split: Which split; the one with the role `select` unless given.
        on_progress: Called with examples done and in all; raise in it to stop.

    Raises:
        TaskError: The task is no classification.
    """
    split = split or evaluator.task.select
    _check(evaluator)
    points = theory_points(start, end, alpha)
    evaluator.evaluate_all(points, split, on_progress=on_progress)
    found = stored_soup_vs_ensemble(evaluator, start, end, alpha, split=split)
    if found is None:
        raise RuntimeError("what was just evaluated is gone from the store")
    return found


def stored_soup_vs_ensemble(
    evaluator: Evaluator,
    start: Mixture,
    end: Mixture,
    alpha: Coefficient = Fraction(1, 2),
    *,
    split: str | None = None,
) -> SoupVsEnsemble | None:
    """Compare what the store knows; None unless it has the outputs of all points it takes.

    Raises:
        TaskError: The task is no classification.
    """
    split = split or evaluator.task.select
    _check(evaluator)
    points = theory_points(start, end, alpha)
    known = [e for e in evaluator.stored(points, split) if e is not None and e.has_outputs]
    if len(known) < len(points):
        return None
    first, before, soup, after, second = (evaluation.outputs.double() for evaluation in known)
    share = float(as_fraction(alpha))
    targets = evaluator.task.split(split).targets.cpu()
    ensemble = (1 - share) * first + share * second
    beta = 1 / fit_temperature(soup, targets)
    here = _loss(soup, targets, beta)
    around = _loss(before, targets, beta) + _loss(after, targets, beta)
    return SoupVsEnsemble(
        alpha=share,
        split=split,
        n=len(targets),
        soup_score=known[2].score,
        ensemble_score=float(evaluator.task.score(ensemble.float(), targets).double().mean()),
        beta=beta,
        soup_loss=here,
        ensemble_loss=_loss(ensemble, targets, beta),
        curvature=(around - 2 * here) / float(STEP) ** 2,
        variance=_variance(beta * soup, second - first),
    )


def theory_points(
    start: Mixture, end: Mixture, alpha: Coefficient = Fraction(1, 2)
) -> list[Mixture]:
    """Return the points whose outputs the theory takes: both ends, the soup, and either side of it.

    Raises:
        ValueError: α is not between 0 and 1.
    """
    share = as_fraction(alpha)
    if not 0 < share < 1:
        raise ValueError(
            f"A soup of two has a share of both, so α lies between 0 and 1, not {alpha}."
        )
    inner = [interpolate(start, end, at) for at in (share - STEP, share, share + STEP)]
    return [start, *inner, end]


def _check(evaluator: Evaluator) -> None:
    if not isinstance(evaluator.task, ClassificationTask):
        raise TaskError(
            f"The theory of soups and ensembles is one of cross-entropies, and the task "
            f"{evaluator.task.name!r} is no ClassificationTask."
        )


def _loss(logits: Tensor, targets: Tensor, beta: float) -> float:
    return float(cross_entropy(beta * logits, targets))


def _variance(logits: Tensor, values: Tensor) -> float:
    """Return the mean over examples of the variance of values under softmax(logits)."""
    chances = torch.softmax(logits, dim=1)  # [n, classes]
    mean = (chances * values).sum(dim=1, keepdim=True)
    return float((chances * (values - mean) ** 2).sum(dim=1).mean())
