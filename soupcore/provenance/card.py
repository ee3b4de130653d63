"""The model card of a soup: a README.md for the Hugging Face Hub."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from soupcore.escaping import code, markdown, yaml
from soupcore.merges import Derived, with_sources
from soupcore.recipes.registry import RECIPES
from soupcore.recipes.soup import Soup
from soupcore.remote.urls import HUB, parse_hub_url
from soupcore.sweeps.remote_table import remote_of
from soupcore.sweeps.tensor_rule import ALL
from soupcore.writers.hub_files import HubFiles, hub_files

_TENSORS_SHOWN = 12


def model_card(
    soup: Soup,
    *,
    title: str | None = None,
    base_models: Sequence[str] = (),
    score_name: str = "score",
    higher_is_better: bool = True,
    select: str | None = None,
    figure: str | None = None,
) -> str:
    """Return the text of the soup's README.md, including front matter.

    If the ingredients are Hugging Face models, the front matter also has their library and task,
    the entries on which their own cards agree (license, datasets, base model, language), and the
    scores in the format of the Hub.

    Args:
        soup: The soup. The card lists its scores on the splits it was evaluated on.
        title: The heading; by default, the recipe and the soup's id.
        base_models: Repositories on the Hub: those of the ingredients, or the one of the model that
            all were fine-tuned from. By default, those that the ingredients were opened from, or
            else the base model on which their cards agree.
        score_name: Name of the score.
        higher_is_better: Whether higher values of the metric are better. If not, scores are negated
            values, and the card shows the values themselves.
        select: The split used for choosing (`Task.select`); by default, that of the recipe. The
            card calls its score optimistic: even if the recipe itself chooses nothing, the soup,
            its ingredients or its parameters may have been picked by this score.
        figure: File name of an image to show below the scores.
    """
    manifest, urls = soup.to_json(), _urls(soup)
    recipe = RECIPES.get(soup.recipe)
    name = recipe.title if recipe else "Manual"
    title = title or f"{name} soup {soup.id}"
    sign = 1 if higher_is_better else -1
    known = files_for_hub(soup)
    entries = dict(known.card) if known is not None else {}
    named = entries.pop("base_model", ())
    models = list(base_models) or _on_the_hub(soup, urls) or _listed(named)
    lines = ["---"]
    if models:
        lines += ["base_model:", *(f"- {yaml(model)}" for model in models)]
        lines += [f"base_model_relation: {'merge' if len(models) > 1 else 'finetune'}"]
    else:
        lines += ["# base_model: Hugging Face ID of the model that the ingredients come from"]
    lines += ["tags:", "- merge", "- model-soup"]
    if known is not None:
        lines += [f"library_name: {known.library_name}"]
        lines += [f"pipeline_tag: {known.pipeline_tag}"] if known.pipeline_tag else []
        lines += _entries(entries)
        lines += _model_index(manifest, title, known.pipeline_tag, score_name, sign)
    lines += ["---", ""]
    lines += [f"# {markdown(title)}", ""]
    lines += ["A model soup: the averaged or merged weights of several fine-tuned networks.", ""]
    if recipe:
        lines += [f"**{name}** ({recipe.paper}): {recipe.summary}", ""]
    if soup.parameters:
        listed = ", ".join(
            f"{code(key)} = {code(repr(value))}" for key, value in soup.parameters.items()
        )
        lines += [f"Parameters: {listed}.", ""]
    lines += _tensors(soup)
    chosen_on = select or soup.parameters.get("split")
    lines += _scores(manifest, score_name, sign, chosen_on)
    if figure:
        lines += [f"![Scores of the soup and of the ingredients]({quote(figure)})", ""]
    if known is not None and known.notes:
        lines += ["## Files", "", *(f"- {markdown(note)}" for note in known.notes), ""]
    lines += _ingredients(soup)
    lines += _reproduction(soup, manifest, urls)
    return "\n".join(lines)


def files_for_hub(soup: Soup) -> HubFiles | None:
    """Return the files beside a soup's weights; None if its first ingredient has no `config.json`.

    Raises:
        CheckpointError: The configuration cannot be read.
    """
    checkpoints = {name: soup.sources[name].checkpoint for name in soup.ingredients or soup.sources}
    return hub_files(checkpoints, soup.folder)


def base_models_of(soup: Soup) -> list[str]:
    """Return the base model that the hyperparameters of all ingredients name, if they agree."""
    names = {soup.sources[name].hyperparameters.get("base_model") for name in soup.ingredients}
    name = str(names.pop() or "") if len(names) == 1 else ""
    return [name] if name else []


def _urls(soup: Soup) -> dict[Path, str]:
    """Return the URLs of the sweep's files that were opened by URL."""
    remote = remote_of(soup.folder)
    if remote is None:
        return {}
    return {remote.folder / path: file.url for path, file in remote.files.items()}


def _on_the_hub(soup: Soup, urls: Mapping[Path, str]) -> list[str]:
    """Return the repositories of the ingredients if all of them are from the Hub."""
    repos = []
    for name in soup.ingredients:
        own = [urls[file] for file in soup.sources[name].checkpoint.files if file in urls]
        if not own or not all(url.startswith(f"{HUB}://") for url in own):
            return []
        repos += [parse_hub_url(url).repo for url in own]
    return list(dict.fromkeys(repos))


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(each) for each in value]


def _entries(entries: Mapping[str, Any]) -> list[str]:
    """Return entries of the front matter that are texts or lists of texts."""
    lines = []
    for name, value in entries.items():
        if isinstance(value, str):
            lines.append(f"{name}: {yaml(value)}")
        else:
            lines += [f"{name}:", *(f"- {yaml(each)}" for each in value)]
    return lines


def _model_index(
    manifest: Mapping[str, Any], title: str, task: str, score_name: str, sign: int
) -> list[str]:
    """Return the scores in the format of the Hub; none if the kind of the task is unknown."""
    scores = {split: f for split, f in manifest["scores"].items() if f["score"] is not None}
    if not scores or not task:
        return []
    lines = ["model-index:", f"- name: {yaml(title)}", "  results:"]
    for split, found in scores.items():
        lines += [
            f"  - task:\n      type: {task}",
            f"    dataset:\n      type: custom\n      name: {yaml(split)}\n"
            f"      split: {yaml(split)}",
            f"    metrics:\n    - type: {yaml(score_name.lower())}\n"
            f"      name: {yaml(score_name)}\n"
            f"      value: {sign * found['score']:.6g}",
        ]
    return lines


def _tensors(soup: Soup) -> list[str]:
    """Return the paragraph on tensors that take no part in the recipe, and on their sources."""
    if not soup.fixed:
        return []
    lines = ["Tensors that take no part in the recipe:", ""]
    if soup.rule.take != ALL:
        lines = [f"Tensors that take part: {code(soup.rule.take)}. The others:", ""]
    for each in soup.fixed:
        shown = ", ".join(code(name) for name in each.tensors[:_TENSORS_SHOWN])
        more = len(each.tensors) - _TENSORS_SHOWN
        names = ", ".join(markdown(name) for name in each.coefficients)
        source = f"the mean of {names}" if len(each.coefficients) > 1 else names
        lines.append(f"- {shown}{f' and {more} more' if more > 0 else ''}: from {source}")
    return [*lines, ""]


def _scores(manifest: dict[str, Any], score_name: str, sign: int, select: str | None) -> list[str]:
    if not manifest["scores"]:
        return []
    rows = [
        f"| {markdown(split)}{' (for choosing)' if split == select else ''} "
        f"| {_number(found['score'], sign)} | {_number(found['loss'])} | {found['n']} |"
        for split, found in manifest["scores"].items()
    ]
    title = markdown(score_name) + ("" if sign > 0 else " (lower is better)")
    head = [f"| split | {title} | loss | examples |", "| --- | ---: | ---: | ---: |"]
    lines = ["## Scores", "", *head, *rows, ""]
    if select in manifest["scores"]:
        lines += [
            f"Scores on {markdown(str(select))} are optimistic, because ingredients, parameters "
            "and soups are chosen by them. The other splits were not used for choosing.",
            "",
        ]
    return lines


def _ingredients(soup: Soup) -> list[str]:
    rows = []
    for name, digest in soup.digests.items():
        if name in soup.coefficients:
            share = f"{float(soup.coefficients[name]):.6g}"
        else:
            share = "base" if name == soup.base else "ingredient"
            share = "only tensors that take no part" if name in soup.donors else share
        rows.append(f"| {markdown(name)} | {share} | `{digest[:16]}` |")
    head = ["| checkpoint | coefficient | SHA-256 of the weights |", "| --- | ---: | --- |"]
    return ["## Ingredients", "", *head, *rows, ""]


def _reproduction(soup: Soup, manifest: dict[str, Any], urls: Mapping[Path, str]) -> list[str]:
    sources = with_sources(source.checkpoint for source in soup.sources.values()).values()
    files = [source for source in sources if not isinstance(source, Derived)]
    local = [each for each in files if not urls.keys() >= {*each.files}]
    place = ', "folder"' if local else ""
    if not local:
        how = "It has the URLs of the ingredients, so it reproduces the weights bit for bit:"
    elif len(local) == len(files):
        how = "With the checkpoints above in a folder, it reproduces the weights bit for bit:"
    else:
        names = ", ".join(code(soup.seen_from_folder(each.path)) for each in local)
        how = (
            f"With {names} in a folder, it reproduces the weights bit for bit; the other "
            "checkpoints are downloaded from their URLs:"
        )
    versions = ", ".join(f"{what} {version}" for what, version in manifest["versions"].items())
    return [
        "## Reproducing the soup",
        "",
        "The recipe is in the metadata of the weights file, under `stockpot`, and in "
        f"`{soup.recipe}-{soup.id}.json`. {how}",
        "",
        "```python",
        "import json",
        "from pathlib import Path",
        "",
        "import soupcore",
        "",
        f'manifest = json.loads(Path("{soup.recipe}-{soup.id}.json").read_text())',
        f"soup = soupcore.rebuild(manifest{place})",
        *_re_estimating(soup),
        'soup.save("soup.safetensors")',
        "```",
        "",
        f"Created with {versions}.",
        "",
    ]


def _re_estimating(soup: Soup) -> list[str]:
    if soup.estimate is None:
        return []
    return [
        'task = soupcore.load_task("task.py:task")  # the task of the soup',
        "# BatchNorm statistics were re-estimated on training data.",
        f"soup.re_estimate(soupcore.Evaluator(task), examples={soup.estimate.examples})",
    ]


def _number(value: float | None, sign: int = 1) -> str:
    return "–" if value is None else f"{sign * value:.4f}"
