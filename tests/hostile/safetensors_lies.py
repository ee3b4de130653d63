"""Invalid safetensors files and shard indices."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.helpers import raw_safetensors
from tests.hostile import assembler as asm
from tests.hostile.hostile_file import HostileFile

INDEX = "model.safetensors.index.json"
BIN_INDEX = "pytorch_model.bin.index.json"
SHARD = "model-00001-of-00001.safetensors"
BIN_SHARD = "pytorch_model-00001-of-00001.bin"


def entry(dtype: Any = "F32", shape: Any = (16,), offsets: Any = (0, 64)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def text(**changes: str) -> bytes:
    """An honest entry as JSON, with some values replaced by the given text."""
    fields = {"dtype": '"F32"', "shape": "[16]", "data_offsets": "[0,64]"} | changes
    return b'{"w":{%s}}' % ",".join(f'"{key}":{value}' for key, value in fields.items()).encode()


def header(
    name: str, tries: str, reason: str, content: Any, data: bytes = asm.NUMBERS
) -> HostileFile:
    def write(path: Path) -> None:
        made = content() if callable(content) else content
        raw_safetensors(path, made, data)

    return HostileFile(f"{name}.safetensors", tries, reason, write)


def whole(name: str, tries: str, reason: str, content: bytes) -> HostileFile:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return HostileFile(f"{name}.safetensors", tries, reason, write)


def index(
    name: str,
    tries: str,
    reason: str,
    weight_map: Any,
    *,
    of_bin: bool = False,
    beside: Callable[[Path], object] = lambda path: None,
) -> HostileFile:
    """An index in a separate folder, with an honest shard and the files that `beside` writes."""

    def write(path: Path) -> None:
        path.parent.mkdir()
        if of_bin:
            asm.write_zip(path.with_name(BIN_SHARD), asm.state())
        else:
            raw_safetensors(path.with_name(SHARD), {"w": entry()}, asm.NUMBERS)
        beside(path)
        path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

    folder = f"index-{name}{'-bin' if of_bin else ''}"
    return HostileFile(f"{folder}/{BIN_INDEX if of_bin else INDEX}", tries, reason, write)


def secret(path: Path) -> Path:
    """Write a checkpoint outside of the folder of the index."""
    folder = path.parent.with_name(f"{path.parent.name}.outside")
    folder.mkdir()
    return raw_safetensors(folder / "secret.weights", {"w": entry()}, asm.NUMBERS)


def link_out(path: Path) -> None:
    path.with_name(SHARD).unlink()
    path.with_name(SHARD).symlink_to(secret(path))


def bin_link_out(path: Path) -> None:
    folder = path.parent.with_name(f"{path.parent.name}.outside")
    folder.mkdir()
    path.with_name(BIN_SHARD).rename(folder / "secret.weights")
    path.with_name(BIN_SHARD).symlink_to(folder / "secret.weights")


def link_to_itself(path: Path) -> None:
    path.with_name(SHARD).unlink()
    path.with_name(SHARD).symlink_to(SHARD)


def pipe(path: Path) -> None:
    path.with_name(SHARD).unlink()
    os.mkfifo(path.with_name(SHARD))


def index_beside(path: Path) -> None:
    path.with_name("other.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"w": SHARD}})
    )


def many_empty_tensors() -> bytes:
    # The largest possible header, with 1.6 million entries of tensors without bytes.
    one = '"%x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return f"{{{','.join(one % number for number in range(1_600_000))}}}".encode()[:-1] + b"}"


def endless(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    os.truncate(path, 8 << 30)  # a sparse file, which takes no space


PLAIN_NAME = r"plain file name|lead|outside"

FILES = [
    header(
        "key-twice",
        "has two tensors of one name",
        r"duplicate",
        b'{"w":%s,"w":%s}' % ((json.dumps(entry()).encode(),) * 2),
    ),
    header(
        "metadata-twice",
        "has two __metadata__",
        r"duplicate",
        b'{"__metadata__":{"a":"1"},"__metadata__":{"a":"2"},' + text()[1:],
    ),
    header(
        "key-twice-in-metadata",
        "has a key of its metadata twice",
        r"duplicate",
        b'{"__metadata__":{"a":"1","a":"2"},' + text()[1:],
    ),
    header(
        "key-twice-inside",
        "has two shapes for a tensor",
        r"duplicate",
        b'{"w":{"dtype":"F32","shape":[16],"shape":[4,4],"data_offsets":[0,64]}}',
    ),
    header(
        "escaped-key-twice",
        "has one name twice, once escaped",
        r"duplicate",
        b'{"w":%s,"\\u0077":%s}' % ((json.dumps(entry()).encode(),) * 2),
    ),
    header("empty-name", "has a tensor without a name", r"name", {"": entry()}),
    header(
        "surrogate-name",
        "has a name that is no text",
        r"surrogates|name",
        b'{"\\ud800":' + text()[5:],
    ),
    header(
        "overlap",
        "has tensors that share bytes",
        r"overlaps",
        {"v": entry(), "w": entry(shape=[8], offsets=(32, 64))},
    ),
    header("gap", "has bytes of no tensor", r"gap", {"w": entry(shape=[8], offsets=(32, 64))}),
    header(
        "hole",
        "has bytes between its tensors",
        r"gap",
        {"v": entry(shape=[4], offsets=(0, 16)), "w": entry(shape=[8], offsets=(32, 64))},
    ),
    header(
        "trailing", "has bytes after its tensors", r"extended", {"w": entry()}, asm.NUMBERS + b"x"
    ),
    header(
        "short", "has fewer bytes than its tensors", r"truncated", {"w": entry()}, asm.NUMBERS[1:]
    ),
    header("not-utf8", "has a header that is no text", r"header", b'{"\xff":' + text()[5:]),
    header("utf16", "has a header in UTF-16", r"header", text().decode().encode("utf-16")),
    header("bom", "has a byte order mark before its header", r"header", b"\xef\xbb\xbf" + text()),
    header(
        "deep",
        "has lists 100,000 deep in its header",
        r"header",
        text(shape="[" * 100_000 + "]" * 100_000),
    ),
    header(
        "deep-metadata",
        "has objects 100,000 deep in its metadata",
        r"header|metadata",
        b'{"__metadata__":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"," + text()[1:],
    ),
    header(
        "metadata-not-text",
        "has metadata that is no text",
        r"metadata",
        {"__metadata__": {"a": {"b": [1, 2]}}, "w": entry()},
    ),
    header("infinite", "has a size of 1e400", r"shape", text(shape="[1e400]")),
    header("not-a-number", "has a size of NaN", r"shape|header", text(shape="[NaN]")),
    header("negative", "has two sizes of -4", r"shape", text(shape="[-4,-4]")),
    header("float", "has a size of 16.0", r"shape", text(shape="[16.0]")),
    header("bool", "has a size of true", r"shape", text(shape="[true,16]")),
    header(
        "overflow",
        "has 2^66 elements, none in 64 bits",
        r"needs|size",
        text(shape=f"[{1 << 33},{1 << 33}]", data_offsets="[0,0]"),
        b"",
    ),
    header(
        "none-of-many",
        "has no elements, 2^100 times",
        r"size|'w'",
        text(shape=f"[0,{1 << 100}]", data_offsets="[0,0]"),
        b"",
    ),
    header(
        "digits", "has a size of 4 million digits", r"header", text(shape=f"[{'9' * 4_000_000}]")
    ),
    header(
        "dimensions",
        "has a million dimensions",
        r"dimensions|size",
        lambda: text(shape=f"[{','.join(['1'] * 1_000_000)},16]"),
    ),
    header("dtype", "has elements of an unknown kind", r"dtype", {"w": entry("F128")}),
    header(
        "many",
        "has 1.6 million tensors of no elements",
        r"header|limit|more than",
        many_empty_tensors,
        b"",
    ),
    header(
        "brackets",
        "has 30 million empty lists in its header",
        r"header|more than",
        lambda: b'{"__metadata__":[' + b"[]," * 30_000_000 + b"[]]," + text()[1:],
    ),
    header("not-an-object", "has a list for a header", r"not an object", [entry()]),
    whole(
        "huge-header",
        "promises a header of 2^63 bytes",
        r"header",
        struct.pack("<Q", 1 << 63) + b"{}",
    ),
    whole("large-header", "promises a header of 1 GB", r"header", struct.pack("<Q", 10**9) + b"{}"),
    whole("no-header", "promises a header of no bytes", r"header", bytes(8)),
    whole("stump", "ends in the length of its header", r"header", bytes(5)),
    *(
        index(name, tries, PLAIN_NAME, {"w": path}, of_bin=of_bin)
        for of_bin in (False, True)
        for name, tries, path in [
            ("parent", "has a shard in the folder above", "../secret.safetensors"),
            ("absolute", "has a shard named by its full path", "/etc/passwd"),
            ("below", "has a shard in a folder below", "sub/x.safetensors"),
            ("dots", "names the folder above as a shard", ".."),
            ("backslash", "has a shard in a folder of Windows", "..\\x.safetensors"),
            ("device", "has a device for a shard", "/dev/zero"),
            ("home", "has a shard with a slash at its end", "x.safetensors/"),
        ]
    ),
    index("empty-name", "has a shard without a name", r"plain file name|missing", {"w": ""}),
    index("nul", "has a NUL in a shard's name", r"plain file name|missing", {"w": "a\0b"}),
    index(
        "link-out",
        "has a link to another folder for a shard",
        r"link|lead|outside",
        {"w": SHARD},
        beside=link_out,
    ),
    index(
        "link-out",
        "has a link to another folder for a shard",
        r"link|lead|outside",
        {"w": BIN_SHARD},
        of_bin=True,
        beside=bin_link_out,
    ),
    index(
        "link-to-itself",
        "has a link to itself for a shard",
        r"missing|link",
        {"w": SHARD},
        beside=link_to_itself,
    ),
    index(
        "pipe", "has a pipe that never ends for a shard", r"missing|file", {"w": SHARD}, beside=pipe
    ),
    index("itself", "names itself as a shard", r"index", {"w": INDEX}),
    index("itself", "names itself as a shard", r"index", {"w": BIN_INDEX}, of_bin=True),
    index(
        "of-an-index",
        "names another index as a shard",
        r"is an index, not|not clear which",  # a sweep sees a folder with two indices
        {"w": "other.safetensors.index.json"},
        beside=index_beside,
    ),
    index("missing", "lacks a shard", r"missing", {"w": SHARD, "v": "gone.safetensors"}),
    index("missing", "lacks a shard", r"missing", {"w": BIN_SHARD, "v": "gone.bin"}, of_bin=True),
    index("more", "names a tensor that is in no shard", r"disagree", {"w": SHARD, "v": SHARD}),
    index("less", "does not name a tensor of its shard", r"disagree|no tensors|shard", {}),
    index("not-text", "has a number for a shard", r"plain file name|index", {"w": 3}),
    index("list", "has a list for a map", r"index", [SHARD]),
    index(
        "deep",
        "has lists 1,000 deep for a shard",
        r"index|plain file name",
        {"w": json.loads("[" * 900 + "]" * 900)},
    ),
    index(
        "other-kind",
        "names shards of both formats",
        r"missing|index|shard",
        {"w": SHARD, "v": BIN_SHARD},
    ),
    HostileFile(f"index-endless/{INDEX}", "is an index of 8 GiB", r"index|bytes", endless),
    HostileFile(f"index-endless-bin/{BIN_INDEX}", "is an index of 8 GiB", r"index|bytes", endless),
]
