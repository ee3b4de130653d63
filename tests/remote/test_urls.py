import pytest

from soupcore.errors import RemoteError
from soupcore.remote import check_url, is_url, without_credentials
from soupcore.remote.urls import HubUrl, parse_hub_url, select, unique_names


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("hf://a/b", ("", "hf://a/b")),
        (" base=hf://a/b@v1/c.pt ", ("base", "hf://a/b@v1/c.pt")),
        ("s3://bucket/run-*/best.pt", ("", "s3://bucket/run-*/best.pt")),
        ("https://x.org/a?version=3", ("", "https://x.org/a?version=3")),
    ],
)
def test_urls_may_have_names(text: str, found: tuple[str, str]) -> None:
    assert is_url(text)
    assert check_url(text) == found


@pytest.mark.parametrize("text", ["runs/a", "/abs/hf://", "C:\\runs", "hf:/a/b", ""])
def test_paths_are_no_urls(text: str) -> None:
    assert not is_url(text)


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA:very-secret@bucket/a.pt",
        "https://user:very-secret@x.org/a.pt",
        "https://b.s3.amazonaws.com/a.pt?X-Amz-Signature=very-secret&X-Amz-Expires=1",
        "https://x.blob.core.windows.net/a.pt?sv=1&sig=very-secret",
        "https://x.org/a.pt?access_token=very-secret",
        "s3://very-secret@bucket/a.pt",
    ],
)
def test_credentials_in_urls_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(RemoteError, match="contains credentials") as error:
        check_url(url)
    assert "very-secret" not in str(error.value).replace("s3://very-secret@bucket", "")


def test_credentials_are_taken_out_of_texts() -> None:
    text = "GET https://u:p@x.org/a.pt?X-Amz-Signature=abc failed, see s3://k:s@b/c"
    assert without_credentials(text) == "GET https://x.org/a.pt failed, see s3://b/c"


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("hf://a/b", HubUrl("a/b", "main", "")),
        ("hf://models/a/b/c.pt", HubUrl("a/b", "main", "c.pt")),
        ("hf://a/b.c@v1/d/e.pt", HubUrl("a/b.c", "v1", "d/e.pt")),
        ("hf://a/b@x%2Fy", HubUrl("a/b", "x/y", "")),
        ("hf://a/b@refs/pr/3/c.pt", HubUrl("a/b", "refs/pr/3", "c.pt")),
        ("hf://a/b@step-*/", HubUrl("a/b", "step-*", "")),
    ],
)
def test_urls_of_the_hub_are_parsed(url: str, parsed: HubUrl) -> None:
    assert parse_hub_url(url) == parsed


@pytest.mark.parametrize(
    "url", ["hf://a", "hf://a/b@", "hf://datasets/a/b", "hf://a/b/../c", "hf://a b/c", "hf://"]
)
def test_other_urls_of_the_hub_are_refused(url: str) -> None:
    with pytest.raises(RemoteError):
        parse_hub_url(url)


def test_a_pattern_selects_files_and_folders() -> None:
    paths = ["a/1.pt", "a/2.pt", "a/x/3.pt", "b/1.pt", "c.pt"]
    assert select("a", paths) == {"a": ["a/1.pt", "a/2.pt", "a/x/3.pt"]}
    assert select("*/1.pt", paths) == {"a/1.pt": ["a/1.pt"], "b/1.pt": ["b/1.pt"]}
    assert list(select("*", paths)) == ["a", "b", "c.pt"]
    assert select("d*", paths) == {}


def test_names_are_as_short_as_they_can_be() -> None:
    assert unique_names([("x", "a-x"), ("y", "a-y")]) == ["x", "y"]
    assert unique_names([("x", "a-x"), ("x", "b-x")]) == ["a-x", "b-x"]
    assert unique_names([("x", "a-x"), ("x", "b-x"), ("y", "a-y")]) == ["a-x", "b-x", "y"]
    assert unique_names([("a-x",), ("x", "a-x", "b-a-x"), ("x", "c-x")]) == ["a-x", "b-a-x", "c-x"]
    assert unique_names([("x",), ("X",)]) == ["x", "X-2"]
    assert unique_names([("../e v",)]) == ["e-v"]
