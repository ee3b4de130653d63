"""The upload of a stored soup to the Hugging Face Hub."""

from dataclasses import dataclass

from soupcore import provenance
from soupcore.calls.base import OfSoup, Report, Result
from soupcore.calls.code import Code, source
from soupcore.calls.context import Context
from soupcore.calls.soups import SoupFiles, card_of, with_known_scores
from soupcore.provenance.push import PASSES
from soupcore.writers.forms import Form


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
        soup = with_known_scores(context, self.stored(context).soup)
        total = PASSES * Form().nbytes(soup)
        done = 0

        def on_bytes(nbytes: int) -> None:
            nonlocal done
            done += nbytes
            report(min(done, total), total)

        card = card_of(context, soup)
        url = provenance.push_to_hub(
            soup, self.repo, public=self.public, card=card, on_bytes=on_bytes
        )
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
