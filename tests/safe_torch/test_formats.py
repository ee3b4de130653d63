import io
import pickle
import zipfile
from typing import Any

import pytest
import torch

from soupcore.safe_torch import formats
from soupcore.safe_torch.contents import read_contents
from soupcore.safe_torch.formats import read_legacy
from soupcore.safe_torch.refusal import Refusal
from tests.safe_torch.torch_files import saved

STATE = {"w": torch.arange(4.0), "b": torch.ones(2)}


Changes = dict[str, bytes | None]


def rezipped(
    changes: Changes | None = None, *, deflated: str | None = None, value: object = STATE
) -> io.BytesIO:
    """A torch file with records changed or removed (None), or those deflated whose name has it."""
    source, made = saved(value), io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(made, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        records: Changes = {name.partition("/")[2]: old.read(name) for name in old.namelist()}
        for name, content in (records | (changes or {})).items():
            if content is not None:
                is_deflated = deflated is not None and deflated in name
                kind = zipfile.ZIP_DEFLATED if is_deflated else zipfile.ZIP_STORED
                new.writestr(f"{root}/{name}", content, kind)
    return made


def pickled(value: object, protocol: int = 2) -> bytes:
    return pickle.dumps(value, protocol)


@pytest.mark.parametrize("only", ["data.pkl", "version", "byteorder"])
def test_records_other_than_weights_may_be_deflated(only: str) -> None:
    assert list(read_contents(rezipped(deflated=only))["storages"])


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        pytest.param(
            rezipped(deflated="data/0"),
            "'data/0' is compressed, which torch never does: the file was unpacked",
            id="deflated weights",
        ),
        pytest.param(rezipped({"byteorder": b"big"}), "a big-endian machine", id="big"),
        pytest.param(rezipped({"data.pkl": None}), "no record 'data.pkl'", id="no pickle"),
        pytest.param(rezipped({"constants.pkl": b""}), "a TorchScript archive", id="TorchScript"),
        pytest.param(rezipped({"archive_format": b"pt2"}), "torch.export archive", id="pt2"),
        pytest.param(
            rezipped({"data.pkl": pickled({}) + b"N."}),
            "has more bytes after its pickle",
            id="two pickles",
        ),
        pytest.param(rezipped({"data/0": None}), "storage '0' is missing", id="no storage"),
        pytest.param(
            rezipped({"data/0": bytes(12)}),
            "'0' has 12 bytes in its record, but 16 according to its pickle",
        ),
        pytest.param(io.BytesIO(b"x" * 99), "first bytes are neither those of a zip", id="other"),
        pytest.param(io.BytesIO(b""), "first bytes are neither", id="empty"),
        pytest.param(
            io.BytesIO(b"before" + saved(STATE).getvalue()),
            "a zip archive with something before its first record",
            id="before",
        ),
        pytest.param(io.BytesIO(pickled(STATE)), "written by pickle.dump", id="plain pickle"),
    ],
)
def test_archives_that_torch_save_does_not_write_are_refused_with_the_reason(
    file: io.BytesIO, problem: str
) -> None:
    with pytest.raises(Refusal, match=problem):
        read_contents(file)


COPY = "Copy or download it again."


@pytest.mark.parametrize(
    ("file", "way_out"),
    [
        pytest.param(saved(STATE).getvalue()[:-100], COPY, id="cut zip"),
        pytest.param(saved(STATE).getvalue()[:10], COPY, id="cut at its beginning"),
        pytest.param(b"\x80\x02", COPY, id="two bytes"),
        pytest.param(b"PK", "or save it with torch.save", id="two bytes of a zip"),
        pytest.param(bytes(100), "or save it with torch.save", id="zeros"),
        pytest.param(saved(STATE, 0).getvalue(), "default pickle_protocol", id="protocol 0"),
        pytest.param(pickled(STATE), "load it with pickle and save", id="plain pickle"),
    ],
)
def test_refusals_contain_the_way_out(file: bytes, way_out: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_contents(io.BytesIO(file))
    assert way_out in refused.value.way_out


def test_a_truncated_legacy_file_is_reported_as_truncated() -> None:
    data = saved({"layer.weight": torch.ones(2)}, zipped=False).getvalue()
    for length in range(1, len(data)):
        with pytest.raises(Refusal, match=r"truncated|torch\.save\.") as refused:
            read_contents(io.BytesIO(data[:length]))
        assert refused.value.way_out.startswith("Copy")


def test_a_large_pickle_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MOST_BYTES", 100)
    with pytest.raises(Refusal, match=r"'data\.pkl' has \d+ bytes; the limit is 100"):
        read_contents(saved(STATE))


def test_contents_give_the_places_of_storages() -> None:
    for zipped in (True, False):
        file = saved(STATE, zipped=zipped)
        read = read_contents(file)
        assert read["format"] == ("zip" if zipped else "legacy")
        for name, (storage, *_) in read["sets"][0]["tensors"].items():
            offset, nbytes, crc = read["storages"][storage]
            there = file.getvalue()[offset : offset + nbytes]
            assert there == STATE[name].numpy().tobytes()
            assert (crc is None) is not zipped


# The format of before torch 1.6.

HEAD = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]


def legacy(*parts: object, rest: bytes = b"") -> io.BytesIO:
    return io.BytesIO(b"".join(pickled(part) for part in parts) + rest)


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        (legacy(1, 1001, {}, {}, []), "a pickle, but not from torch.save"),
        (legacy(HEAD[0], 1002, {}, {}, []), "an unknown version of torch's format"),
        (legacy(*HEAD[:2], {"little_endian": False}, {}, []), "a big-endian machine"),
        (legacy(*HEAD[:2], [], {}, []), "a big-endian machine"),
        (legacy(*HEAD, {}, ["0"]), "contradicts its tensors"),
        (legacy(*HEAD, {}, [0]), "list of storages is damaged"),
        (legacy(*HEAD, {}, {}), "list of storages is damaged"),
        (legacy(*HEAD, {}), "ends in the middle"),
        (legacy(*HEAD, {}, [], rest=b"more"), "4 unknown bytes after its last storage"),
    ],
)
def test_a_wrong_legacy_file_is_refused(file: io.BytesIO, problem: str) -> None:
    with pytest.raises(Refusal, match=problem):
        read_legacy(file)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: data[:-1], "ended inside the storage"),
        (lambda data: data[:-9], "ended before the storage"),
        (lambda data: data + b"\0", "1 unknown bytes after"),
        (lambda data: data[: -8 - 8] + b"\3" + data[-8 - 7 :], "contradicts its tensors"),
    ],
    ids=["cut", "cut more", "added", "other count"],
)
def test_wrong_storages_of_a_legacy_file_are_refused(change: Any, problem: str) -> None:
    data = saved({"w": torch.ones(2)}, zipped=False).getvalue()
    with pytest.raises(Refusal, match=problem):
        read_contents(io.BytesIO(change(data)))


class Viewing(pickle.Pickler):
    def persistent_id(self, obj: object) -> object:
        if obj != "a view":
            return None
        return ("storage", torch.FloatStorage, "0", "cpu", 4, ("1", 0, 2))


def test_views_of_storages_are_refused_with_the_way_out() -> None:
    file = legacy(*HEAD)
    file.seek(0, io.SEEK_END)
    Viewing(file, 2).dump({"w": "a view"})
    with pytest.raises(Refusal, match=r"views of storages, which torch wrote before 0\.4"):
        read_legacy(file)
