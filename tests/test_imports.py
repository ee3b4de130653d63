"""What `import soupcore` loads: only what a process uses."""

import subprocess
import sys

import pytest

import soupcore

HEAVY = [
    "numpy.random",
    "sqlalchemy",
    "pandas",
    "plotly",
    "scipy.optimize",
    "scipy.stats",
    "sklearn",
    "networkx",
]


STATEMENTS = [
    "import soupcore",
    "soupcore.recipes.greedy",
    "soupcore.Sweep; [getattr(soupcore, name) for name in soupcore.RECIPES]",
]


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """The modules that a new process has loaded after each of `STATEMENTS`, one after the other."""
    code = "\n".join(f"{each}; print(*sys.modules)" for each in STATEMENTS)
    printed = subprocess.check_output([sys.executable, "-c", f"import sys\n{code}"], text=True)
    return dict(zip(STATEMENTS, map(set, map(str.split, printed.splitlines())), strict=True))


@pytest.mark.parametrize("statement", STATEMENTS)
def test_heavy_modules_are_loaded_by_the_first_call_that_needs_them(
    loaded: dict[str, set[str]], statement: str
) -> None:
    assert "soupcore" in loaded[statement]
    assert loaded[statement].isdisjoint(HEAVY)


def test_the_package_alone_loads_not_even_torch(loaded: dict[str, set[str]]) -> None:
    assert "torch" not in loaded["import soupcore"]
    assert "soupcore.recipes.greedy" not in loaded["import soupcore"]


def test_every_public_name_is_found_and_listed() -> None:
    assert {*soupcore.__all__} == {*soupcore._MODULES}
    assert {*soupcore.__all__} <= {*dir(soupcore)}
    for name in soupcore.__all__:
        assert getattr(soupcore, name) is not None


def test_submodules_are_attributes_as_after_an_import_of_each(
    loaded: dict[str, set[str]],
) -> None:
    assert "soupcore.recipes.greedy" in loaded["soupcore.recipes.greedy"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'soupcore' has no attribute 'gredy'"):
        soupcore.gredy  # type: ignore[attr-defined]  # noqa: B018
