"""The model card of a soup: a README.md as the Hugging Face Hub reads it."""

import json
from collections.abc import Sequence
from typing import Any

from soupcore.recipes.registry import RECIPES
from soupcore.recipes.soup import Soup


def model_card(
    soup: Soup,
    *,
    title: str | None = None,
    base_models: Sequence[str] = (),
    score_name: str = "score",
    select: str | None = None,
    figure: str | None = None,
) -> str:
    """Return the text of the soup's README.md, front matter included.

    Args:
        soup: The soup; its scores are those of the splits it was evaluated on.
        title: The heading; the recipe and the soup's id unless given.
        base_models: Names on the Hub: of the ingredients, or of the one model that all were
            fine-tuned from.
        score_name: What the score is called.
        select: The split that choices are made on (`Task.select`). The card says that its score
            flatters: even a soup whose recipe chooses nothing may have been picked by it, and so
            may its ingredients and parameters. The one that the recipe chose on unless given.
        figure: File name of an image to show below the scores.
    """
    manifest = soup.to_json()
    recipe = RECIPES.get(soup.recipe)
    name = recipe.title if recipe else "By hand"
    lines = ["---"]
    if base_models:
        lines += ["base_model:", *(f"- {json.dumps(model)}" for model in base_models)]
        lines += [f"base_model_relation: {'merge' if len(base_models) > 1 else 'finetune'}"]
    else:
        lines += ["# base_model: the name on the Hub of what the ingredients were fine-tuned from"]
    lines += ["tags:", "- merge", "- model-soup", "---", ""]
    lines += [f"# {title or f'{name} soup {soup.id}'}", ""]
    lines += ["A model soup: one network made of the weights of several.", ""]
    if recipe:
        lines += [f"**{name}** ({recipe.paper}): {recipe.summary}", ""]
    if soup.parameters:
        told = ", ".join(f"`{key}` = {value!r}" for key, value in soup.parameters.items())
        lines += [f"Parameters: {told}.", ""]
    lines += _scores(manifest, score_name, select or soup.parameters.get("split"))
    if figure:
        lines += [f"![Where the soup lies among its ingredients]({figure})", ""]
    lines += _made_of(soup)
    lines += _again(soup, manifest)
    return "\n".join(lines)


def _scores(manifest: dict[str, Any], score_name: str, select: str | None) -> list[str]:
    if not manifest["scores"]:
        return []
    rows = [
        f"| {_cell(split)}{' (for choosing)' if split == select else ''} "
        f"| {_number(found['score'])} | {_number(found['loss'])} | {found['n']} |"
        for split, found in manifest["scores"].items()
    ]
    head = [f"| split | {score_name} | loss | examples |", "| --- | ---: | ---: | ---: |"]
    lines = ["## Scores", "", *head, *rows, ""]
    if select in manifest["scores"]:
        lines += [
            f"Ingredients, parameters and soups are chosen by their score on {select}, so it "
            "flatters; the other splits took no part.",
            "",
        ]
    return lines


def _made_of(soup: Soup) -> list[str]:
    rows = []
    for name, digest in soup.digests.items():
        if name in soup.coefficients:
            share = f"{float(soup.coefficients[name]):.6g}"
        else:
            share = "base" if name == soup.base else "ingredient"
        rows.append(f"| {_cell(name)} | {share} | `{digest[:16]}` |")
    head = ["| checkpoint | coefficient | digest of the weights |", "| --- | ---: | --- |"]
    return ["## Made of", "", *head, *rows, ""]


def _again(soup: Soup, manifest: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{what} {version}" for what, version in manifest["versions"].items())
    return [
        "## Making it again",
        "",
        "The manifest is in the metadata of the weights' file, under `stockpot`, and in "
        f"`{soup.recipe}-{soup.id}.json`. With the checkpoints above in a folder, it gives the "
        "same bytes:",
        "",
        "```python",
        "import json",
        "from pathlib import Path",
        "",
        "import soupcore",
        "",
        f'manifest = json.loads(Path("{soup.recipe}-{soup.id}.json").read_text())',
        'soup = soupcore.rebuild(manifest, "folder")',
        *_re_estimating(soup),
        'soup.save("soup.safetensors")',
        "```",
        "",
        f"Made with {versions}.",
        "",
    ]


def _re_estimating(soup: Soup) -> list[str]:
    if soup.estimate is None:
        return []
    return [
        'task = soupcore.load_task("task.py:task")  # the one that the soup was made for',
        "# BatchNorm's statistics are those of training data at the soup.",
        f"soup.re_estimate(soupcore.Evaluator(task), examples={soup.estimate.examples})",
    ]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")  # which begins the next cell


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
