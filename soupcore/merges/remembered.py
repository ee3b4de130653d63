"""A cache for statistics that need a pass over all weights."""

import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_MOST = 4096  # entries; there may be one per tensor

_known: OrderedDict[str, Any] = OrderedDict()


def remembered(key: Any, find: Callable[[], T]) -> T:
    """Return the result of `find`, which is called once per key and process.

    A sweep over λ, for example, needs the same thresholds for every value.

    Args:
        key: A JSON value with everything that the result depends on, such as digests of weights.
        find: Computes the result.
    """
    text = json.dumps(key)
    if text in _known:
        _known.move_to_end(text)
    else:
        _known[text] = find()
        if len(_known) > _MOST:
            _known.popitem(last=False)
    result: T = _known[text]
    return result
