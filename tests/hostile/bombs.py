"""Small files that would need unlimited memory or time."""

import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.hostile import archives
from tests.hostile import assembler as asm
from tests.hostile.assembler import (
    again,
    call,
    keep,
    made_dict,
    made_list,
    module,
    plain,
    reference,
    storage,
    tensor,
)
from tests.hostile.hostile_file import HostileFile

LEVELS = 40  # 2**40 copies of anything are too many
ONE_HASH = 2**61 - 1  # its multiples all have the hash 0
GIB = 1 << 30
START = 1000  # first index in the memo


def bomb(name: str, tries: str, reason: str, body: Callable[[], bytes]) -> HostileFile:
    return HostileFile(f"bomb-{name}.pt", tries, reason, lambda path: asm.write_zip(path, body()))


def beside(name: str, tries: str, reason: str, extra: Callable[[], bytes]) -> HostileFile:
    return bomb(name, tries, reason, lambda: asm.state(extra=extra()))


def written(name: str, tries: str, reason: str, make: Callable[[], bytes]) -> HostileFile:
    def write(path: Path) -> None:
        path.write_bytes(make())

    return HostileFile(f"bomb-{name}.pt", tries, reason, write)


def doubled(join: Callable[[bytes, bytes], bytes], seed: bytes) -> bytes:
    """A value that contains the next one twice, which contains the next one twice, and so on."""
    levels = (
        keep(b"0" + join(again(level), again(level)), level + 1)
        for level in range(START, START + LEVELS)
    )
    return keep(seed, START) + b"".join(levels)


def pair(one: bytes, other: bytes) -> bytes:
    return one + other + b"\x86"


def pair_of_sets(one: bytes, other: bytes) -> bytes:
    # The two sets of each level differ, since equal ones would be one element.
    return b"((" + one + plain("x") + b"\x91(" + other + plain("y") + b"\x91\x91"


def two_children(one: bytes, other: bytes) -> bytes:
    return module(modules={"a": one, "b": other})


def chain_of_modules() -> bytes:
    level = keep(b"0" + module(modules={"a": again(START)}), START)
    return keep(module({"w": tensor()}), START) + level * 20_000


def module_in_itself() -> bytes:
    made = module({"w": tensor()}, {"a": again(START)})
    cls = reference("torch.nn.modules.container", "Sequential")
    begun = asm.new(cls)
    return keep(begun, START) + made.removeprefix(begun)


def state_of_many(count: int, objects: int) -> bytes:
    """Objects that share one large dict of attributes."""
    shared = keep(b"}(" + b"".join(plain(key) + b"N" for key in range(count)) + b"u", START)
    cls = keep(reference("argparse", "Namespace"), START + 1)
    made = b"0" + again(START + 1) + b")\x81" + again(START) + b"b"
    return shared + b"0" + cls + made * objects


def shared_child(names: int) -> bytes:
    """A module with the same submodule under many names, which has None under many names."""
    child = module({"w": tensor()}, dict.fromkeys((str(name) for name in range(names)), b"N"))
    under = {str(name): again(START) for name in range(names)}
    return keep(child, START) + b"0" + module(modules=under)


def many_times_one_namespace(hidden: int, names: int) -> bytes:
    entries = dict.fromkeys((f"_{number}" for number in range(hidden)), b"N")
    one = asm.build(asm.new(reference("argparse", "Namespace")), made_dict(entries))
    return keep(one, START) + b"0" + made_dict({str(name): again(START) for name in range(names)})


def dictionary_in_itself(key: str) -> bytes:
    return keep(b"}", START) + plain(key) + again(START) + b"s"


@cache
def flood() -> list[bytes]:
    return [plain(number * ONE_HASH) for number in range(1, 60_001)]


def tuple_flood() -> list[bytes]:
    """Pairs of small numbers with the same hash, since CPython's hash of tuples is invertible."""
    prime_1, prime_2, prime_5 = 11400714785074694791, 14029467366897019727, 2870177450012600261
    whole, inverse_2 = 1 << 64, pow(prime_2, -1, 1 << 64)
    found: list[bytes] = []
    first = 0
    while len(found) < 60_000:
        first += 1
        mixed = (prime_5 + first * prime_2) % whole
        mixed = (mixed << 31 | mixed >> 33) * prime_1
        second = -mixed * inverse_2 % whole
        if second < ONE_HASH:
            found.append(plain((first, second)))
    return found


def many_names() -> bytes:
    nothing = keep(tensor((0,), (1,)), START) + b"0"
    items = (b"X\x05\0\0\0%05x" % number + again(START) for number in range(1 << 20))
    return nothing + b"}(" + b"".join(items) + b"u"


def one_storage_under_many_names() -> bytes:
    whole = keep(tensor((16,), (1,)), START) + b"0"
    items = (plain(f"w{number}") + again(START) for number in range(100_000))
    return whole + b"}(" + b"".join(items) + b"u"


@cache
def inflating(start: bytes, block: bytes, end: bytes) -> tuple[bytes, int, int]:
    """Return 1 GiB of a repeated block, deflated without holding it, with its CRC and size."""
    times = GIB // len(block)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    middle = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = zlib.crc32(start)
    for _ in range(times):
        crc = zlib.crc32(block, crc)
    packed = head + middle * times + packer.compress(end) + packer.flush()
    return packed, zlib.crc32(end, crc), len(start) + times * len(block) + len(end)


def deflated_pickle(said: int | None = None) -> bytes:
    """A pickle that pushes and pops None 2^29 times, in 1 MB."""
    opcodes = asm.pickled(asm.state())
    packed, crc, size = inflating(opcodes[:2], b"N0" * (1 << 19), opcodes[2:])
    fields = {"method": archives.DEFLATED, "stored": len(packed), "crc": crc, "size": said or size}
    return archives.changed("data.pkl", data=packed, local=fields, central=fields)


def deflated_weights() -> bytes:
    packed, crc, size = inflating(b"", bytes(1 << 20), b"")
    fields = {"method": archives.DEFLATED, "stored": len(packed), "crc": crc, "size": size}
    stored = storage(numel=size // 4)
    body = made_dict({"w": tensor((size // 4,), (1,), stored=stored)})
    pieces = archives.entries(body)
    return archives.with_changed(pieces, "data/0", data=packed, local=fields, central=fields)


def tensor_of_size(size: bytes) -> bytes:
    rebuild = reference("torch._utils", "_rebuild_tensor_v2")
    return call(rebuild, storage(), plain(0), size, plain((4, 1)), plain(False), plain({}))


def codec_bomb() -> bytes:
    packed = zlib.compress(bytes(GIB >> 4), 9)  # small, because inflating takes long anyway
    return call(reference("_codecs", "decode"), plain(packed), plain("zlib_codec"))


UNBOUNDED = r"ends in the middle"

FILES = [
    beside("memo", "asks for a memo of 2^31 places", r"memo", lambda: b"Nr\xff\xff\xff\x7f"),
    beside("memo-text", "asks for a memo of 10^18 places", r"memo|PUT", lambda: b"Np1%018d\n" % 0),
    beside(
        "memo-fill",
        "remembers None 15 million times",
        r"operations|memo",
        lambda: b"N" + b"\x94" * 15_000_000,
    ),
    beside(
        "bytearray",
        "promises a bytearray of 2^40 bytes",
        r"BYTEARRAY8",
        lambda: b"\x96" + struct.pack("<Q", 1 << 40),
    ),
    beside("bytes", "promises 2^62 bytes", UNBOUNDED, lambda: b"\x8e" + struct.pack("<Q", 1 << 62)),
    beside(
        "text",
        "promises a text of 2^40 bytes",
        UNBOUNDED,
        lambda: b"\x8d" + struct.pack("<Q", 1 << 40),
    ),
    beside(
        "string",
        "promises a string of -1 bytes",
        r"BINSTRING",
        lambda: b"T\xff\xff\xff\xff",
    ),
    beside(
        "frame",
        "promises a frame of 2^60 bytes",
        r"FRAME",
        lambda: b"\x95" + struct.pack("<Q", 1 << 60) + plain("x"),
    ),
    beside(
        "tuples-as-key",
        "has to be hashed 2^40 times for a key",
        r"key",
        lambda: b"}" + doubled(pair, plain("x")) + plain(1) + b"s",
    ),
    beside(
        "sets",
        "compares frozen sets in sets",
        r"FROZENSET|set",
        lambda: doubled(pair_of_sets, b"(\x91"),
    ),
    beside(
        "deep-key",
        "has a key of tuples 500,000 deep",
        r"key|deep",
        lambda: b"})" + b"\x85" * 500_000 + b"Ns",
    ),
    bomb("deep-modules", "is a module 20,000 deep", r"deep", chain_of_modules),
    bomb(
        "shared-modules",
        "is a module that is reached by 2^40 ways",
        r"module|names|limit",
        lambda: doubled(two_children, module({"w": tensor()})),
    ),
    bomb("module-in-itself", "is a module that contains itself", r"itself", module_in_itself),
    bomb(
        "container-in-itself",
        "is a container whose state_dict is the container",
        r"itself|no tensors|weights",
        lambda: dictionary_in_itself("state_dict"),
    ),
    bomb(
        "model-in-itself",
        "is a container whose model is the container",
        r"itself|no tensors|weights",
        lambda: dictionary_in_itself("model"),
    ),
    bomb(
        "name-in-itself",
        "is a state dict whose tensor is the state dict",
        r"itself|no tensors|weights",
        lambda: dictionary_in_itself("layer.weight"),
    ),
    beside(
        "one-state",
        "has 60,000 objects of one state of 150,000 entries",
        r"operations",
        lambda: state_of_many(150_000, 60_000),
    ),
    bomb(
        "one-child",
        "is a module with one child under 50,000 names, which has 50,000 empty ones",
        r"expand to more than",
        lambda: shared_child(50_000),
    ),
    beside(
        "operations",
        "makes and drops None 5 million times",
        r"operations",
        lambda: b"N0" * 5_000_000 + plain("end"),
    ),
    beside(
        "marks",
        "puts 15 million marks on the stack",
        r"nested|mark",
        lambda: b"(" * 15_000_000,
    ),
    beside(
        "copies",
        "puts 15 million copies on the stack",
        r"DUP|operations",
        lambda: b"N" + b"2" * 15_000_000,
    ),
    beside(
        "integer",
        "holds an integer of 100 MB",
        r"LONG4|limit|bytes",
        lambda: b"\x8b" + struct.pack("<i", 100_000_000) + b"\1" * 100_000_000,
    ),
    beside(
        "integer-text",
        "holds an integer of 4 million digits as text",
        r"INT|integer|digits",
        lambda: b"I" + b"9" * 4_000_000 + b"\n",
    ),
    beside(
        "long-text",
        "holds a long integer of 4 million digits as text",
        r"LONG|integer|digits",
        lambda: b"L" + b"9" * 4_000_000 + b"L\n",
    ),
    beside(
        "key-flood",
        "has 60,000 keys of one hash",
        r"key",
        lambda: b"}(" + b"".join(key + b"N" for key in flood()) + b"u",
    ),
    beside(
        "set-flood",
        "has a set of 60,000 elements of one hash",
        r"set|ADDITEMS",
        lambda: b"\x8f(" + b"".join(flood()) + b"\x90",
    ),
    beside(
        "tuple-key-flood",
        "has 60,000 pairs of one hash for keys",
        r"key",
        lambda: b"}(" + b"".join(key + b"N" for key in tuple_flood()) + b"u",
    ),
    bomb(
        "nested-tuples",
        "is 2^40 tuples in 40",
        r"no named weights|no tensors",
        lambda: doubled(pair, plain("x")),
    ),
    bomb(
        "nested-dictionaries",
        "is 2^40 dictionaries in 40",
        r"no named weights|no tensors",
        lambda: doubled(lambda one, other: made_dict({"model": one, "ema": other}), b"}"),
    ),
    bomb(
        "tuples-as-size",
        "has 2^40 tuples for the size of a tensor",
        r"'w'",
        lambda: made_dict({"w": tensor_of_size(doubled(pair, plain(4)))}),
    ),
    beside(
        "classes",
        "names a million classes",
        r"names|classes|limit",
        lambda: b"".join(b"ca.b\nC%x\n0" % number for number in range(1_000_000)) + plain("end"),
    ),
    bomb("names", "has 2^20 tensors of no elements", r"more than|limit", many_names),
    bomb(
        "one-storage",
        "has 100,000 names for one storage",
        r"more than|storage",
        one_storage_under_many_names,
    ),
    bomb(
        "long-name",
        "has a tensor whose name is 10 MB long",
        r"name",
        lambda: b"}" + plain("x" * 10_000_000) + tensor() + b"s",
    ),
    beside("codec", "inflates bytes with a codec of Python", r"_codecs", codec_bomb),
    written(
        "deflated-pickle", "has a pickle of 1 MB that inflates to 1 GiB", r"limit", deflated_pickle
    ),
    written(
        "deflated-pickle-lie",
        "has a pickle that inflates to 1 GiB, not to the size given",
        r"inflate|compressed",
        lambda: deflated_pickle(said=4096),
    ),
    written(
        "deflated-weights",
        "has weights of 1 MB that inflate to 1 GiB",
        r"compressed",
        deflated_weights,
    ),
]

# Harmless beside honest weights, if a reader does not traverse them.
HARMLESS = [
    bomb(
        "one-namespace",
        "holds one namespace of 150,000 hidden entries under 40,000 names",
        "",
        lambda: asm.state(args=many_times_one_namespace(150_000, 40_000)),
    ),
    beside("tuples", "holds 2^40 tuples in 40", "", lambda: doubled(pair, plain("x"))),
    beside("lists", "holds 2^40 lists in 40", "", lambda: doubled(made_list, plain("x"))),
    beside("deep-list", "holds lists 500,000 deep", "", lambda: b"]" * 500_000 + b"a" * 499_999),
    beside("deep-tuple", "holds tuples 500,000 deep", "", lambda: b")" + b"\x85" * 500_000),
    beside(
        "list-in-itself",
        "holds a list that contains itself",
        "",
        lambda: keep(b"]", START) + again(START) + b"a",
    ),
]
