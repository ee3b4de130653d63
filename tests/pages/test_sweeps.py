"""Opening remote sweeps, their files, and the cache."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from safetensors.torch import save
from streamlit.testing.v1 import AppTest

from pages.components import sweeps
from soupcore import StockpotError, Sweep
from soupcore.remote import Cache
from soupcore.sweeps.remote import RemoteSweep
from tests.toy import random_state


@pytest.fixture
def sweep() -> Iterator[Sweep]:
    fs = fsspec.filesystem("memory")
    for seed in (1, 2):
        fs.pipe(f"/shown/run{seed}.safetensors", save(random_state(seed)))
    yield Sweep.from_urls("memory://shown")
    fs.store.clear()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("file:///etc", "file:// cannot be opened on a page"),
        ("http://169.254.169.254/latest", "http:// cannot be opened on a page"),
        ("hf://a/b\nmemory://shown", "memory:// cannot be opened on a page"),
        ("s3://key:word@bucket/a", "contains credentials"),
        ("runs", "'runs' is not a URL"),
        (" \n", "Name at least one URL"),
    ],
)
def test_pages_open_urls_of_the_hub_and_s3_only(text: str, problem: str) -> None:
    with pytest.raises(StockpotError, match=problem):
        sweeps.folder_of(text.splitlines())


def test_equal_urls_are_one_folder_and_nothing_is_downloaded_yet() -> None:
    folder = sweeps.folder_of(["hf://a/b", "", " base=s3://c/d "])
    assert folder == sweeps.folder_of(["hf://a/b", "base=s3://c/d"])
    found = RemoteSweep.at(Path(folder))
    assert found is not None
    assert found.urls == ("hf://a/b", "base=s3://c/d")
    assert RemoteSweep.at(Path(f"{folder}-other")) is None


def _cache(folder: str) -> None:
    import streamlit as st

    from pages.components import sweeps

    st.session_state["sweep"] = folder
    sweeps.show_cache()


def test_the_cache_is_shown_and_cleared_except_for_the_open_sweep(sweep: Sweep) -> None:
    page = AppTest.from_function(_cache, args=(str(sweep.folder),)).run()
    assert not page.exception
    assert page.expander[0].label == "Cache: 2.01 kB of 100 GB · 2 files"
    assert page.button[0].disabled
    page = AppTest.from_function(_cache, args=("elsewhere",)).run()
    assert page.button[0].label == "Clear the cache (2.01 kB)"
    page.button[0].click().run()
    assert Cache().entries() == []


def test_the_pinned_files_are_listed(sweep: Sweep) -> None:
    found = RemoteSweep.at(sweep.folder)
    assert found is not None
    files = sweeps.pinned_files(found)
    assert [*files["file"]] == ["run1.safetensors", "run2.safetensors"]
    assert all(text.startswith("modified ") for text in files["pinned to"])
