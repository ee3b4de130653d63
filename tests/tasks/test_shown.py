import pytest
import torch

from soupcore import ClassificationTask, Evaluator, Split, Store, Sweep, TaskError
from soupcore.calls import Context, ShownExamples
from soupcore.evaluation.measuring import changed_examples
from soupcore.progress import no_progress
from soupcore.tasks import Shown, TaskDescription
from tests.helpers import build_model


class Showing(ClassificationTask):
    def show(self, split: str, index: int) -> Shown:
        data = self.split(split)
        image = torch.full((2, 3), int(data.targets[index]), dtype=torch.uint8)
        return Shown(f"<b>{split} {index}", image if index else None)


@pytest.mark.parametrize("shape", [(), (4, 3), (4, 3, 3)])
def test_what_is_shown_survives_json(shape: tuple[int, ...]) -> None:
    image = torch.arange(36, dtype=torch.uint8)[: int(torch.tensor(shape).prod())].reshape(shape)
    shown = Shown("text", image if shape else None)
    again = Shown.from_json(shown.to_json())
    assert again.text == "text"
    assert (again.image is None) == (not shape)
    if again.image is not None:
        assert torch.equal(again.image, image)
    assert len(Shown("x" * 5000).to_json()["text"]) == 2001


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (torch.zeros(4, 3), "float32"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), r"shape \[3, 4, 4\]"),
        (torch.zeros(1025, 1025, dtype=torch.uint8), "more than 1 MiB"),
    ],
)
def test_other_images_are_refused(image: torch.Tensor, problem: str) -> None:
    with pytest.raises(TaskError, match=problem):
        Shown("", image)


def test_examples_are_shown_and_stored(
    sweep: Sweep, splits: dict[str, Split], store: Store
) -> None:
    task = Showing(build_model, splits)
    context = Context(sweep, Evaluator(task, store, device="cpu"))
    call = ShownExamples("test", (0, 2))
    assert call.shown(context) is None
    call.run_and_keep(context, no_progress)
    first, second = call.shown(context) or []
    assert (first.text, first.image) == ("<b>test 0", None)
    assert second.image is not None
    assert int(second.image[0, 0]) == int(splits["test"].targets[2])
    described = task.describe()
    assert described.shows_examples
    assert TaskDescription.from_json(described.to_json()).shows_examples


def test_a_task_without_show_says_so(sweep: Sweep, splits: dict[str, Split], store: Store) -> None:
    task = ClassificationTask(build_model, splits)
    assert not task.describe().shows_examples
    context = Context(sweep, Evaluator(task, store, device="cpu"))
    with pytest.raises(TaskError, match="no `show"):
        ShownExamples("test", (0,)).run_and_keep(context, no_progress)


def test_changed_examples_are_those_that_one_of_two_scores_higher(
    evaluator: Evaluator, sweep: Sweep
) -> None:
    one, other = (evaluator.evaluate(sweep[name].mixture, "val") for name in ("run1", "run2"))
    gained, lost = changed_examples(one, other)
    change = one.scores - other.scores
    assert gained == (change > 0).nonzero().flatten().tolist()  # all by 1, so in order
    assert lost == (change < 0).nonzero().flatten().tolist()
    assert changed_examples(other, one) == (lost, gained)
