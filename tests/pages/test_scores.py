import pytest

from pages.components import scores
from pages.components.state import View
from soupcore import Evaluator, greedy, uniform
from soupcore.jobs.stored_soups import StoredSoup
from tests.helpers import State, held_sweep


@pytest.mark.parametrize("is_taken", [False, True])
def test_a_soup_has_another_name_than_a_file(
    evaluator: Evaluator, states: dict[str, State], is_taken: bool
) -> None:
    soup = uniform(held_sweep(states), ["run1"])
    label = f"uniform {soup.id[:4]}"
    sweep = held_sweep(states | ({label: states["run2"]} if is_taken else {}))
    view = View("held", "task.py:task", "", sweep, evaluator)
    stored = StoredSoup(soup, sweep)
    names = scores.names_as_ingredients(view, [stored])
    assert names == {soup.id: f"uniform {soup.id}" if is_taken else label}
    more = view.including({names[soup.id]: stored})
    assert len(more.sweep) == len(sweep) + 1
    assert more.request["soups"] == {names[soup.id]: soup.id}


def test_choosing_again_is_among_all_that_were_tried(
    evaluator: Evaluator, states: dict[str, State]
) -> None:
    plain = View("held", "task.py:task", "", held_sweep(states), evaluator)
    first = StoredSoup(uniform(plain.sweep, ["run1", "run2"]), plain.sweep)
    view = plain.including({"soup": first})
    chosen = greedy(view.sweep, evaluator, ["soup", "run10", "run1"])
    stored = StoredSoup(chosen, view.sweep, offered={"soup": first.soup.id, "other": "not tried"})
    told = scores.candidates(plain, stored)
    assert told == {"names": ["run1", "run10", "soup"], "soups": {"soup": first.soup.id}}
