"""Pickles that execute code in every other place of a file where a reader might unpickle."""

import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from tests.hostile import assembler as asm
from tests.hostile.assembler import build, call, made_dict, made_tuple, ordered_dict, plain
from tests.hostile.execution import EVAL, Evaluates, system_call
from tests.hostile.hostile_file import HostileFile

SYSTEM_REFUSED = r"os\.system"


def before(canary: Path, opcodes: bytes) -> bytes:
    """Run code, drop its result, then push the value that a reader expects."""
    return system_call(canary) + b"0" + opcodes


def armed(path: Path) -> bytes:
    return before(asm.canary_of(path), asm.state())


def legacy(part: str, opcodes: bytes) -> HostileFile:
    def write(path: Path) -> None:
        asm.write_legacy(path, **{part: before(asm.canary_of(path), opcodes)})

    return HostileFile(
        f"legacy-{part}.pth",
        f"runs code in the {part} pickle of a legacy file",
        SYSTEM_REFUSED,
        write,
        executes=True,
    )


def sharded_bin(path: Path) -> None:
    path.parent.mkdir()
    asm.write_zip(path.with_name("pytorch_model-00001-of-00001.bin"), armed(path))
    path.write_text(json.dumps({"weight_map": {"w": "pytorch_model-00001-of-00001.bin"}}))


def evaluates(path: Path) -> Evaluates:
    return Evaluates(f"open({str(asm.canary_of(path))!r}, 'w').close()")


def saved(make: Callable[[Path], object], *, zipped: bool = True) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        torch.save(make(path), path, _use_new_zipfile_serialization=zipped)

    return write


def plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(evaluates(path)))


def tar(path: Path) -> None:
    """A file of torch 0.1.10, which is a tar archive of pickles."""
    count = asm.pickled(before(asm.canary_of(path), plain(0)), protocol=2)
    members: Mapping[str, bytes] = {
        "storages": count + asm.pickled(plain([]), protocol=2),
        "tensors": asm.pickled(plain(0), protocol=2),
        "pickle": asm.pickled(plain({}), protocol=2),
    }
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def polyglot(path: Path) -> None:
    """A file that torch reads as a pickle, and zip tools as a zip of honest weights."""
    asm.write_zip(path, asm.state())
    honest = path.read_bytes()
    path.write_bytes(asm.pickled(system_call(asm.canary_of(path))) + honest)


def source_file_pickle(path: Path) -> None:
    """A legacy container id, for which torch compares the source of the class with a given one."""
    source = made_tuple(plain("module"), EVAL, plain("/etc/passwd"), plain("x"))
    asm.write_legacy(path, body=asm.legacy_state(extra=source + b"Q"))


def deflated(path: Path) -> None:
    asm.write_records(path, asm.torch_records(asm.pickled(armed(path))), zipfile.ZIP_DEFLATED)


def after_the_end(path: Path) -> None:
    second = asm.pickled(system_call(asm.canary_of(path)))
    asm.write_records(path, asm.torch_records(asm.pickled(asm.state()) + second))


def in_zip(opcodes: Callable[[Path], bytes]) -> Callable[[Path], None]:
    return lambda path: asm.write_zip(path, opcodes(path))


FILES = [
    legacy("magic", plain(asm.LEGACY_MAGIC)),
    legacy("protocol", plain(asm.LEGACY_PROTOCOL)),
    legacy("system", plain(asm.LEGACY_SYSTEM)),
    legacy("body", asm.legacy_state()),
    legacy("keys", plain(["0"])),
    HostileFile(
        "legacy-reduce.pth",
        "holds an object with __reduce__ in a legacy file",
        r"builtins\.eval",
        saved(lambda path: {"w": torch.ones(2), "extra": evaluates(path)}, zipped=False),
        executes=True,
    ),
    HostileFile(
        "reduce.pt",
        "holds an object with __reduce__",
        r"builtins\.eval",
        saved(lambda path: {"w": torch.ones(2), "extra": evaluates(path)}),
        executes=True,
    ),
    HostileFile(
        "reduce-alone.pt",
        "is an object with __reduce__ and nothing else",
        r"builtins\.eval",
        saved(evaluates),
        executes=True,
    ),
    HostileFile(
        "reduce-among-weights.pt",
        "has an object with __reduce__ for a tensor",
        r"builtins\.eval",
        saved(lambda path: {"state_dict": {"v": torch.ones(2), "w": evaluates(path)}}),
        executes=True,
    ),
    HostileFile(
        "reduce-among-hyperparameters.ckpt",
        "has an object with __reduce__ among the hyperparameters",
        r"builtins\.eval",
        saved(
            lambda path: {
                "state_dict": {"w": torch.ones(2)},
                "hyper_parameters": {"lr": evaluates(path)},
            }
        ),
        executes=True,
    ),
    HostileFile(
        "metadata-of-the-state.pt",
        "runs code in the _metadata of a state dict",
        SYSTEM_REFUSED,
        in_zip(
            lambda path: build(
                ordered_dict({"w": asm.tensor()}),
                made_dict({"_metadata": system_call(asm.canary_of(path))}),
            )
        ),
        executes=True,
    ),
    HostileFile(
        "metadata-of-a-tensor.pt",
        "runs code in the hooks of a tensor",
        SYSTEM_REFUSED,
        in_zip(
            lambda path: made_dict(
                {
                    "w": call(
                        asm.reference("torch._utils", "_rebuild_parameter_with_state"),
                        asm.tensor(),
                        plain(True),
                        ordered_dict({}),
                        made_dict({"note": system_call(asm.canary_of(path))}),
                    )
                }
            )
        ),
        executes=True,
    ),
    HostileFile(
        "call-as-storage-kind.pt",
        "has a call for the kind of a storage",
        SYSTEM_REFUSED,
        in_zip(
            lambda path: asm.state(
                extra=asm.tensor(stored=asm.storage(kind=system_call(asm.canary_of(path))))
            )
        ),
        executes=True,
    ),
    HostileFile(
        "callable-as-persistent-id.pt",
        "has functions for the name and the kind of a storage",
        r"os\.system|builtins\.eval",
        in_zip(
            lambda path: asm.state(
                extra=asm.tensor(stored=asm.storage(asm.reference("os", "system"), EVAL))
            )
        ),
    ),
    HostileFile(
        "persistent-id-by-text.pt",
        "names a storage by the text opcode PERSID",
        r"PERSID",
        in_zip(lambda path: asm.state(extra=b"Pos.system\n")),
    ),
    HostileFile(
        "source-of-a-container.pth",
        "has torch read a file of the machine to compare it with a module's source",
        r"builtins\.eval",
        source_file_pickle,
    ),
    HostileFile(
        "sharded-bin/pytorch_model.bin.index.json",
        "runs code in a shard",
        SYSTEM_REFUSED,
        sharded_bin,
    ),
    HostileFile(
        "plain-pickle.pt",
        "is a pickle without any of torch's format",
        r"builtins\.eval|pickle",
        plain_pickle,
        executes=True,
    ),
    HostileFile(
        "pickle-named-safetensors.safetensors",
        "is a pickle under the name of a safe format",
        r"safetensors",
        plain_pickle,
    ),
    HostileFile(
        "zip-named-safetensors.safetensors",
        "is a torch archive under the name of a safe format",
        r"safetensors",
        in_zip(armed),
    ),
    HostileFile(
        "deflated-pickle.pt",
        "hides a call from scanners in a compressed record",
        r"os\.system|compressed",
        deflated,
        executes=True,
    ),
    HostileFile("tar.pt", "runs code in a file of torch 0.1.10", r"tar", tar, executes=True),
    HostileFile(
        "polyglot.pt",
        "is a pickle to torch and a zip to others",
        r"before|zip",
        polyglot,
        executes=True,
    ),
    HostileFile(
        "after-the-end.pt",
        "has a second pickle behind the first one's end",
        r"after|behind|end",
        after_the_end,
    ),
]
