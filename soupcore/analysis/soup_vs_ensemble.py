"""Two-model soups compared with two-model ensembles, and the theory of the difference.

Wortsman et al. 2022, section 4 (arXiv:2203.05482). With θα = (1−α)θ₀ + αθ₁, the soup has the
outputs f(x; θα) and the ensemble (1−α)f(x; θ₀) + αf(x; θ₁). Equation 1 relates their losses

    L_soup − L_ens ≈ ½α(1−α) · ( −d²L_soup/dα² + β² · E_x Var_{Y ∼ softmax(βf(x; θα))} [Δf_Y(x)] ),

with Δf = f(x; θ₁) − f(x; θ₀). If the loss is flat along the line and the soup is confident, both do
equally well. All losses are cross-entropies of logits times β, which is fitted to the soup. The
theory is a second-order approximation and is unreliable for distant pairs.
"""

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from soupcore.analysis.calibration import fit_temperature, mean_cross_entropy
from soupcore.analysis.ensemble import score_outputs
from soupcore.errors import TaskError
from soupcore.evaluation import Evaluator
from soupcore.intervals import mean_of
from soupcore.mixtures import Coefficient, Mixture, as_fraction, interpolate
from soupcore.progress import Progress, no_progress, with_bar

# Step of the finite differences. ReLU networks are piecewise linear, so smaller steps cross fewer
# kinks and are noisier.
STEP = Fraction(1, 8)


@dataclass(frozen=True)
class SoupVsEnsemble:
    """Scores and losses of a two-model soup and ensemble, and the terms of equation 1.

    Attributes:
        alpha: Weight of the second model.
        split: Name of the split.
        n: Number of examples in the split.
        soup_score: Accuracy of the soup, 0 to 1.
        ensemble_score: Accuracy of the ensemble, 0 to 1.
        beta: Inverse temperature that minimises the soup's loss, from 0.01 to 100.
        soup_loss: Loss of the soup with logits times β, in nats.
        ensemble_loss: Loss of the ensemble with the same β, in nats.
        curvature: Second derivative of the soup's loss with respect to α at fixed β, by central
            differences.
        variance: Mean variance of Δf_Y under the soup's predicted distribution.
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
        """Loss of the soup minus that of the ensemble; positive if the ensemble is better."""
        return self.soup_loss - self.ensemble_loss

    @property
    def predicted_gap(self) -> float:
        """The gap predicted by equation 1."""
        share = self.alpha * (1 - self.alpha) / 2
        return share * (self.beta**2 * self.variance - self.curvature)


@with_bar("Soup vs. ensemble")
def soup_vs_ensemble(
    evaluator: Evaluator,
    start: Mixture,
    end: Mixture,
    alpha: Coefficient = Fraction(1, 2),
    *,
    split: str | None = None,
    on_progress: Progress = no_progress,
    progress: bool = True,
) -> SoupVsEnsemble:
    """Compare a two-model soup with the two-model ensemble.

    Args:
        evaluator: Computes evaluations that are not stored. Its task must be a classification.
        start: θ₀.
        end: θ₁.
        alpha: Weight of θ₁, between 0 and 1.
        split: Name of the split; by default, the select split.
        on_progress: Called with the number of examples done and in total. Raise in it to cancel.
        progress: Whether to show a bar in a terminal or notebook if `on_progress` is not given.

    Raises:
        TaskError: The task is not a classification.
    """
    split = split or evaluator.task.select
    if not evaluator.task.is_classification:
        raise TaskError(
            "The theory of soups and ensembles applies to cross-entropy only, but the task "
            f"{evaluator.task.name!r} is not a ClassificationTask."
        )
    points = theory_points(start, end, alpha)
    found = evaluator.evaluate_all(points, split, on_progress=on_progress)
    first, before, soup, after, second = (evaluation.outputs.double() for evaluation in found)
    share = float(as_fraction(alpha))
    examples = evaluator.task.split(split)
    targets, weights = examples.targets.cpu(), examples.weights
    ensemble = (1 - share) * first + share * second
    beta = 1 / fit_temperature(soup, targets, weights)

    def loss(logits: Tensor) -> float:
        return mean_cross_entropy(beta * logits, targets, weights)

    here, around = loss(soup), loss(before) + loss(after)
    return SoupVsEnsemble(
        alpha=share,
        split=split,
        n=len(targets),
        soup_score=found[2].score,
        ensemble_score=score_outputs(evaluator.task, split, ensemble.float(), 2).score,
        beta=beta,
        soup_loss=here,
        ensemble_loss=loss(ensemble),
        curvature=(around - 2 * here) / float(STEP) ** 2,
        variance=_variance(beta * soup, second - first, weights),
    )


def theory_points(
    start: Mixture, end: Mixture, alpha: Coefficient = Fraction(1, 2)
) -> list[Mixture]:
    """Return the points that the theory needs: endpoints, soup, and one α on either side of it.

    Raises:
        ValueError: α is not between 0 and 1.
    """
    share = as_fraction(alpha)
    if not 0 < share < 1:
        raise ValueError(f"α must be between 0 and 1 for a two-model soup, not {alpha}.")
    inner = [interpolate(start, end, at) for at in (share - STEP, share, share + STEP)]
    return [start, *inner, end]


def _variance(logits: Tensor, values: Tensor, weights: Tensor | None) -> float:
    """Return the mean over examples of the variance of values under softmax(logits)."""
    probabilities = torch.softmax(logits, dim=1)  # [n, classes]
    mean = (probabilities * values).sum(dim=1, keepdim=True)
    return mean_of((probabilities * (values - mean) ** 2).sum(dim=1), "refuse", weights)
