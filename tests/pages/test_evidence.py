from collections.abc import Mapping

import pytest

from pages.components.evidence import compared


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        pytest.param(
            {"soup": 0.0598, "run": 0.1308, "ensemble": 0.0410},
            "The soup's is 5.98 %, 7.10 pp below that of run (13.08 %) and 1.88 pp above "
            "that of the ensemble (4.10 %).",
            id="better than the ingredient and worse than the ensemble",
        ),
        pytest.param(
            {"soup": 0.2, "run": 0.1},
            "The soup's is 20.00 %, 10.00 pp above that of run (10.00 %).",
            id="worse, without an ensemble",
        ),
        pytest.param(
            {"soup": 0.10001, "run": 0.1, "ensemble": 0.10002},
            "The soup's is 10.00 %, equal to that of run and equal to that of the ensemble.",
            id="equal as far as it is shown",
        ),
        pytest.param({"soup": 0.05}, "The soup's is 5.00 %.", id="alone"),
        pytest.param({"run": 0.1}, "", id="without the soup"),
    ],
)
def test_the_calibration_sentence_follows_from_the_numbers(
    errors: Mapping[str, float], expected: str
) -> None:
    assert compared(errors, "soup", "run") == expected
