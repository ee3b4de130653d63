from pathlib import Path

import pytest

from soupcore import Finding, Sweep, uniform
from tests.troubled import FINE, TROUBLES, make_troubled_sweep


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_troubled_sweep(tmp_path_factory.mktemp("troubles") / "sweep")


@pytest.fixture(scope="module")
def sweep(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STOCKPOT_WORKSPACE", str(tmp_path_factory.mktemp("workspace")))
        return Sweep.from_folder(folder)


def findings(sweep: Sweep, name: str) -> list[Finding]:
    return [f for f in sweep.fit.findings if f.ingredient == name and f.severity != "note"]


@pytest.mark.parametrize("name", TROUBLES)
def test_every_trouble_is_reported_once_with_its_way_out(sweep: Sweep, name: str) -> None:
    left_out, problem, way_out = TROUBLES[name]
    (finding,) = findings(sweep, name)
    assert finding.severity == ("misfit" if left_out else "warning")
    assert problem in finding.problem
    assert str(sweep.folder) not in finding.problem
    assert finding.way_out
    assert way_out in finding.way_out


def test_only_files_with_troubles_are_reported(sweep: Sweep) -> None:
    left_out = {name for name, trouble in TROUBLES.items() if trouble[0]}
    assert sweep.fit.misfits == left_out
    assert {*sweep.ingredients} == {*FINE, *TROUBLES} - left_out - {"gone"}
    assert [findings(sweep, name) for name in FINE] == [[] for _ in FINE]
    assert sweep.fit.ignored == ("optimizer.pt",)


def test_ingredients_that_fit_make_a_soup(sweep: Sweep, tmp_path: Path) -> None:
    uniform(sweep, ["run-01", "compiled", "in-parallel", "lightning", "yolo"]).save(
        tmp_path / "soup.safetensors"
    )
