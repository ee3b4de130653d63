"""What `import soupcore` loads: only what a process uses."""

import subprocess
import sys

import pytest

import soupcore

HEAVY = ["sqlalchemy", "pandas", "plotly", "scipy.optimize", "scipy.stats", "sklearn", "networkx"]


def loaded(code: str) -> set[str]:
    """Return the modules that a new process has loaded after running this code."""
    shown = f"{code}; import sys; print(*sys.modules)"
    return {*subprocess.check_output([sys.executable, "-c", shown], text=True).split()}


@pytest.mark.parametrize(
    "code",
    [
        "import soupcore",
        "import soupcore; soupcore.Sweep; [getattr(soupcore, name) for name in soupcore.RECIPES]",
    ],
)
def test_heavy_modules_are_loaded_by_the_first_call_that_needs_them(code: str) -> None:
    modules = loaded(code)
    assert "soupcore" in modules
    assert modules.isdisjoint(HEAVY)


def test_the_package_alone_loads_not_even_torch() -> None:
    assert "torch" not in loaded("import soupcore")


def test_every_public_name_is_found_and_listed() -> None:
    assert {*soupcore.__all__} == {*soupcore._MODULES}
    assert {*soupcore.__all__} <= {*dir(soupcore)}
    for name in soupcore.__all__:
        assert getattr(soupcore, name) is not None


def test_submodules_are_attributes_as_after_an_import_of_each() -> None:
    assert "soupcore.recipes.greedy" in loaded("import soupcore; soupcore.recipes.greedy")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'soupcore' has no attribute 'gredy'"):
        soupcore.gredy  # type: ignore[attr-defined]  # noqa: B018
