"""Statistics that take a pass over all weights, kept while the process lives."""

import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_MOST = 4096  # a model of many tensors has a statistic for each

_known: OrderedDict[str, Any] = OrderedDict()


def remembered(key: Any, find: Callable[[], T]) -> T:
    """Return what `find` gives, found once for each key.

    A sweep over λ makes the same thresholds many times otherwise.

    Args:
        key: JSON that says all that the result depends on, digests for weights.
        find: Finds it.
    """
    text = json.dumps(key)
    if text in _known:
        _known.move_to_end(text)
    else:
        _known[text] = find()
        if len(_known) > _MOST:
            _known.popitem(last=False)
    found: T = _known[text]
    return found
