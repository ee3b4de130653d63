"""What the pages do, as Python for a notebook."""

from collections.abc import Mapping
from fractions import Fraction

import streamlit as st

from pages.components.state import View
from soupcore import Soup


def show(code: str) -> None:
    """Show the Python equivalent of what the page shows."""
    with st.expander("The same in Python", icon=":material/code:"):
        st.code(code, language="python")


def opening(view: View) -> str:
    """Return how to open what the session looks at."""
    return (
        "import soupcore\n\n"
        f"sweep = soupcore.Sweep.from_folder({view.folder!r})\n"
        f"task = soupcore.load_task({view.task_spec!r})\n"
        "evaluator = soupcore.Evaluator(task)\n"
    )


def evaluate(view: View) -> str:
    """Return how to evaluate every ingredient."""
    return opening(view) + (
        "\nfor name, ingredient in sweep.ingredients.items():\n"
        "    for split in task.reported:\n"
        "        evaluation = evaluator.evaluate(ingredient.mixture, split)\n"
        "        print(name, split, evaluation.score, evaluation.score_interval)\n"
    )


def recipe(view: View, name: str, names: list[str], parameters: dict[str, str]) -> str:
    """Return how to follow a recipe."""
    evaluator = "evaluator, " if parameters else ""
    options = "".join(f", {key}={value!r}" for key, value in parameters.items())
    return opening(view) + (
        f"\nsoup = soupcore.{name}(sweep, {evaluator}{names!r}{options})\n"
        "soup.evaluate(evaluator)\n"
        f'soup.save("{name}.safetensors")\n'
    )


def manual(view: View, coefficients: Mapping[str, Fraction]) -> str:
    """Return how to mix by given coefficients."""
    terms = "".join(
        f"    {name!r}: Fraction({c.numerator}, {c.denominator}),\n"
        for name, c in coefficients.items()
    )
    return (
        "from fractions import Fraction\n\n"
        "import soupcore\n\n"
        f"sweep = soupcore.Sweep.from_folder({view.folder!r})\n"
        f"soup = soupcore.manual(sweep, {{\n{terms}}})\n"
        'soup.save("soup.safetensors")\n'
    )


def rebuild(view: View, soup: Soup) -> str:
    """Return how to make a soup's weights again, to the bit, without choosing again."""
    return manual(view, soup.coefficients)
