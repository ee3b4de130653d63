import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from safetensors.torch import save

import soupcore
from soupcore import NothingFitsError, Sweep, uniform
from soupcore.errors import RecipeError, RemoteError, StoreError, SweepError
from soupcore.remote import Cache
from soupcore.remote.filesystems import FileSystem
from soupcore.sweeps.opening import is_scanned
from soupcore.sweeps.remote import MANIFEST, RemoteSweep
from tests.helpers import State, save_sweep
from tests.toy import random_state, toy_runs


@pytest.fixture
def bucket() -> Iterator[Any]:
    """A bucket in memory with three fine-tuned networks and a table."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    put(fs, toy_runs(random_state(0)))
    fs.pipe("/bucket/sweep/sweep.csv", b"checkpoint,lr\nrun1,0.1\nrun2,0.2\nrun10,0.3\n")
    yield fs
    fs.store.clear()


def put(fs: Any, states: Mapping[str, State], folder: str = "/bucket/sweep") -> None:
    for name, state in states.items():
        fs.pipe(f"{folder}/{name}.safetensors", save(dict(state)))


def big(width: int = 300) -> State:
    return {"w.weight": torch.randn(width, width)}


def test_a_remote_sweep_is_like_the_local_one(bucket: Any, tmp_path: Path) -> None:
    save_sweep(tmp_path, toy_runs(random_state(0)))
    sweep, local = Sweep.from_urls("memory://bucket/sweep"), Sweep.from_folder(tmp_path)
    assert sweep.urls == ("memory://bucket/sweep",)
    assert [*sweep.ingredients] == [*local.ingredients] == ["run1", "run2", "run10"]
    assert sweep["run2"].hyperparameters == {"lr": 0.2}
    assert uniform(sweep).id == uniform(local).id
    for name in sweep.ingredients:
        assert sweep[name].digest == local[name].digest
    assert is_scanned(sweep.folder)


def test_a_folder_may_be_a_url(bucket: Any) -> None:
    sweep = Sweep.from_folder("memory://bucket/sweep", base="run1")
    assert [*sweep.ingredients] == ["run2", "run10"]


def test_a_distributed_checkpoint_is_refused_with_the_command_that_converts_it(
    bucket: Any,
) -> None:
    bucket.pipe("/bucket/parts/run/__0_0.distcp", b"x")
    with pytest.raises(RemoteError, match=r"is a distributed checkpoint of torch \(run/\*\.distcp"):
        Sweep.from_urls("memory://bucket/parts")


def test_a_distributed_checkpoint_beside_others_is_reported_and_not_downloaded(bucket: Any) -> None:
    for part in range(2):
        bucket.pipe(f"/bucket/sweep/big/__{part}_0.distcp", b"x" * 1000)
    bucket.pipe("/bucket/sweep/big/.metadata", b"x")
    sweep = Sweep.from_urls("memory://bucket/sweep")
    assert len(sweep) == 3
    (finding,) = (f for f in sweep.fit.findings if f.severity == "misfit")
    assert finding.ingredient == "big"
    assert "dcp_to_torch big model.pt" in finding.way_out
    assert not any("distcp" in entry.url for entry in Cache().entries())


def test_an_old_torch_file_that_does_not_fit_is_not_downloaded(bucket: Any) -> None:
    for name, width in (("a", 300), ("b", 300), ("wide", 310)):
        buffer = io.BytesIO()
        torch.save(big(width), buffer, _use_new_zipfile_serialization=False)
        bucket.pipe(f"/bucket/old/{name}.pt", buffer.getvalue())
    sweep = Sweep.from_urls("memory://bucket/old")
    assert [*sweep.ingredients] == ["a", "b"]
    assert sweep.fit.misfits == {"wide"}
    assert not any("wide" in entry.url for entry in Cache().entries())


def test_wildcards_and_names(bucket: Any) -> None:
    put(bucket, {"start": random_state(0)}, "/bucket/other")
    urls = [
        "memory://bucket/sweep/run*.safetensors",
        "base=memory://bucket/other/start.safetensors",
    ]
    sweep = Sweep.from_urls(urls)
    assert [*sweep.ingredients] == ["run1", "run2", "run10"]
    assert sweep.base is not None
    alone = Sweep.from_urls("memory://bucket/other/start.safetensors")
    assert sweep.base.digest == alone["start"].digest
    put(bucket, {"run1": random_state(9)}, "/bucket/other")
    names = Sweep.from_urls(["memory://bucket/*/run1.safetensors"]).ingredients
    assert [*names] == ["other-run1", "sweep-run1"]


def test_a_manifest_outside_of_the_workspace_is_ignored(bucket: Any, tmp_path: Path) -> None:
    save_sweep(tmp_path, toy_runs(random_state(0)))
    remote = RemoteSweep.of("memory://bucket/sweep")
    (tmp_path / MANIFEST).write_bytes((remote.folder / MANIFEST).read_bytes())
    assert RemoteSweep.at(tmp_path) is None
    sweep = Sweep.from_folder(tmp_path)
    assert sweep.urls == ()
    assert not (tmp_path / "sweep.csv").exists()
    assert Cache().entries() == []


def test_reopening_makes_no_requests(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Sweep.from_urls("memory://bucket/sweep")
    with monkeypatch.context() as patched:
        patched.setattr(FileSystem, "_open", None)
        assert Sweep.from_urls("memory://bucket/sweep")["run1"].digest == first["run1"].digest
        assert Sweep.from_folder(first.folder)["run1"].digest == first["run1"].digest
    put(bucket, {"run1": random_state(9)})
    assert Sweep.from_urls("memory://bucket/sweep")["run1"].digest == first["run1"].digest
    newer = Sweep.from_urls("memory://bucket/sweep", refresh=True)
    assert newer["run1"].digest != first["run1"].digest


def test_a_changed_file_under_the_same_name_is_noticed(bucket: Any) -> None:
    sweep = Sweep.from_urls("memory://bucket/sweep")
    Cache().clear()
    assert not is_scanned(sweep.folder)
    put(bucket, {"run1": random_state(9)})
    with pytest.raises(RemoteError, match=r"run1.safetensors was changed: it is pinned"):
        Sweep.from_folder(sweep.folder)
    bucket.rm("/bucket/sweep/run1.safetensors")
    with pytest.raises(RemoteError, match=r"memory:.*run1.safetensors does not exist"):
        Sweep.from_folder(sweep.folder)


def test_removed_files_are_downloaded_again(bucket: Any) -> None:
    sweep = Sweep.from_urls("memory://bucket/sweep")
    Cache().clear()
    seen: list[tuple[int, int]] = []
    again = Sweep.from_folder(
        sweep.folder, on_progress=lambda done, total: seen.append((done, total))
    )
    assert again["run1"].digest == sweep["run1"].digest
    assert seen[-1][0] == seen[-1][1]


def test_checkpoints_that_cannot_fit_are_not_downloaded(bucket: Any) -> None:
    put(bucket, {"a": big(), "b": big(), "wide": big(310)}, "/bucket/big")
    sweep = Sweep.from_urls("memory://bucket/big")
    assert [*sweep.ingredients] == ["a", "b"]
    (finding,) = (f for f in sweep.fit.findings if f.severity == "misfit")
    assert (finding.ingredient, finding.tensor) == ("wide", "w.weight")
    assert not any("wide" in entry.url for entry in Cache().entries())


def test_nothing_is_downloaded_if_nothing_fits(bucket: Any) -> None:
    put(bucket, {"q": {"w.qweight": torch.ones(9, 9, dtype=torch.int32)}}, "/bucket/quantized")
    with pytest.raises(NothingFitsError) as error:
        Sweep.from_urls("memory://bucket/quantized")
    assert "quantized" in error.value.fit.findings[0].problem
    assert Cache().entries() == []


def test_a_sweep_larger_than_the_budget_is_refused_before_its_download(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPOT_CACHE_GB", "0.000001")
    with pytest.raises(StoreError, match="a budget of 1 kB"):
        Sweep.from_urls("memory://bucket/sweep/run*")


def test_a_soup_is_rebuilt_from_its_manifest(bucket: Any, tmp_path: Path) -> None:
    soup = uniform(Sweep.from_urls("memory://bucket/sweep"))
    manifest = json.loads(json.dumps(soup.to_json()))
    assert (
        manifest["remote"]["run1.safetensors"]["url"] == "memory:///bucket/sweep/run1.safetensors"
    )
    (one,) = soup.save(tmp_path / "a.safetensors")
    Cache().clear()
    (other,) = soupcore.rebuild(manifest).save(tmp_path / "b.safetensors")
    assert one.read_bytes() == other.read_bytes()
    del manifest["remote"]
    with pytest.raises(RecipeError, match="has no URLs of its ingredients"):
        soupcore.rebuild(manifest)


def test_a_base_with_another_head_is_downloaded_for_a_rebuilt_soup(
    bucket: Any, tmp_path: Path
) -> None:
    base = random_state(0)
    base |= {name: torch.ones(7, *base[name].shape[1:]) for name in ("3.weight", "3.bias")}
    put(bucket, {"base": base})
    soup = soupcore.task_arithmetic(Sweep.from_urls("memory://bucket/sweep"))
    manifest = json.loads(json.dumps(soup.to_json()))
    runs = toy_runs(random_state(0))
    save_sweep(tmp_path, {name: runs[name] for name in ("run1", "run10")})
    for folder in (None, tmp_path):
        Cache().clear()
        assert soupcore.rebuild(manifest, folder).id == soup.id


@pytest.mark.parametrize("path", ["../a.pt", "/a.pt", "a/../../b.pt", ".hidden.pt", ""])
def test_a_manifest_cannot_lead_out_of_its_folder(path: str) -> None:
    file = {"url": "memory:///a.pt", "size": 1}
    with pytest.raises(RemoteError, match="not a plain path"):
        soupcore.rebuild({"remote": {path: file}, "digests": {"a": "0" * 64}})


@pytest.mark.parametrize("text", ["", "[]", '{"format": 9}', '{"format": 1, "files": 3}'])
def test_a_damaged_manifest_is_named(bucket: Any, text: str) -> None:
    remote = RemoteSweep.of("memory://bucket/sweep")
    (remote.folder / MANIFEST).write_text(text)
    with pytest.raises(SweepError, match="is not the manifest of a remote sweep"):
        Sweep.from_urls("memory://bucket/sweep")


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ([], "Name at least one URL"),
        (["runs"], "'runs' is not a URL"),
        (["memory://bucket/none"], "memory://bucket/none does not exist"),
        (["memory://bucket/sweep/x*"], "Nothing matches memory://bucket/sweep/x"),
        (["memory://bucket/sweep/sweep.csv"], "There are no checkpoints at"),
        (["nosuch://bucket"], "nosuch:// is not supported"),
    ],
)
def test_urls_without_checkpoints_are_refused(bucket: Any, urls: list[str], message: str) -> None:
    with pytest.raises(RemoteError, match=message):
        Sweep.from_urls(urls)
