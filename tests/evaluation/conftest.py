from functools import partial

import pytest

from soupcore.evaluation import measuring
from soupcore.intervals import resamples


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make intervals from 10 resamples, for tests in which only their identity matters."""
    monkeypatch.setattr(measuring, "resamples", partial(resamples, count=10))
