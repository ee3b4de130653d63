"""Calls that write the weights of a stored soup: to files in the workspace, or to the Hub."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soupcore.calls.base import OfSoup, Report, Result
from soupcore.calls.code import Code, fractions, options, source
from soupcore.calls.context import Context
from soupcore.provenance import (
    base_models_of,
    model_card,
    push_to_hub,
    save_adapter,
    write_hub_folder,
)
from soupcore.provenance.hub import PASSES
from soupcore.recipes import Soup
from soupcore.workspace import private_folder
from soupcore.writers.forms import Form

_HASHED_AT_ONCE = 1 << 20  # bytes


@dataclass(frozen=True)
class SoupFiles(OfSoup):
    """The files of a stored soup, in a form (see `soupcore.writers.forms.Form`).

    Result of the job: `{"soup": id, "files": names}`.
    """

    kind = "weights"
    form: Mapping[str, Any]

    def work(self, context: Context, report: Report) -> Result:
        """Write the files into the store's folder, and store their SHA-256."""
        store, soup = context.store, _with_known_scores(context, self.stored(context).soup)
        form = Form(**self.form)
        # Bytes written, then read again for the SHA-256. Adapters are small.
        total = 1 if form.as_adapter else 2 * form.nbytes(soup)
        done = 0

        def on_bytes(nbytes: int) -> None:
            nonlocal done
            done += nbytes
            report(min(done, total), total)

        folder = private_folder(store.soup_folder(soup.id, form.key))
        store.add_soup_files(soup.id, form.key, {})  # existing files are about to change
        path = folder / form.file_name(soup)
        if form.as_folder:
            card = card_of(context, soup)
            files = write_hub_folder(
                soup, private_folder(path), form.dtype, card=card, on_bytes=on_bytes
            )
        elif form.as_adapter:
            save_adapter(soup, private_folder(path), form.rank)
            files = [*path.iterdir()]
        else:
            files = soup.save(path, form.dtype, form.shard_size, on_bytes=on_bytes)
        digests = {file.relative_to(folder).as_posix(): _sha256(file, on_bytes) for file in files}
        store.add_soup_files(soup.id, form.key, digests)
        return {"soup": soup.id, "files": list(digests)}

    def script(self, context: Context, *more: Code) -> str:
        """Return a script that rebuilds the weights, without an evaluator; see `Call.script`."""
        return source(sum(more, start=self.code(context)))

    def code(self, context: Context) -> Code:
        """Return Python that rebuilds the exact weights and saves them.

        It does not repeat any selection.
        """
        form = Form(**self.form)
        made = self.soup_again(context)
        settings = {"dtype": form.dtype, "shard_size": form.shard_size, "rank": form.rank}
        given = options({name: value for name, value in settings.items() if value})
        name = form.file_name(self.stored(context).soup)
        if form.as_adapter:
            return made + Code(f"soupcore.save_adapter(soup, {name!r}{given})\n")
        return made + Code(f"soup.save({name!r}{given})\n")

    def soup_again(self, context: Context) -> Code:
        """Return Python that rebuilds the exact weights, as `soup`."""
        soup = self.stored(context).soup
        # `manual` drops ingredients with coefficient 0, but the first ingredient determines the
        # form of the file.
        is_plain = all(soup.coefficients.values()) and soup.coefficients and not soup.fixed
        urls = context.sweep.urls  # may resolve to other files on another machine
        if is_plain and not urls and self._is_of_files(context):
            made = Code(
                f"sweep = {context.sweep_code}\n"
                f"soup = soupcore.manual(sweep, {fractions(soup.coefficients)})\n"
            )
        else:
            made = Code(
                f'manifest = json.loads(Path("{soup.recipe}-{soup.id}.json").read_text())\n'
                f"soup = soupcore.rebuild(manifest{'' if urls else f', {context.folder!r}'})\n",
                ("import json", "from pathlib import Path"),
            )
        if soup.estimate is not None:
            made += Code(
                f"task = soupcore.load_task({context.task_spec!r})\n"
                "evaluator = soupcore.Evaluator(task)\n"
                f"soup.re_estimate(evaluator, examples={soup.estimate.examples})\n"
            )
        return made

    def _is_of_files(self, context: Context) -> bool:
        files = context.sweep.ingredients.keys() - context.included.keys()
        return files >= set(self.stored(context).soup.ingredients)


@dataclass(frozen=True)
class PushedSoup(OfSoup):
    """The upload of a soup's weights and card to a repository of the Hub.

    Result of the job: `{"url": URL of the commit}`.
    """

    kind = "push"
    repo: str
    public: bool = False

    def work(self, context: Context, report: Report) -> Result:
        """Write the files into a temporary folder, and upload them."""
        soup = _with_known_scores(context, self.stored(context).soup)
        total = PASSES * Form().nbytes(soup)
        done = 0

        def on_bytes(nbytes: int) -> None:
            nonlocal done
            done += nbytes
            report(min(done, total), total)

        card = card_of(context, soup)
        url = push_to_hub(soup, self.repo, public=self.public, card=card, on_bytes=on_bytes)
        return {"url": url}

    def script(self, context: Context, *more: Code) -> str:
        """Return a script that rebuilds the weights, without an evaluator; see `Call.script`."""
        return source(sum(more, start=self.code(context)))

    def code(self, context: Context) -> Code:
        """Return Python that rebuilds the exact weights and uploads them, with the `url`."""
        given = ", public=True" if self.public else ""
        return SoupFiles(self.soup, {}).soup_again(context) + Code(
            f"url = soupcore.push_to_hub(soup, {self.repo!r}{given})\n"
        )


def card_of(context: Context, soup: Soup) -> str:
    """Return the model card of a soup, with the names and the direction of the task's metric."""
    return model_card(soup, base_models=base_models_of(soup), **_task_facts(context))


def _with_known_scores(context: Context, soup: Soup) -> Soup:
    """Return a stored soup with its statistics and its stored evaluations."""
    if context.has_task:
        evaluator = context.evaluator.with_statistics("averaged")
        if soup.estimate is not None:
            examples = soup.estimate.examples
            soup.re_estimate(evaluator, examples=examples)
            evaluator = evaluator.with_statistics("re-estimated", examples=examples)
        known = {s: evaluator.stored([soup.mixture], s)[0] for s in evaluator.task.reported}
        soup.evaluations.update({split: found for split, found in known.items() if found})
    return soup


def _task_facts(context: Context) -> dict[str, Any]:
    """Return the card's information on the task, if there is one."""
    if not context.has_task:
        return {}
    task = context.task
    return {
        "score_name": task.score_name,
        "higher_is_better": task.metric.higher_is_better,
        "select": task.select,
    }


def _sha256(path: Path, on_bytes: Callable[[int], None]) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASHED_AT_ONCE):
            sha.update(block)
            on_bytes(len(block))
    return sha.hexdigest()
