from pathlib import Path

import pytest

from sample_data.results import (
    DESCRIPTIONS,
    RESULTS,
    Row,
    between_markers,
    descriptions,
    markdown,
)
from soupcore import RECIPES

BEGIN, END = RESULTS
README = (Path(__file__).parents[2] / "README.md").read_text()
ROWS = README.partition(BEGIN)[2].partition(END)[0].strip().splitlines()


@pytest.mark.parametrize(
    "title", [*(recipe.title for recipe in RECIPES.values()), "Ensemble", "Greedy ensemble"]
)
def test_the_readme_has_a_row_for_each_recipe(title: str) -> None:
    names = [row.removeprefix("| ").partition(" | ")[0] for row in ROWS]
    assert any(name == title or name.startswith((f"{title},", f"{title} (")) for name in names)


def test_rows_have_as_many_cells_as_the_head() -> None:
    assert len({row.count("|") for row in ROWS}) == 1
    rows = [Row("Greedy", "3 of 15", ("1.00", "2.00", "3.00"), 29, 1.26), Row("SWA", "–")]
    written = markdown(rows).splitlines()
    assert written[:2] == ROWS[:2]
    assert written[2] == "| Greedy | 3 of 15 | 1.00 | 2.00 | 3.00 | 29 | 1.3 |"
    assert written[3] == "| SWA | – | – | – | – | – | – |"


def test_only_text_between_the_markers_is_replaced() -> None:
    written = between_markers(f"before\n{BEGIN}\nold\nolder\n{END}\nafter\n", RESULTS, "new")
    assert written == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert between_markers(written, RESULTS, "new") == written
    assert between_markers(README, RESULTS, "\n".join(ROWS)) == README


def test_the_readme_lists_the_parameters_of_each_recipe() -> None:
    assert between_markers(README, DESCRIPTIONS, descriptions()) == README, "make results"
    (line,) = (line for line in descriptions().splitlines() if "`ties`" in line)
    assert "`density=0.2` (0.001 to 1)<br>" in line
    assert "<br>`trim='global'` or `'tensor'`<br>" in line
    assert line.endswith(" | a base |")


@pytest.mark.parametrize(
    "text", ["", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"]
)
def test_texts_without_markers_are_not_written(text: str) -> None:
    with pytest.raises(ValueError, match="needs one line"):
        between_markers(text, RESULTS, "new")
