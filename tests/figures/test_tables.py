import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcore.figures.tables import groups_table

scores_and_groups = st.lists(
    st.tuples(st.sampled_from("abc"), st.floats(-10, 10) | st.just(math.nan)), min_size=1
)


@given(runs=scores_and_groups, better=st.sampled_from([1, -1]))
def test_groups_have_the_statistics_of_their_members(
    runs: list[tuple[str, float]], better: int
) -> None:
    groups = {f"run-{i}": group for i, (group, _) in enumerate(runs)}
    table = groups_table(groups, [score for _, score in runs], better)
    assert set(table.index) == {group for group, _ in runs}
    for group, row in table.iterrows():
        own = [score for each, score in runs if each == group]
        known = [score for score in own if not math.isnan(score)]
        assert row["ingredients"] == len(own)
        if not known:
            assert row[["best", "mean", "SD", "worst"]].isna().all()
            continue
        best, worst = (max(known), min(known))[::better]
        assert (row["best"], row["worst"]) == (best, worst)
        first = next(i for i, each in enumerate(runs) if each == (group, best))
        assert row["best ingredient"] == f"run-{first}"
        assert row["mean"] == pytest.approx(statistics.fmean(known), abs=1e-12)
        if len(known) > 1:
            assert row["SD"] == pytest.approx(statistics.stdev(known), abs=1e-9)
    ranked = [better * best for best in table["best"].dropna()]
    assert ranked == sorted(ranked, reverse=True)
    assert not table["best"].isna()[: len(ranked)].any()


def test_without_scores_groups_are_counted_in_the_order_of_the_sweep() -> None:
    table = groups_table({"run-1": "sgd", "run-2": "adamw", "run-3": "sgd"})
    assert table.reset_index().values.tolist() == [["sgd", 2], ["adamw", 1]]
