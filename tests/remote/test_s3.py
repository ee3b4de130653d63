"""Sweeps on an S3 server on the loopback interface (moto)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from soupcore import Sweep, uniform
from soupcore.errors import RemoteError
from soupcore.remote import Cache
from soupcore.remote.headers import FIRST
from soupcore.sweeps.remote import MANIFEST

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of moto and botocore
]
SECRET = "s3cr3t/Access+Key"  # noqa: S105


def weights(seed: int) -> bytes:
    torch.manual_seed(seed)
    return save({"w.weight": torch.randn(300, 300), "b.weight": torch.randn(300, 300)})


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the server, with a bucket of two checkpoints and a table."""
    boto3 = pytest.importorskip("boto3")
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    import requests

    requests.post(f"{server}/moto-api/reset", timeout=30)
    client = boto3.client("s3")
    client.create_bucket(Bucket="runs")
    for seed in (1, 2):
        client.put_object(Bucket="runs", Key=f"sweep/run-{seed}.safetensors", Body=weights(seed))
    table = b"name,lr\nrun-1,0.1\nrun-2,0.2\n"
    client.put_object(Bucket="runs", Key="sweep/sweep.csv", Body=table)
    return client


def test_a_soup_of_remote_checkpoints_is_that_of_local_files(s3: Any, tmp_path: Path) -> None:
    for seed in (1, 2):
        (tmp_path / f"run-{seed}.safetensors").write_bytes(weights(seed))
    sweep = Sweep.from_urls("s3://runs/sweep")
    assert uniform(sweep).id == uniform(Sweep.from_folder(tmp_path)).id
    assert sweep["run-2"].hyperparameters == {"lr": 0.2}


def test_files_are_pinned_to_their_etag(s3: Any) -> None:
    urls = ["s3://runs/sweep/run-*.safetensors"]
    sweep = Sweep.from_urls(urls)
    text = (sweep.folder / MANIFEST).read_text()
    etag = s3.head_object(Bucket="runs", Key="sweep/run-1.safetensors")["ETag"].strip('"')
    assert json.loads(text)["files"]["run-1.safetensors"]["etag"] == etag
    assert SECRET not in text

    s3.put_object(Bucket="runs", Key="sweep/run-1.safetensors", Body=weights(7))
    assert Sweep.from_urls(urls)["run-1"].digest == sweep["run-1"].digest  # it is in the cache
    Cache().clear()
    with pytest.raises(RemoteError, match=r"run-1\.safetensors was changed: it is pinned to ETag"):
        Sweep.from_urls(urls)
    assert Sweep.from_urls(urls, refresh=True)["run-1"].digest != sweep["run-1"].digest


def test_replaced_versions_of_an_object_stay_available(s3: Any) -> None:
    s3.put_bucket_versioning(Bucket="runs", VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket="runs", Key="sweep/run-1.safetensors", Body=weights(3))
    urls = ["s3://runs/sweep/run-1.safetensors", "s3://runs/sweep/run-2.safetensors"]
    sweep = Sweep.from_urls(urls)
    s3.put_object(Bucket="runs", Key="sweep/run-1.safetensors", Body=weights(7))
    Cache().clear()
    assert Sweep.from_urls(urls)["run-1"].digest == sweep["run-1"].digest


def test_the_etag_of_an_upload_in_parts_is_no_md5(s3: Any) -> None:
    body = weights(4) * 20
    key = {"Bucket": "runs", "Key": "parts/run.safetensors"}
    upload = s3.create_multipart_upload(**key)["UploadId"]
    parts = []
    for number, part in enumerate((body[: 6 << 20], body[6 << 20 :]), start=1):
        made = s3.upload_part(**key, PartNumber=number, UploadId=upload, Body=part)
        parts.append({"PartNumber": number, "ETag": made["ETag"]})
    s3.complete_multipart_upload(**key, UploadId=upload, MultipartUpload={"Parts": parts})
    assert "-" in s3.head_object(**key)["ETag"]
    from soupcore.remote import source_of

    source = source_of("s3://runs/parts/run.safetensors")
    ((_, file),) = source.find("s3://runs/parts/run.safetensors")[0].files.items()
    assert Cache().fetch(file, source).read_bytes() == body


def test_damaged_bytes_are_noticed_by_their_md5(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from soupcore.remote.filesystems import FileSystem

    read = FileSystem.read

    def damaged(self: FileSystem, file: Any, start: int, stop: int) -> bytes:
        content = read(self, file, start, stop)
        return content[:-1] + b"?"

    Sweep.from_urls("s3://runs/sweep/run-2.safetensors")
    monkeypatch.setattr(FileSystem, "read", damaged)
    with pytest.raises(RemoteError, match="its MD5 differs"):
        Sweep.from_urls("s3://runs/sweep/run-1.safetensors")


def test_headers_are_read_in_exact_ranges(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from soupcore.remote.filesystems import FileSystem

    asked = []
    read = FileSystem.read

    def counting(self: FileSystem, file: Any, start: int, stop: int) -> bytes:
        content = read(self, file, start, stop)
        asked.append((start, len(content)))
        return content

    monkeypatch.setattr(FileSystem, "read", counting)
    torch.manual_seed(0)
    wide = save({"w.weight": torch.randn(310, 310), "b.weight": torch.randn(310, 310)})
    s3.put_object(Bucket="runs", Key="sweep/wide.safetensors", Body=wide)
    sweep = Sweep.from_urls("s3://runs/sweep/*.safetensors")
    assert [*sweep.ingredients] == ["run-1", "run-2"]
    assert sorted(asked) == sorted([(0, FIRST)] * 3 + [(0, len(weights(1)))] * 2)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://runs/sweep/none.safetensors", "s3://runs/sweep/none.safetensors does not exist"),
        ("s3://none/sweep", "s3://none/sweep does not exist"),
        ("s3://runs/sweep/x*.pt", "Nothing matches s3://runs/sweep/x"),
    ],
)
def test_missing_buckets_and_objects_are_named(s3: Any, url: str, message: str) -> None:
    with pytest.raises(RemoteError, match=message):
        Sweep.from_urls(url)


def test_missing_credentials_are_named(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(RemoteError, match="there are no credentials"):
        Sweep.from_urls("s3://runs/sweep")


def test_refused_credentials_are_named(
    s3: Any, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec
    import requests

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    requests.post(f"{server}/moto-api/reset-auth", data=b"0", timeout=30)
    try:
        with pytest.raises(RemoteError, match="access refused") as error:
            Sweep.from_urls("s3://runs/sweep")
    finally:
        requests.post(f"{server}/moto-api/reset-auth", data=b"inf", timeout=30)
    assert SECRET not in str(error.value)
