"""Local sweeps whose tables name checkpoints by URLs."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from safetensors.torch import load_file, save

import soupcore
from soupcore import Sweep, model_card, uniform
from soupcore.errors import RecipeError, RemoteError
from soupcore.jobs.kinds import WarmState, open_sweep
from soupcore.remote import Cache
from soupcore.remote.filesystems import FileSystem
from soupcore.sweeps.opening import is_scanned
from soupcore.sweeps.remote_table import remote_files, remote_of, sweep_signature
from tests.helpers import State, same_weights, save_sweep
from tests.toy import random_state, toy_runs

TABLE = """checkpoint,lr
run1.safetensors,0.1
memory://bucket/run2.safetensors,0.2
memory://bucket/run10.safetensors,0.3
"""


@pytest.fixture
def runs() -> dict[str, State]:
    return {**toy_runs(random_state(0))}


@pytest.fixture
def folder(tmp_path: Path, runs: dict[str, State]) -> Iterator[Path]:
    """A sweep with one checkpoint, whose table names two more in a bucket in memory."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    for name in ("run2", "run10"):
        fs.pipe(f"/bucket/{name}.safetensors", save(runs[name]))
    made = save_sweep(tmp_path / "mixed", {"run1": runs["run1"]})
    (made / "sweep.csv").write_text(TABLE)
    yield made
    fs.store.clear()


@pytest.fixture
def bucket(folder: Path) -> Any:
    return fsspec.filesystem("memory")


def test_rows_at_urls_are_ingredients_beside_local_ones(
    folder: Path, tmp_path: Path, runs: dict[str, State]
) -> None:
    assert not is_scanned(folder)
    sweep = Sweep.from_folder(folder)
    local = Sweep.from_folder(save_sweep(tmp_path / "local", runs))
    assert [*sweep.ingredients] == ["run1", "run2", "run10"]
    assert [each.hyperparameters["lr"] for each in sweep.ingredients.values()] == [0.1, 0.2, 0.3]
    assert uniform(sweep).id == uniform(local).id
    assert sweep.fit.findings == ()
    assert is_scanned(folder)
    assert [path.name for path in folder.iterdir() if "safetensors" in path.name] == [
        "run1.safetensors"
    ]


def test_a_table_may_have_no_local_checkpoint_and_be_json(folder: Path) -> None:
    (folder / "run1.safetensors").unlink()
    (folder / "sweep.csv").unlink()
    rows = [
        {"name": "low", "url": "memory://bucket/run2.safetensors", "lr": 1e-3},
        {"name": "base", "url": "memory://bucket/run10.safetensors"},
    ]
    (folder / "sweep.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sweep = Sweep.from_folder(folder)
    assert [*sweep.ingredients] == ["low"]
    assert sweep.base is not None
    assert sweep["low"].hyperparameters["lr"] == 1e-3


def test_equal_file_names_become_names_with_folders(folder: Path, bucket: Any) -> None:
    for run in ("a", "b"):
        bucket.pipe(f"/bucket/{run}/best.safetensors", save(random_state(len(run))))
    urls = [f"memory://bucket/{run}/best.safetensors" for run in ("a", "b")]
    save_sweep(folder, {"best": random_state(5)})
    (folder / "sweep.csv").write_text("\n".join(["path,lr", f"{urls[0]},1", f"{urls[1]},2"]))
    sweep = Sweep.from_folder(folder)
    assert [*sweep.ingredients] == ["a-best", "b-best", "best", "run1"]
    assert sweep["b-best"].hyperparameters == {"lr": 2}


def test_urls_are_resolved_once_and_new_rows_leave_the_others(folder: Path, bucket: Any) -> None:
    first, signature = Sweep.from_folder(folder), sweep_signature(folder)
    bucket.pipe("/bucket/run2.safetensors", save(random_state(8)))
    bucket.pipe("/bucket/run3.safetensors", save(random_state(9)))
    with (folder / "sweep.csv").open("a") as file:
        file.write("memory://bucket/run3.safetensors,0.4\n")
    assert not is_scanned(folder)
    longer = Sweep.from_folder(folder)
    assert [*longer.ingredients] == ["run1", "run2", "run3", "run10"]
    assert longer["run2"].digest == first["run2"].digest
    assert sweep_signature(folder) != signature
    newer = Sweep.from_folder(folder, refresh=True)
    assert newer["run2"].digest != first["run2"].digest
    (folder / "sweep.csv").write_text("\n".join(TABLE.splitlines()[:3]))
    assert [*Sweep.from_folder(folder).ingredients] == ["run1", "run2"]


def test_reopening_makes_no_requests(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Sweep.from_folder(folder)
    monkeypatch.setattr(FileSystem, "_open", None)
    assert len(Sweep.from_folder(folder)) == 3


def test_checkpoints_that_do_not_fit_the_local_ones_are_not_downloaded(
    folder: Path, bucket: Any
) -> None:
    wide = {name: tensor.repeat(2, *[1] * (tensor.ndim - 1)) for name, tensor in
            load_file(folder / "run1.safetensors").items()}  # fmt: skip
    save_sweep(folder, {"run4": random_state(4), "run5": random_state(5)})
    bucket.pipe("/bucket/run2.safetensors", save(wide))
    seen: list[tuple[int, int]] = []
    sweep = Sweep.from_folder(folder, on_progress=lambda done, total: seen.append((done, total)))
    assert sweep.fit.misfits == {"run2"}
    assert len(sweep) == 4
    assert [entry.url for entry in Cache().entries()] == ["memory:///bucket/run10.safetensors"]
    assert [done / total for done, total in seen] == sorted(done / total for done, total in seen)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://key:word@bucket/a.pt", "contains credentials"),
        ("hf://lab", "not a URL of the Hub"),
    ],
)
def test_malformed_urls_are_named(folder: Path, url: str, message: str) -> None:
    (folder / "sweep.csv").write_text(f"checkpoint\n{url}\n")
    with pytest.raises(RemoteError, match=message) as error:
        Sweep.from_folder(folder)
    assert "key:word" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://bucket/none.safetensors", r"memory://bucket/none.safet.* not exist"),
        ("memory://bucket/run*.safetensors", r".* matches 2 checkpoints"),
        ("memory://bucket/notes.txt", r"There are no checkpoints at memory://bucket/notes.txt"),
    ],
)
def test_a_url_that_cannot_be_resolved_leaves_the_other_checkpoints(
    folder: Path, bucket: Any, url: str, message: str
) -> None:
    bucket.pipe("/bucket/notes.txt", b"lr 0.1")
    with (folder / "sweep.csv").open("a") as file:
        file.write(f"{url},0.4\n")
    sweep = Sweep.from_folder(folder)
    assert [*sweep.ingredients] == ["run1", "run2", "run10"]
    (found,) = sweep.fit.findings
    assert found.severity == "misfit"
    assert re.match(message, found.problem)
    assert is_scanned(folder)  # or pages would open it again and again

    (folder / "sweep.csv").write_text(f"checkpoint\n{url}\n")  # with a local checkpoint
    assert [*Sweep.from_folder(folder).ingredients] == ["run1"]
    assert is_scanned(folder)

    (folder / "run1.safetensors").unlink()
    with pytest.raises(RemoteError, match=f"sweep.csv: {message}"):
        Sweep.from_folder(folder)
    if "none" in url:  # nothing else can be opened, so it is tried again
        bucket.pipe("/bucket/none.safetensors", save(random_state(5)))
        assert [*Sweep.from_folder(folder).ingredients] == ["none"]


def test_a_url_that_could_not_be_resolved_is_tried_again_when_asked(
    folder: Path, bucket: Any
) -> None:
    with (folder / "sweep.csv").open("a") as file:
        file.write("memory://bucket/late.safetensors,0.4\n")
    Sweep.from_folder(folder)
    bucket.pipe("/bucket/late.safetensors", save(random_state(5)))
    assert len(Sweep.from_folder(folder)) == 3
    assert "late" in Sweep.from_folder(folder, refresh=True).ingredients
    bucket.rm("/bucket/late.safetensors")
    with pytest.raises(RemoteError, match=r"late.safetensors"):
        Sweep.from_folder(folder, refresh=True)
    assert len(Sweep.from_folder(folder)) == 4  # nothing was changed


def test_another_url_under_the_same_name_brings_only_its_own_files(
    folder: Path, bucket: Any, runs: dict[str, State]
) -> None:
    for version in ("v1", "v2"):
        bucket.pipe(f"/bucket/{version}/model.safetensors", save(random_state(len(version))))
        bucket.pipe(f"/bucket/{version}/config.json", f'{{"lr": {version[1]}}}'.encode())
    bucket.pipe("/bucket/v1/epoch=1.safetensors", save(runs["run2"]))
    bucket.pipe("/bucket/v2/model.safetensors", save(runs["run10"]))
    table = "name,url\nmine,memory://bucket/{}\n"
    (folder / "sweep.csv").write_text(table.format("v1"))
    assert len(Sweep.from_folder(folder, snapshot="every")) == 3
    (folder / "sweep.csv").write_text(table.format("v2"))
    sweep = Sweep.from_folder(folder, snapshot="every")
    assert [*sweep.ingredients] == ["mine", "run1"]
    assert sweep["mine"].digest == Sweep.from_urls("memory://bucket/v2")["v2"].digest
    there = remote_of(folder)
    assert there is not None
    files = [path.relative_to(there.folder) for path in there.folder.rglob("*.*")]
    assert (there.folder / "mine/config.json").read_text() == '{"lr": 2}'  # of the same size
    assert sorted(map(str, files)) == [".remote.json", "mine/config.json", "mine/model.safetensors"]


def test_new_and_renamed_rows_keep_the_files_of_the_others(folder: Path, bucket: Any) -> None:
    first = Sweep.from_folder(folder)
    for run in ("run2", "run10"):
        bucket.pipe(f"/bucket/{run}.safetensors", save(random_state(8)))
    bucket.pipe("/bucket/other/run2.safetensors", save(random_state(9)))
    (folder / "sweep.csv").write_text(
        "name,url\n"
        ",memory://bucket/run2.safetensors\n"
        ",memory://bucket/other/run2.safetensors\n"
        "ten,memory://bucket/run10.safetensors\n"
    )
    sweep = Sweep.from_folder(folder)
    assert [*sweep.ingredients] == ["bucket-run2", "other-run2", "run1", "ten"]
    assert sweep["bucket-run2"].digest == first["run2"].digest
    assert sweep["ten"].digest == first["run10"].digest


def test_urls_can_be_resolved_again_before_they_were_opened(folder: Path) -> None:
    assert len(Sweep.from_folder(folder, refresh=True)) == 3


def test_a_downloaded_table_names_no_further_files(bucket: Any, runs: dict[str, State]) -> None:
    bucket.pipe("/bucket/sweep/run1.safetensors", save(runs["run1"]))
    bucket.pipe("/bucket/sweep/sweep.csv", TABLE.encode())
    sweep = Sweep.from_urls("memory://bucket/sweep")
    assert [*sweep.ingredients] == ["run1"]
    assert [each.problem for each in sweep.fit.findings] == [
        "names checkpoints by URLs, which are not opened: run2, run10"
    ]


def test_findings_show_no_secrets_of_urls(folder: Path) -> None:
    (folder / "sweep.csv").write_text(
        "path\nftp://user:very-secret@host/a.pt\n"
        "https://x.blob.core.windows.net/run9.pt?sv=1&sig=very-secret\n"
    )
    sweep = Sweep.from_folder(folder, within=[folder])
    assert sweep.fit.findings
    assert "very-secret" not in str(sweep.fit.findings)


def test_links_of_trackers_and_local_copies_are_no_remote_checkpoints(folder: Path) -> None:
    (folder / "sweep.csv").write_text(
        "name,url,path\n"
        "run1,https://tracker/runs/7,/scratch/run1.safetensors\n"
        "run9,https://tracker/runs/9,file:///etc/passwd\n"
    )
    sweep = Sweep.from_folder(folder)
    assert [*sweep.ingredients] == ["run1"]
    assert [f.ingredient for f in sweep.fit.findings] == ["run9"]
    assert remote_of(folder) is None


def test_a_copy_in_the_folder_is_used_and_noted(folder: Path, runs: dict[str, State]) -> None:
    save_sweep(folder, {"run2": runs["run2"]})
    sweep = Sweep.from_folder(folder)
    assert [*sweep.ingredients] == ["run1", "run2", "run10"]
    (note,) = sweep.fit.findings
    assert "that are also in this folder: run2" in note.problem
    assert not any("run2" in entry.url for entry in Cache().entries())


def test_pages_open_the_hub_and_s3_only(folder: Path) -> None:
    sweep = Sweep.from_folder(folder, within=[folder])
    assert [*sweep.ingredients] == ["run1"]
    assert "names checkpoints on memory://, which cannot be opened here" in str(
        [f.problem for f in sweep.fit.findings]
    )


def test_a_soup_is_rebuilt_from_local_and_remote_files(folder: Path, tmp_path: Path) -> None:
    sweep = Sweep.from_folder(folder)
    manifest = json.loads(json.dumps(uniform(sweep).to_json()))
    assert sorted(manifest["remote"]) == ["run10.safetensors", "run2.safetensors"]
    files = [file for each in sweep.ingredients.values() for file in each.checkpoint.files]
    assert remote_files(folder, files).keys() == manifest["remote"].keys()
    Cache().clear()
    assert soupcore.rebuild(manifest, folder).id == uniform(sweep).id
    assert len(downloads()) == 2


def downloads() -> list[str]:
    return sorted(Path(entry.url).name for entry in Cache().entries())


def test_a_rebuilt_soup_downloads_missing_files(
    folder: Path, tmp_path: Path, runs: dict[str, State]
) -> None:
    soup = uniform(Sweep.from_folder(folder))
    manifest = json.loads(json.dumps(soup.to_json()))
    copies = save_sweep(tmp_path / "copies", {"one": runs["run1"], "ten": runs["run10"]})
    Cache().clear()
    again = soupcore.rebuild(manifest, copies)
    assert again.id == soup.id
    assert again.to_json() == manifest  # with the URLs of checkpoints that were in the folder
    assert downloads() == ["run2.safetensors"]


@pytest.mark.parametrize("where", ["mixed", "copies", None])
def test_nothing_is_downloaded_for_a_soup_whose_local_files_are_missing(
    folder: Path, tmp_path: Path, runs: dict[str, State], where: str | None
) -> None:
    manifest = json.loads(json.dumps(uniform(Sweep.from_folder(folder)).to_json()))
    save_sweep(tmp_path / "copies", {"ten": runs["run10"]})
    (folder / "run1.safetensors").unlink()
    Cache().clear()
    with pytest.raises(RecipeError) as error:
        soupcore.rebuild(manifest, where and tmp_path / where)
    assert downloads() == []
    assert "run1 is missing" in str(error.value)
    assert "run2" not in str(error.value)
    assert f"from {tmp_path / where if where else 'its URLs alone'}: " in str(error.value)


def test_a_later_format_is_no_reason_to_download(folder: Path, runs: dict[str, State]) -> None:
    manifest = json.loads(json.dumps(uniform(Sweep.from_folder(folder)).to_json()))
    save_sweep(folder, runs)
    Cache().clear()
    with pytest.raises(RecipeError, match="format 99"):
        soupcore.rebuild(manifest | {"format": 99}, folder)
    assert downloads() == []


def test_all_folders_that_were_searched_are_named(folder: Path) -> None:
    manifest = json.loads(json.dumps(uniform(Sweep.from_folder(folder)).to_json()))
    manifest["digests"]["run2"] = "0" * 64
    with pytest.raises(RecipeError, match="run2 has other weights") as error:
        soupcore.rebuild(manifest, folder)
    (where, _) = str(error.value).removeprefix("Cannot rebuild the soup from ").split(": ", 1)
    first, second = map(Path, where.split(" and "))
    assert first == folder
    assert (second / "run2.safetensors").is_file()


@pytest.mark.parametrize(
    ("where", "in_folder"), [("mixed", {"run1"}), ("local", {"run1", "run2", "run10"}), ("", set())]
)
def test_the_code_of_a_card_makes_the_soup_again(
    folder: Path,
    tmp_path: Path,
    runs: dict[str, State],
    bucket: Any,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    in_folder: set[str],
) -> None:
    save_sweep(tmp_path / "local", runs)
    bucket.pipe("/bucket/run1.safetensors", save(runs["run1"]))
    sweep = Sweep.from_folder(tmp_path / where) if where else Sweep.from_urls("memory://bucket")
    soup = uniform(sweep)
    card = model_card(soup)
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / f"uniform-{soup.id}.json").write_text(json.dumps(soup.to_json()))
    if in_folder:
        save_sweep(place / "folder", {name: runs[name] for name in in_folder})
    monkeypatch.chdir(place)
    exec(card.split("```python\n")[1].split("```")[0], {})  # noqa: S102
    assert same_weights(load_file(place / "soup.safetensors"), soup.state_dict())
    assert ("With `run1.safetensors` in a folder, " in card) == (where == "mixed")


def test_a_job_notices_that_urls_were_resolved_again(
    folder: Path, bucket: Any, tmp_path: Path
) -> None:
    warm = WarmState(soupcore.Store(tmp_path / "store"), tasks=[])
    request = {"sweep": str(folder)}
    open_sweep(warm, request, lambda *progress: None)
    before = warm.sweep(request)
    bucket.pipe("/bucket/run2.safetensors", save(random_state(8)))
    assert warm.sweep(request)["run2"].digest == before["run2"].digest
    bucket.rm("/bucket/run10.safetensors")
    (folder / "sweep.csv").write_text("\n".join(TABLE.splitlines()[:3]))
    open_sweep(warm, {**request, "refresh": True}, lambda *progress: None)
    assert warm.sweep(request)["run2"].digest != before["run2"].digest
    assert "run10" not in warm.sweep(request).ingredients
    warm.store.close()
