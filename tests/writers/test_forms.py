import io
import zipfile
from pathlib import Path

import pytest
import torch

from soupcore import Sweep, uniform
from soupcore.writers.forms import Form, zip_of

FORMS = [
    Form(),
    Form(dtype="float16"),
    Form(shard_size=1000),
    Form(shard_size=2000),
    Form(dtype="bfloat16", shard_size=1000),
    Form(as_ingredient=True),
]
FOLDERS = [
    Form(as_folder=True),
    Form(dtype="float16", as_folder=True),
    Form(as_adapter=True),
    Form(as_adapter=True, rank=4),
]


def test_forms_have_keys_of_their_own_that_name_folders() -> None:
    keys = [form.key for form in (*FORMS, *FOLDERS)]
    assert len(set(keys)) == len(keys)
    assert all(Path(key).name == key for key in keys)


@pytest.mark.parametrize("form", [*FORMS, *FOLDERS], ids=lambda form: form.key)
def test_a_form_round_trips_through_json(form: Form) -> None:
    assert Form(**form.to_json()) == form


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.key)
def test_a_soup_is_saved_under_the_name_of_the_form_and_about_as_large_as_it_says(
    tmp_path: Path, form: Form
) -> None:
    (tmp_path / "sweep").mkdir()
    for name in ("a", "b"):
        torch.save({"w": torch.ones(100, 40), "n": torch.tensor(3)}, tmp_path / f"sweep/{name}.pth")
    soup = uniform(Sweep.from_folder(tmp_path / "sweep"))
    files = soup.save(tmp_path / form.file_name(soup), form.dtype, form.shard_size)
    size = sum(file.stat().st_size for file in files)
    assert form.nbytes(soup) <= size < form.nbytes(soup) + 2000 * len(files)
    if form.shard_size is None:
        assert files[0].name.startswith(f"uniform-{soup.id}")


def test_an_archive_is_made_while_it_is_sent(tmp_path: Path) -> None:
    contents = {"a/large.bin": bytes(range(256)) * 9000, "a/empty": b"", "a/é.txt": b"x"}
    paths = {}
    for index, (name, content) in enumerate(contents.items()):
        paths[name] = tmp_path / str(index)
        paths[name].write_bytes(content)
    pieces = list(zip_of(paths))
    assert len(pieces) > len(contents)
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == contents
    assert list(zip_of(paths)) == pieces
