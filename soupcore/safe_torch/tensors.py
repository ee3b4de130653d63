"""Calls of torch functions in a pickle that describe tensors and storages.

A tensor is pickled as a call of a function in `torch._utils` with a storage, an offset, a shape and
a stride. Here, such a call returns a `Tensor` with these. Nothing is read or allocated.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

from soupcore.safe_torch.machine import Call, Machine
from soupcore.safe_torch.refusal import COPY, Refusal
from soupcore.safe_torch.values import Global, Inert, Ordered

ITEM_SIZES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "complex32": 4,
    "complex64": 8,
    "complex128": 16,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint64": 8,
    "uint32": 4,
    "uint16": 2,
    "uint8": 1,
    "bool": 1,
    "qint32": 4,
    "qint8": 1,
    "quint8": 1,
}
FLOATS = frozenset(
    dtype for dtype in ITEM_SIZES if dtype.startswith(("float", "bfloat", "complex"))
)
_STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
    "QInt32Storage": "qint32",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
}
_STORAGE_MODULES = ("torch", "torch.storage", "torch.cuda")
_PLAIN_TENSORS = {
    "torch.Tensor",
    "torch._tensor.Tensor",
    "torch.tensor.Tensor",
    "torch.nn.parameter.Parameter",
    "torch.nn.parameter.Buffer",
}
_SAVE_DATA = "Save its .data."
_LARGEST = 1 << 62
_LONGEST_KEY = 40
_MOST_DIMENSIONS = 64


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """A run of bytes outside the pickle.

    Attributes:
        key: Its name.
        dtype: The dtype of its elements; tensors may view them as another one.
        nbytes: Its size in bytes.
    """

    key: str
    dtype: str
    nbytes: int


@dataclass(frozen=True, eq=False, slots=True)
class Tensor:
    """A view of a storage as described in the pickle. `problem` checks it.

    Attributes:
        storage: The storage of its elements.
        dtype: torch's name of their dtype.
        offset: Offset of the first element, in elements.
        shape: Its shape.
        stride: Its strides, in elements.
        conjugate: Whether the stored elements have to be conjugated.
        negative: Whether the stored elements have to be negated.
    """

    storage: Storage
    dtype: str
    offset: Any
    shape: Any
    stride: Any
    conjugate: bool = False
    negative: bool = False

    @property
    def nbytes(self) -> int:
        """Size of its elements in bytes; the shape must have passed `problem`."""
        return int(prod(self.shape)) * ITEM_SIZES[self.dtype]

    def problem(self) -> tuple[str, str] | None:
        """Return why it cannot be read, as a predicate, and the solution; or None."""
        if type(self.shape) is not tuple or type(self.stride) is not tuple:
            return "has no shape and strides; the file is damaged", COPY
        if len(self.shape) != len(self.stride) or len(self.shape) > _MOST_DIMENSIONS:
            return "has a shape that contradicts its strides; the file is damaged", COPY
        numbers = (self.offset, *self.shape, *self.stride)
        if not all(type(number) is int and 0 <= number < _LARGEST for number in numbers):
            return (
                "has a shape, stride or offset with invalid numbers; the file is damaged",
                COPY,
            )
        count = prod(self.shape)
        if not count:
            return None
        stored = self.storage.nbytes // ITEM_SIZES[self.dtype]
        if count > stored:
            return (
                f"expands {self.storage.nbytes} stored bytes to {count * ITEM_SIZES[self.dtype]}",
                "Save it with .contiguous().",
            )
        last = self.offset + sum(
            (size - 1) * step for size, step in zip(self.shape, self.stride, strict=True)
        )
        if last >= stored:
            return "reaches outside its storage; the file is damaged", COPY
        return None


@dataclass(frozen=True, eq=False, slots=True)
class Unusable:
    """A tensor without plain elements. `reason` is a predicate whose subject is its name."""

    reason: str
    way_out: str

    def problem(self) -> tuple[str, str]:
        """Return why it cannot be read, as `Tensor.problem` does."""
        return self.reason, self.way_out


def storage_of(pid: Any, storages: dict[str, Storage]) -> Storage:
    """Return the storage for the persistent id `("storage", class, key, location, count)`.

    Args:
        pid: The persistent id.
        storages: The storages so far, by key. A new one is added.

    Raises:
        Refusal: It is another kind of id, or the key had another size or dtype before.
    """
    match pid:
        case ("storage", Global(path=path), str(key), str(), int(count)) if (
            type(count) is int
            and 0 <= count < _LARGEST
            and len(key) <= _LONGEST_KEY
            and (dtype := _storage_dtype(path))
        ):
            pass
        case _:
            raise Refusal("Its pickle describes a storage differently than torch.save does.")
    storage = Storage(key, dtype, count * ITEM_SIZES[dtype])
    known = storages.setdefault(key, storage)
    if (known.dtype, known.nbytes) != (storage.dtype, storage.nbytes):
        raise Refusal(f"Its storage {key!r} has two sizes or dtypes; the file is damaged.")
    return storage


def is_storage_class(path: str) -> bool:
    """Return whether a global is one of torch's storage classes."""
    return _storage_dtype(path) is not None


def is_dtype(path: str) -> bool:
    """Return whether a global is one of torch's dtypes."""
    module, _, name = path.rpartition(".")
    return module == "torch" and name in ITEM_SIZES


def _storage_dtype(path: str) -> str | None:
    module, _, name = path.rpartition(".")
    return _STORAGE_DTYPES.get(name) if module in _STORAGE_MODULES else None


def _dtype(value: Any) -> str:
    if isinstance(value, Global) and is_dtype(value.path):
        return value.path.rpartition(".")[2]
    raise Refusal("Its pickle has a tensor of an unknown dtype.")


def _tensor(storage: Any, dtype: str, offset: Any, shape: Any, stride: Any, bits: Any) -> Tensor:
    if type(storage) is not Storage:
        raise Refusal("Its pickle has a tensor without a storage.")
    flags = bits if type(bits) is dict else {}
    return Tensor(
        storage,
        dtype,
        offset,
        shape,
        stride,
        flags.get("conj") is True,
        flags.get("neg") is True,
    )


def _rebuild_tensor(machine: Machine, args: tuple[Any, ...]) -> Tensor:
    storage, offset, shape, stride, *rest = args
    dtype = storage.dtype if type(storage) is Storage else ""
    return _tensor(storage, dtype, offset, shape, stride, rest[2] if len(rest) > 2 else None)


def _rebuild_tensor_v3(machine: Machine, args: tuple[Any, ...]) -> Tensor:
    storage, offset, shape, stride, _, _, dtype, *rest = args
    return _tensor(storage, _dtype(dtype), offset, shape, stride, rest[0] if rest else None)


def _rebuild_parameter(machine: Machine, args: tuple[Any, ...]) -> Tensor | Unusable:
    return _checked(args[0])


def _checked(tensor: Any) -> Tensor | Unusable:
    if type(tensor) is not Tensor and type(tensor) is not Unusable:
        raise Refusal("Its pickle has a parameter or tensor made of something else.")
    return tensor


def _rebuild_from_type(machine: Machine, args: tuple[Any, ...]) -> Tensor | Unusable:
    function, kind, inner, _ = args
    made = machine.call(function, inner)
    if type(made) is Inert:
        return Unusable(f"is created by {made.path}, so it is not a plain tensor", _SAVE_DATA)
    if type(kind) is Global and kind.path not in _PLAIN_TENSORS and type(made) is Tensor:
        return Unusable(f"is of the class {kind.path}, not a plain tensor", _SAVE_DATA)
    return _checked(made)


def _unusable(reason: str, way_out: str) -> Call:
    return lambda machine, args: Unusable(reason, way_out)


def _from_cpu_tensor(machine: Machine, args: tuple[Any, ...]) -> Tensor | Unusable:
    tensor, dtype, *_ = args
    if isinstance(_checked(tensor), Tensor) and tensor.dtype != _dtype(dtype):
        return Unusable("is stored with another dtype", "Save the model from the CPU.")
    return _checked(tensor)


def _size(machine: Machine, args: tuple[Any, ...]) -> Any:
    (shape,) = args or ((),)
    machine.allocate(8 * len(shape))
    return tuple(shape)


def _set(machine: Machine, args: tuple[Any, ...]) -> Any:
    (items,) = args or ((),)
    machine.spend(len(items))
    machine.allocate(64 * len(items))
    return {machine.key(item) for item in items}


def _frozenset(machine: Machine, args: tuple[Any, ...]) -> Any:
    return frozenset(_set(machine, args))


def _ordered(machine: Machine, args: tuple[Any, ...]) -> Ordered:
    (pairs,) = args or ((),)  # Python 2 passed them to the constructor
    machine.spend(len(pairs))
    machine.allocate(96 * len(pairs))
    return Ordered((machine.key(key), value) for key, value in pairs)


def _attribute(machine: Machine, args: tuple[Any, ...]) -> Any:
    match args:  # protocols 2 and 3 write a nested class like this
        case (Global(path=path), str(name)):
            return machine.named_global(path + ("." if ":" in path else ":") + name)
    return machine.inert("builtins.getattr", args, called=True)


def _encoded(machine: Machine, args: tuple[Any, ...]) -> Any:
    match args:  # protocol 2 writes bytes like this
        case (str(text), "latin1"):
            machine.allocate(len(text))
            return text.encode("latin1")
    raise Refusal("Its pickle encodes text differently than torch.save does.")


def _bytes(machine: Machine, args: tuple[Any, ...]) -> Any:
    return machine.inert("builtins.bytes", args, called=True) if args else b""


_QUANTIZED = _unusable("is quantized and cannot be averaged", "Save the float weights.")
_SPARSE = _unusable("is sparse and cannot be averaged", "Save it with .to_dense().")
_NESTED = _unusable("is a nested tensor and cannot be averaged", "Save its parts.")
_META = _unusable(
    "has no values (it was saved from the meta device)",
    "Save the model once its weights are loaded.",
)
_LAZY = _unusable(
    "has no values yet (it belongs to a lazy layer that was never run)",
    "Run the model once before you save it.",
)
_WRAPPER = _unusable("is a tensor subclass, not a plain tensor", "Save the plain weights.")
_FROM_NUMPY = _unusable("was saved from a device without storages", "Save it from the CPU.")

_TENSORS: dict[str, Call] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _from_cpu_tensor,
    "torch._tensor._rebuild_from_type": _rebuild_from_type,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.tensor._rebuild_from_type": _rebuild_from_type,  # its module before torch 1.9
}
_OTHER_TENSORS: dict[str, Call] = {
    "torch._utils._rebuild_qtensor": _QUANTIZED,
    "torch._utils._rebuild_sparse_tensor": _SPARSE,
    "torch._utils._rebuild_sparse_csr_tensor": _SPARSE,
    "torch._utils._rebuild_nested_tensor": _NESTED,
    "torch._utils._rebuild_meta_tensor_no_storage": _META,
    "torch._utils._rebuild_wrapper_subclass": _WRAPPER,
    "torch._utils._rebuild_device_tensor_from_numpy": _FROM_NUMPY,
    "torch._utils._rebuild_xla_tensor": _FROM_NUMPY,
    "torch.nn.parameter.UninitializedBuffer": _LAZY,
    "torch.nn.parameter.UninitializedParameter": _LAZY,
}
_PLAIN_VALUES: dict[str, Call] = {
    "torch.Size": _size,
    "builtins.bytes": _bytes,  # protocol 2 writes empty bytes like this
    "builtins.frozenset": _frozenset,
    "builtins.set": _set,
    "collections.OrderedDict": _ordered,
    "_codecs.encode": _encoded,
}
CALLS = _TENSORS | _OTHER_TENSORS | _PLAIN_VALUES | {"builtins.getattr": _attribute}

#: Calls whose arguments are checked, so that they cannot have side effects in torch.
HARMLESS_CALLS = frozenset(_TENSORS | _PLAIN_VALUES)
