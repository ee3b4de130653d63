from math import inf, nan

import pytest

from soupcore.tasks import PLAIN, SHARE, MetricInfo, Unit

KELVIN = Unit(is_share=False, sign=-1, suffix="K")  # an error in kelvin
WORD_ERRORS = Unit(is_share=True, sign=-1)


@pytest.mark.parametrize(
    ("unit", "score", "number", "text"),
    [
        (SHARE, 0.863, "86.30", "86.30 %"),
        (SHARE, 0.0, "0.00", "0.00 %"),
        (SHARE, 1.0, "100.00", "100.00 %"),
        (PLAIN, -2.34567, "-2.346", "-2.346"),
        (PLAIN, 0.0, "0.000", "0.000"),
        (PLAIN, 0.5, "0.5000", "0.5000"),
        (PLAIN, 1234.56, "1235", "1235"),
        (PLAIN, -98765.4, "-98,765", "-98,765"),
        (PLAIN, 0.0000123456, "1.235e-05", "1.235e-05"),
        (PLAIN, 1e20, "1.000e+20", "1.000e+20"),
        (KELVIN, -2.34567, "2.346", "2.346 K"),
        (KELVIN, 0.0, "0.000", "0.000 K"),
        (WORD_ERRORS, -0.117, "11.70", "11.70 %"),
        *(
            (unit, score, "–", "–")
            for unit in (SHARE, PLAIN, KELVIN)
            for score in (None, nan, inf, -inf)
        ),
    ],
)
def test_shares_are_percentages_and_other_scores_are_themselves(
    unit: Unit, score: float | None, number: str, text: str
) -> None:
    assert (unit.number(score), unit.text(score)) == (number, text)
    assert unit.cell(score if score is None else score * unit.factor) == number


@pytest.mark.parametrize(
    ("unit", "difference", "number", "text", "gap"),
    [
        (SHARE, 0.0042, "+0.42", "+0.42 pp", "0.42 pp"),
        (SHARE, -0.1, "-10.00", "-10.00 pp", "-10.00 pp"),
        (PLAIN, 0.0042, "+0.00420", "+0.00420", "0.00420"),
        (PLAIN, -12.5, "-12.5", "-12.5", "-12.5"),
        (PLAIN, 0.0, "+0.00", "+0.00", "0.00"),
        (KELVIN, 0.4, "-0.400", "-0.400 K", "0.400 K"),
        (KELVIN, -0.4, "+0.400", "+0.400 K", "-0.400 K"),
        (WORD_ERRORS, 0.01, "-1.00", "-1.00 pp", "1.00 pp"),
        (SHARE, nan, "–", "–", "–"),
        (PLAIN, None, "–", "–", "–"),
    ],
)
def test_differences_of_shares_are_percentage_points(
    unit: Unit, difference: float | None, number: str, text: str, gap: str
) -> None:
    assert (unit.difference(difference), unit.difference_text(difference)) == (number, text)
    assert unit.gap(difference) == gap
    scaled = None if difference is None else difference * unit.factor
    assert unit.difference_cell(scaled) == number


@pytest.mark.parametrize(
    ("unit", "ends", "text"),
    [
        (SHARE, (-0.001, 0.0042), "-0.10 to +0.42"),
        (KELVIN, (-0.1, 0.4), "-0.400 to +0.100"),
        (SHARE, (0.1, 0.1), "–"),
        (SHARE, (nan, nan), "–"),
        (SHARE, None, "–"),
    ],
)
def test_intervals_of_differences_are_ascending_and_have_a_width(
    unit: Unit, ends: tuple[float, float] | None, text: str
) -> None:
    assert unit.difference_interval(ends) == text


@pytest.mark.parametrize("cell", ["run-01", None, [], "0.5"])
def test_non_numbers_are_shown_as_dash(cell: object) -> None:
    assert (SHARE.cell(cell), PLAIN.difference_cell(cell)) == ("–", "–")


def test_titles_and_hovers_name_the_unit_of_shares_only() -> None:
    assert (SHARE.label("accuracy"), PLAIN.label("MAE")) == ("accuracy, %", "MAE")
    assert SHARE.difference_label("gain") == "gain, pp"
    assert PLAIN.difference_label("gain") == "gain"
    assert (SHARE.hover("x"), PLAIN.hover("x")) == ("%{x:.2f} %", "%{x:.4g}")
    assert SHARE.difference_hover("y") == "%{y:+.2f} pp"
    assert PLAIN.difference_hover("y") == "%{y:+.3g}"
    assert (KELVIN.label("MAE"), KELVIN.difference_label("Δ")) == ("MAE, K", "Δ, K")
    assert (KELVIN.hover("x"), KELVIN.difference_hover("x")) == ("%{x:.4g} K", "%{x:+.3g} K")
    assert (SHARE.bound, KELVIN.bound) == ("≤", "≥")
    assert [unit.counts_errors for unit in (SHARE, PLAIN, KELVIN, WORD_ERRORS)] == [
        True,
        *[False] * 3,
    ]
    names = ("accuracy", "worst-group accuracy", "macro F1", "mAP50-95")
    assert [MetricInfo(name, range=(0, 1)).written.counts_errors for name in names] == [
        True, True, False, False,
    ]  # fmt: skip
