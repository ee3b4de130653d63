"""Random pickles that are mostly well formed, so that they get past the first opcodes."""

from collections.abc import Callable
from typing import Any

from tests.hostile import assembler as asm
from tests.hostile.assembler import plain, reference

Pick = Callable[[int, int], int]  # a number between two, both included

LONGEST = 20  # steps

KNOWN = [  # to the reader, which gives these a meaning
    reference(module, name)
    for module, name in [
        ("torch._utils", "_rebuild_tensor"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_tensor_v3"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch._utils", "_rebuild_parameter_with_state"),
        ("torch._utils", "_rebuild_qtensor"),
        ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"),
        ("torch._tensor", "_rebuild_from_type_v2"),
        ("torch", "Size"),
        ("torch", "FloatStorage"),
        ("torch", "HalfStorage"),
        ("torch", "float32"),
        ("torch", "device"),
        ("collections", "OrderedDict"),
        ("builtins", "set"),
        ("_codecs", "encode"),
        ("os", "system"),
    ]
]
FOREIGN = [
    reference(module, name)
    for module, name in [
        ("torch.nn.modules.linear", "Linear"),
        ("torch.nn.parameter", "Parameter"),
        ("collections", "defaultdict"),
        ("builtins", "getattr"),
        ("copyreg", "_reconstructor"),
        ("functools", "partial"),
        ("argparse", "Namespace"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "scalar"),
        ("omegaconf.dictconfig", "DictConfig"),
        ("__main__", "Net"),
    ]
]
TEXTS = 17
VALUES: list[Any] = [  # texts first
    *(
        "0",
        "1",
        "w",
        "state_dict",
        "model",
        "ema",
        "hyper_parameters",
        "epoch",
        "args",
        "",
        "x" * 40,
    ),
    *("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "storage", "cpu"),
    *(0, 1, 4, 16, -1, 255, 1 << 31, 1 << 40, (1 << 61) - 1, 1 << 63, 1 << 70),
    *(True, False, None, 0.5, float("nan"), float("inf"), b"", b"\0\1"),
    *((), (4, 4), (4, 1), (16,), (1,), [], {}),
]


def program(pick: Pick) -> bytes:
    """Return a pickle of some values, most of them made of those before."""
    values: list[bytes] = []
    for _ in range(pick(1, LONGEST)):
        steps = _ODD if pick(0, 19) == 0 else _SOUND
        values.append(steps[pick(0, len(steps) - 1)](pick, values))
    body = values[-1] if pick(0, 4) else asm.state(extra=values[-1])
    if pick(0, 9) == 0:  # and one byte that does not belong there
        place = pick(0, len(body))
        body = body[:place] + bytes([pick(0, 255)]) + body[place + pick(0, 1) :]
    return asm.pickled(body, protocol=pick(2, 5))


def _any(pick: Pick, values: list[bytes]) -> bytes:
    return values[-1 - pick(0, min(len(values), 6) - 1)] if values else b"N"


def _some(pick: Pick, values: list[bytes]) -> list[bytes]:
    return [_any(pick, values) for _ in range(pick(0, 4))]


def _one_of(pick: Pick, choices: list[bytes]) -> bytes:
    return choices[pick(0, len(choices) - 1)]


def _items(pick: Pick, values: list[bytes]) -> dict[str, bytes]:
    names = [VALUES[pick(0, TEXTS - 1)] for _ in range(pick(0, 4))]
    return {name: asm.tensor() if pick(0, 2) else _any(pick, values) for name in names}


_SOUND: list[Callable[[Pick, list[bytes]], bytes]] = [
    lambda pick, values: plain(VALUES[pick(0, len(VALUES) - 1)]),
    lambda pick, values: asm.tensor(),
    lambda pick, values: asm.tensor((pick(0, 4), pick(0, 4)), (pick(0, 4), pick(0, 4)), pick(0, 4)),
    lambda pick, values: asm.state(extra=_any(pick, values)),
    lambda pick, values: asm.module(_items(pick, values), _items(pick, values)),
    lambda pick, values: asm.made_dict(_items(pick, values)),
    lambda pick, values: asm.ordered_dict(_items(pick, values)),
    lambda pick, values: asm.made_list(*_some(pick, values)),
    lambda pick, values: asm.made_tuple(*_some(pick, values)),
    lambda pick, values: asm.call(_one_of(pick, FOREIGN), *_some(pick, values)),
    lambda pick, values: asm.build(
        asm.new(_one_of(pick, FOREIGN), *_some(pick, values)), _any(pick, values)
    ),
    lambda pick, values: asm.build(
        asm.new(_one_of(pick, FOREIGN)), asm.made_dict(_items(pick, values))
    ),
]
_ODD: list[Callable[[Pick, list[bytes]], bytes]] = [
    lambda pick, values: asm.tensor(*(VALUES[pick(TEXTS, len(VALUES) - 1)] for _ in range(3))),
    lambda pick, values: asm.tensor(stored=_any(pick, values)),
    lambda pick, values: asm.storage(_any(pick, values), _any(pick, values), pick(-1, 20)),
    lambda pick, values: asm.call(_one_of(pick, KNOWN), *_some(pick, values)),
    lambda pick, values: asm.call(_any(pick, values), *_some(pick, values)),
    lambda pick, values: asm.build(_any(pick, values), _any(pick, values)),
    lambda pick, values: _any(pick, values) + b"Q",
    lambda pick, values: b"}" + _any(pick, values) + _any(pick, values) + b"s",
    lambda pick, values: b"\x8f(" + b"".join(_some(pick, values)) + b"\x90",
    lambda pick, values: b"(" + b"".join(_some(pick, values)) + b"\x91",
    lambda pick, values: asm.keep(_any(pick, values), pick(0, 3)),
    lambda pick, values: asm.again(pick(0, 3)),
]
