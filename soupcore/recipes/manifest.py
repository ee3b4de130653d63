"""The manifest of a soup: its JSON form, from which the same weights are made again."""

import platform
from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.renamed import RenamedCheckpoint
from soupcore.errors import RecipeError
from soupcore.evaluation import Estimate
from soupcore.merges import Derived, merge_from_json, own_of, with_sources
from soupcore.recipes.trace import Pass, Step, none_if_nan
from soupcore.sweeps import FixedTensors, Sweep, TensorRule
from soupcore.sweeps.remote_table import remote_files
from soupcore.version import VERSION

if TYPE_CHECKING:
    from soupcore.recipes.soup import Soup

_FORMAT = 2  # format 1 had one set of coefficients for all tensors, and no versions
_RECORDED = ("scores", "task_key", "versions", "remote")  # kept from the JSON of a soup


def of_soup(soup: "Soup") -> dict[str, Any]:
    """Return the manifest of a soup; see `Soup.to_json`."""
    names = {digest: name for name, digest in soup.digests.items()}

    def name_of(source: Checkpoint) -> str:
        return names[own_of(source).digest]

    scores = {
        split: {
            "score": none_if_nan(evaluation.score),
            "loss": none_if_nan(evaluation.loss),
            "n": evaluation.n,
            "split_digest": evaluation.split_digest,
            **({} if evaluation.primary is None else {"metric": evaluation.primary}),
        }
        for split, evaluation in soup.evaluations.items()
    }
    task_keys = {evaluation.task_key for evaluation in soup.evaluations.values()}
    return {
        "format": _FORMAT,
        "recipe": soup.recipe,
        "parameters": soup.parameters,
        "coefficients": {name: str(c) for name, c in soup.coefficients.items()},
        "merge": soup.merge and soup.merge.to_json(name_of),
        **_tensors_to_json(soup),
        "base": soup.base,
        "digests": soup.digests,
        **_sources_to_json(soup),
        "batchnorm": soup.estimate and asdict(soup.estimate),
        "trace": [step.to_json() for step in soup.trace],
        "passes": [each.to_json() for each in soup.passes],
        "notes": list(soup.notes),
        "scores": _recorded_scores(soup) | scores,
        "task_key": next(iter(task_keys), soup.recorded.get("task_key")),
        "versions": soup.recorded.get("versions") or _versions(),
    }


def to_soup(make: type["Soup"], sweep: Sweep, body: Mapping[str, Any]) -> "Soup":
    """Recreate a soup from its manifest; see `Soup.from_json`."""
    if body["format"] > _FORMAT:
        raise RecipeError(
            f"This soup has format {body['format']}, but this version of Stockpot supports "
            f"formats up to {_FORMAT}. Use a newer version."
        )
    for name, digest in body["digests"].items():
        if own_of(sweep[name].checkpoint).digest != digest:
            raise RecipeError(
                f"The weights of ingredient {name!r} changed since this soup was made. Build "
                "the soup again."
            )
    recipe, parameters = body["recipe"], body["parameters"]
    names = [name for name in body["digests"] if name not in body.get("donors", ())]
    if fixed := body.get("fixed"):
        values = [FixedTensors.from_json(each) for each in fixed]
        sweep = sweep.fix(values, names, rule=TensorRule.from_json(body["rule"]))
    if merge := body.get("merge"):
        derived = merge_from_json(merge, lambda name: sweep[name].checkpoint)
        soup = make.of_merge(sweep, recipe, parameters, names, derived)
    else:
        coefficients = {name: Fraction(text) for name, text in body["coefficients"].items()}
        soup = make.of(sweep, recipe, parameters, coefficients, keep_zeros=True)
    if estimate := body.get("batchnorm"):
        soup.estimate = Estimate(**estimate)
    soup.trace = tuple(Step.from_json(step) for step in body["trace"])
    soup.passes = tuple(Pass.from_json(each) for each in body.get("passes", ()))
    soup.notes = tuple(body.get("notes", ()))
    soup.recorded = {k: body[k] for k in _RECORDED if k in body}
    return soup


def _recorded_scores(soup: "Soup") -> dict[str, Any]:
    """Return the recorded scores, without those by another metric than the evaluations'."""
    recorded: dict[str, Any] = soup.recorded.get("scores", {})
    metrics = {evaluation.primary for evaluation in soup.evaluations.values()}
    return {
        split: found
        for split, found in recorded.items()
        if not metrics or found.get("metric") in metrics
    }


def _tensors_to_json(soup: "Soup") -> dict[str, Any]:
    """Return which tensors take part; nothing if all do, as in earlier versions."""
    if not soup.fixed:
        return {}
    return {
        "rule": soup.rule.to_json(),
        "fixed": [each.to_json() for each in soup.fixed],
        "donors": list(soup.donors),
    }


def _sources_to_json(soup: "Soup") -> dict[str, Any]:
    """Return the information that `rebuild` needs to open the same sources."""
    sources = with_sources(source.checkpoint for source in soup.sources.values())
    soups = {d: c for d, c in sources.items() if isinstance(c, Derived)}
    files = {d: c for d, c in sources.items() if d not in soups}
    tensors = None
    if any(isinstance(file, RenamedCheckpoint) for file in files.values()):
        ties = dict.fromkeys(tie for file in files.values() for tie in file.ties)
        tensors = {
            "names": [*soup.form.checkpoint.tensors],
            "ties": [[*tie] for tie in ties],
        }
    known = set(soup.digests.values())
    paths = [path for checkpoint in files.values() for path in checkpoint.files]
    files_at_urls = remote_files(soup.folder, paths).items()
    remote = soup.recorded.get("remote") or {at: file.to_json() for at, file in files_at_urls}
    return {
        **({"remote": remote} if remote else {}),
        "soups": {d: each.to_json(lambda source: source.digest) for d, each in soups.items()},
        "soup_files": {
            d: soup.seen_from_folder(c.path) for d, c in files.items() if d not in known
        },
        "weight_sets": {d: c.weights for d, c in files.items() if c.weights},
        "tensors": tensors,
    }


def _versions() -> dict[str, str]:
    return {
        "stockpot": VERSION,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
