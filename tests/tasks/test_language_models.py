"""Entities of tagged sentences, by the cases of seqeval's own documentation."""

import pytest
import torch

from soupcore.tasks.language_models import TAGGING_METRICS, entities


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O O", set()),
        ("B-PER I-PER O B-LOC", {("PER", 0, 2), ("LOC", 3, 4)}),
        ("B-PER B-PER", {("PER", 0, 1), ("PER", 1, 2)}),
        ("I-PER I-PER O", {("PER", 0, 2)}),
        ("B-PER I-LOC", {("PER", 0, 1), ("LOC", 1, 2)}),
        ("O B-MISC I-MISC I-MISC O", {("MISC", 1, 4)}),
        ("B-A-B I-A-B", {("A-B", 0, 2)}),
        ("", set()),
    ],
)
def test_entities_are_runs_of_one_type(tags: str, expected: set[tuple[str, int, int]]) -> None:
    assert entities(tags.split()) == expected


def test_f1_counts_entities_over_all_sentences() -> None:
    # nats, words, right words, right entities, found ones, true ones
    records = torch.tensor([[1.0, 4, 3, 1, 2, 1], [2.0, 6, 3, 1, 1, 3], [0.0, 2, 2, 0, 0, 0]])
    found = {
        metric.name: metric.score({"predictions": None, "outputs": records}, torch.zeros(3, 0))
        for metric in TAGGING_METRICS
    }
    assert found == pytest.approx({"entity F1": 2 * 2 / (3 + 4), "token accuracy": 8 / 12})
    nothing = torch.zeros(1, 6)
    assert TAGGING_METRICS[0].score({"outputs": nothing}, torch.zeros(1, 0)) == 0.0
