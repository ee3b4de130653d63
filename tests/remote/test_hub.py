"""Sweeps on a Hub on the loopback interface."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save
from torch import nn

from soupcore import Cancelled, NothingFitsError, Sweep, push_to_hub, rebuild, uniform
from soupcore.errors import RemoteError
from soupcore.provenance.hub import PASSES
from soupcore.remote import Cache
from soupcore.remote.headers import FIRST
from soupcore.remote.hub import without_logs
from soupcore.sweeps.remote import MANIFEST, RemoteSweep
from soupcore.workspace import workspace_folder
from tests.helpers import same_weights
from tests.remote.hub_server import SIGNATURE, LoopbackHub, running

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning"),  # of huggingface_hub
]


def state(seed: int, width: int = 300) -> dict[str, torch.Tensor]:
    """Return the weights of a network of 0.7 MB."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(width, width), nn.Linear(width, width)).state_dict()


CONFIG = json.dumps({"architectures": ["ToyModel"], "hidden_size": 300}).encode()


def model(seed: int, width: int = 300) -> dict[str, bytes]:
    return {
        "config.json": CONFIG,
        "model.safetensors": save(state(seed, width)),
        "tf_model.h5": b"x" * 5000,
        ".gitattributes": b"*.safetensors filter=lfs",
    }


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A Hub with two repositories, one of them with three branches."""
    pytest.importorskip("huggingface_hub")
    hub = LoopbackHub()
    hub.commit("lab/a", model(1))
    hub.commit("lab/b", model(2))
    for step in (10, 100, 20):
        hub.commit("lab/run", model(step), f"step-{step}")
    with running(hub):
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr("soupcore.remote.files.WAIT", 0.001)
        monkeypatch.setattr("soupcore.remote.cache._POLL", 0.001)
        yield hub


def test_a_soup_of_remote_models_is_that_of_local_files(hub: LoopbackHub, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        folder = tmp_path / "local" / name
        folder.mkdir(parents=True)
        for file, content in model(seed).items():
            (folder / file).write_bytes(content)
    local = uniform(Sweep.from_folder(tmp_path / "local"))
    remote = uniform(Sweep.from_urls(["hf://lab/a", "hf://lab/b"]))
    assert remote.id == local.id
    files = [soup.save(tmp_path / f"{i}.safetensors") for i, soup in enumerate((local, remote))]
    one, other = (file[0].read_bytes() for file in files)
    header = int.from_bytes(one[:8], "little") + 8
    assert one[header:] == other[int.from_bytes(other[:8], "little") + 8 :]


def test_a_revision_is_pinned_to_its_commit(hub: LoopbackHub) -> None:
    first = hub.repos["lab/a"].branches["main"]
    sweep = Sweep.from_urls(["hf://lab/a", "hf://lab/b"])
    manifest = json.loads((sweep.folder / MANIFEST).read_text())
    assert (
        manifest["files"]["a/model.safetensors"]["url"] == f"hf://lab/a@{first}/model.safetensors"
    )
    assert "tf_model.h5" not in json.dumps(manifest)

    hub.commit("lab/a", model(5))
    assert Sweep.from_urls(["hf://lab/a", "hf://lab/b"])["a"].digest == sweep["a"].digest
    newer = Sweep.from_urls(["hf://lab/a", "hf://lab/b"], refresh=True)
    assert newer["a"].digest != sweep["a"].digest
    assert newer["b"].digest == sweep["b"].digest


def test_wildcards_over_revisions_open_the_snapshots_of_a_run(hub: LoopbackHub) -> None:
    sweep = Sweep.from_urls(["hf://lab/run@step-*", "base=hf://lab/a@main/model.safetensors"])
    assert [*sweep.ingredients] == ["step-10", "step-20", "step-100"]
    assert sweep.base is not None


def test_headers_show_misfits_before_the_download(hub: LoopbackHub) -> None:
    hub.commit("lab/wide", model(3, width=310))
    sweep = Sweep.from_urls(["hf://lab/a", "hf://lab/b", "hf://lab/wide"])
    assert [*sweep.ingredients] == ["a", "b"]
    (finding, *_) = [f for f in sweep.fit.findings if f.severity == "misfit"]
    assert finding.ingredient == "wide"
    assert "[310, 310], but [300, 300]" in finding.problem
    size = len(model(3, width=310)["model.safetensors"])
    downloaded = 2 * len(model(1)["model.safetensors"])
    assert hub.sent["model.safetensors"] == downloaded + 3 * FIRST
    assert size > 2 * FIRST


def test_nothing_is_downloaded_if_nothing_opens(hub: LoopbackHub) -> None:
    bad = b"version https://git-lfs.github.com/spec/v1\n" + b"oid sha256:0\n" * 200
    hub.commit("lab/bad", {"config.json": CONFIG, "model.safetensors": bad})
    with pytest.raises(NothingFitsError):
        Sweep.from_urls("hf://lab/bad")
    assert hub.sent["model.safetensors"] <= len(bad)


def torch_file(weights: dict[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    return buffer.getvalue()


def test_checking_a_torch_file_downloads_its_pickle_and_its_directory(hub: LoopbackHub) -> None:
    for name, width in (("p", 300), ("q", 300), ("r", 310)):
        weights = torch_file(state(len(name), width))
        hub.commit(f"lab/{name}", {"config.json": CONFIG, "pytorch_model.bin": weights})
    sweep = Sweep.from_urls(["hf://lab/p", "hf://lab/q", "hf://lab/r"])
    assert [*sweep.ingredients] == ["p", "q"]
    size = len(torch_file(state(1)))
    assert hub.sent["pytorch_model.bin"] <= 2 * size + 3 * (FIRST + (64 << 10))
    assert size > FIRST + (64 << 10)


def test_a_download_that_is_cut_off_continues(hub: LoopbackHub) -> None:
    size = len(model(1)["model.safetensors"])
    hub.cut_after = size // 3
    sweep = Sweep.from_urls(["hf://lab/a", "hf://lab/b"])
    assert len(sweep) == 2
    # Each byte came once, beside the headers.
    assert hub.sent["model.safetensors"] == 2 * (size + FIRST)


def test_a_local_table_names_models_of_the_hub(hub: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    for path, content in model(3).items():
        (tmp_path / "here" / path).write_bytes(content)
    rows = "checkpoint,lr\nhere,0.1\nhf://lab/a,0.2\nhf://lab/b@main,0.3\nhf://lab/wide,0.4\n"
    (tmp_path / "sweep.csv").write_text(rows)
    hub.commit("lab/wide", model(3, width=310))
    sweep = Sweep.from_folder(tmp_path)
    assert [*sweep.ingredients] == ["a", "b", "here"]
    assert [each.hyperparameters["lr"] for each in sweep.ingredients.values()] == [0.2, 0.3, 0.1]
    assert sweep.fit.misfits == {"wide"}
    size = len(model(1)["model.safetensors"])
    assert hub.sent["model.safetensors"] == 2 * size + 3 * FIRST
    requests = len(hub.requests)
    assert len(Sweep.from_folder(tmp_path)) == 3
    assert len(hub.requests) == requests


def test_a_cancelled_download_continues_later(hub: LoopbackHub) -> None:
    size = len(model(1)["model.safetensors"])
    seen = []

    def cancel(done: int, total: int) -> None:
        seen.append((done, total))
        if done > total // 8:
            raise Cancelled

    with pytest.raises(Cancelled):
        Sweep.from_urls(["hf://lab/a", "hf://lab/b"], on_progress=cancel)
    begun = sum(e.nbytes for e in Cache().entries() if not e.is_complete)
    assert 0 < begun < size
    Sweep.from_urls(["hf://lab/a", "hf://lab/b"])
    assert hub.sent["model.safetensors"] < 2 * (size + FIRST) + size // 2
    assert seen == sorted(seen)


def test_an_abandoned_download_reports_the_bytes_received(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    Sweep.from_urls("hf://lab/a")
    hub.cut_after = 0
    with pytest.raises(RemoteError, match=r"lab/b@\w+/config.json: the connection .* 0 bytes of"):
        Sweep.from_urls("hf://lab/b")


def test_cached_files_open_offline(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    Sweep.from_urls(["hf://lab/a", "hf://lab/b"])
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    count = len(hub.requests)
    assert len(Sweep.from_urls(["hf://lab/a", "hf://lab/b"])) == 2
    assert len(hub.requests) == count
    with pytest.raises(RemoteError, match="the Hub cannot be reached"):
        Sweep.from_urls("hf://lab/run@step-10")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("hf://lab/none", "hf://lab/none: the repository does not exist, or it is private"),
        ("hf://lab/a@v9", "no such branch, tag or commit"),
        ("hf://lab/a/none.safetensors", "has no 'none.safetensors' at revision 'main'"),
        ("hf://lab/run@epoch-*", "no branch or tag matches.*step-10, step-100, step-20"),
        ("hf://lab/secret", "it is private and you have no token"),
    ],
)
def test_missing_repositories_and_files_are_named(hub: LoopbackHub, url: str, message: str) -> None:
    hub.commit("lab/secret", model(1), private=True)
    with pytest.raises(RemoteError, match=message):
        Sweep.from_urls(url)


def test_private_repositories_open_with_the_token_only(
    hub: LoopbackHub,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.commit("lab/secret", model(1), private=True)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong_token")
    with pytest.raises(RemoteError, match="the Hub refuses your token") as error:
        Sweep.from_urls("hf://lab/secret")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    sweep = Sweep.from_urls("hf://lab/secret")
    soup = uniform(sweep)
    soup.save(tmp_path / "soup.safetensors")
    kept = [error.value.args[0], json.dumps(soup.to_json())]
    kept += [record.getMessage() for record in caplog.records]
    places = [tmp_path / "soup.safetensors", *sweep.folder.parent.rglob("*")]
    kept += [path.read_bytes().decode("latin-1") for path in places if path.is_file()]
    for secret in (hub.token, "hf_wrong_token", SIGNATURE):
        assert not any(secret in text for text in kept)


def test_damaged_bytes_are_noticed(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.remote import hub_server

    remote = RemoteSweep.of("hf://lab/a")
    good = hub_server._Handler._of_digest

    def damaged(self: hub_server._Handler, digest: str) -> bytes:
        content = good(self, digest)
        return content[:-1] + bytes([content[-1] ^ 1])

    monkeypatch.setattr(hub_server._Handler, "_of_digest", damaged)
    with pytest.raises(RemoteError, match="damaged during the download"):
        Sweep.from_urls("hf://lab/a")
    monkeypatch.undo()
    assert not any(e.nbytes > 10_000 for e in Cache(remote.folder.parents[1]).entries())


def test_a_soup_is_rebuilt_from_the_urls_in_its_manifest(hub: LoopbackHub, tmp_path: Path) -> None:
    soup = uniform(Sweep.from_urls(["hf://lab/a", "hf://lab/b"]))
    manifest = json.loads(json.dumps(soup.to_json()))
    hub.commit("lab/a", model(5))
    Cache().clear()
    again = rebuild(manifest)
    assert again.id == soup.id
    assert again.sources["a"].digest == soup.sources["a"].digest


def test_a_soup_is_pushed_with_its_card(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    soup = uniform(Sweep.from_urls(["hf://lab/a", "hf://lab/b"]))
    with pytest.raises(RemoteError, match=r"hf://lab/soup: .*token"):
        push_to_hub(soup, "lab/soup")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    url = push_to_hub(soup, "lab/soup")
    repo = hub.repos["lab/soup"]
    assert repo.private
    assert url == f"{hub.url}/lab/soup/commit/{repo.branches['main']}"
    files = repo.commits[repo.branches["main"]]
    assert {"config.json", "README.md", "model.safetensors"} <= files.keys()
    assert "hf_" not in files["README.md"].decode()
    assert "- lab/a\n- lab/b\n" in files["README.md"].decode().replace('"', "")
    pushed = Sweep.from_urls("hf://lab/soup")["soup"].checkpoint
    assert same_weights(pushed.state_dict(), soup.state_dict())


def test_other_files_are_pushed_too(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    names = ("a", "b")
    hub.commit("lab/files", {f"{n}.safetensors": save(state(len(n))) for n in names})
    soup = uniform(Sweep.from_urls("hf://lab/files"))
    assert push_to_hub(soup, "lab/files-soup", public=True)
    repo = hub.repos["lab/files-soup"]
    assert not repo.private
    files = repo.commits[repo.branches["main"]]
    assert files.keys() == {"model.safetensors", "README.md", f"uniform-{soup.id}.json"}


def test_an_upload_has_progress_and_is_cancelled_without_a_commit(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    soup = uniform(Sweep.from_urls(["hf://lab/a", "hf://lab/b"]))
    size = len(model(1)["model.safetensors"])
    seen = [0]
    push_to_hub(soup, "lab/soup", on_bytes=lambda nbytes: seen.append(seen[-1] + nbytes))
    assert PASSES * size < seen[-1] < PASSES * size + 50_000
    assert len([each for each in seen if each > 2 * size]) > 3
    commits = len(hub.repos["lab/soup"].commits)

    for part in (0.5, 1.5, 2.5, 2.99):  # while it is written, hashed, uploaded
        done = 0

        def cancel(nbytes: int, part: float = part) -> None:
            nonlocal done
            done += nbytes
            if done >= part * size:
                raise Cancelled

        with pytest.raises(Cancelled):
            push_to_hub(soup, "lab/soup", on_bytes=cancel)
        assert len(hub.repos["lab/soup"].commits) == commits
    assert not [*workspace_folder().glob(".push-*")]


def test_a_failed_upload_leaves_the_repository_as_it_was(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.commit("lab/soup", {"config.json": CONFIG})
    soup = uniform(Sweep.from_urls(["hf://lab/a", "hf://lab/b"]))
    monkeypatch.setattr(hub, "refuses_uploads", True)
    with pytest.raises(RemoteError, match="hf://lab/soup: the upload of the weights") as error:
        push_to_hub(soup, "lab/soup")
    assert len(hub.repos["lab/soup"].commits) == 1
    texts = [str(error.value), *(record.getMessage() for record in caplog.records)]
    assert not any(hub.token in text for text in texts)


LOUD = ("huggingface_hub", "huggingface_hub.utils._http", "httpx", "httpx2", "a.caller")


def test_the_loggers_are_silent_until_the_last_of_several_uploads_has_ended() -> None:
    logger = logging.getLogger("huggingface_hub.utils._http")
    assert logger.isEnabledFor(logging.WARNING)
    with ExitStack() as first, ExitStack() as second:
        for upload in (first, second):
            upload.enter_context(without_logs)
        first.close()
        assert not logger.isEnabledFor(logging.CRITICAL)
        second.close()
        assert logger.isEnabledFor(logging.WARNING)


def test_no_signed_address_is_logged_though_an_upload_is_tried_again(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in LOUD:
        caplog.set_level(logging.DEBUG, name)
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda s: None))
    monkeypatch.setenv("HF_TOKEN", hub.token)
    soup = uniform(Sweep.from_urls(["hf://lab/a", "hf://lab/b"]))
    caplog.clear()
    hub.busy = 2
    push_to_hub(soup, "lab/soup", on_bytes=lambda nbytes: logging.getLogger("a.caller").info("!"))
    assert hub.busy == 0
    assert {record.name for record in caplog.records} >= {"a.caller"}
    assert SIGNATURE not in caplog.text
    caplog.clear()
    for name in LOUD:  # afterwards, as before
        logging.getLogger(name).warning("again")
    assert [record.name for record in caplog.records] == [*LOUD]
    assert {logging.getLogger(name).level for name in LOUD} == {logging.DEBUG}
