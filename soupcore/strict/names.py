"""What the names in a pickle tell of it: what it would do to who loads it in the usual way.

Here nothing is ever called, so these lists guard nothing of ours. They serve two people: the one
who opens a file that was made to harm, and should hear so (`harmful`); and the one who would get a
soup in the form of such a file, for whom only names on an exact list count as harmless
(`may_execute`).
"""

import sys
from collections.abc import Iterable

from soupcore.strict.known_classes import MODULE_CLASSES
from soupcore.strict.numpy_values import is_plain_numpy
from soupcore.strict.pickles import Machine
from soupcore.strict.tensors import CALLS, is_dtype, is_storage_class


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _paths(names: dict[str, str]) -> frozenset[str]:
    return frozenset(f"{module}.{name}" for module in names for name in names[module].split())


# Of the standard library, the modules that a training run has reason to mention. Any other one in a
# pickle (os, subprocess, runpy, ...) is there to run something.
_USUAL_MODULES = _words(
    """
    _codecs _collections_abc _datetime _decimal _io _operator _random abc argparse array cmath
    collections configparser contextlib copy copyreg dataclasses datetime decimal enum fractions
    functools inspect io ipaddress itertools logging math numbers operator optparse pathlib queue
    random re statistics string textwrap time types typing uuid weakref zoneinfo
    """
)
_HARMFUL = _paths(
    {
        "builtins": "__import__ breakpoint compile delattr eval exec exit globals help input "
        "locals open quit setattr vars",
        "io": "FileIO OpenWrapper open open_code",
        "_io": "FileIO open open_code",
        "types": "CodeType FunctionType LambdaType",
        "numpy": "load",
        "torch": "load",
        "torch.serialization": "load",
        "torch.storage": "_load_from_bytes",
    }
)
# Of other packages, those that run or fetch what a string names.
_HARMFUL_PACKAGES = (
    "numpy.f2py.",
    "numpy.testing.",
    "pip.",
    "setuptools.",
    "torch.hub.",
    "torch.jit.",
    "torch.utils.cpp_extension.",
)

# The exact lists. What may be called:
_CALLED = _paths(
    {
        "builtins": "bytearray complex frozenset range slice",
        "collections": "Counter defaultdict deque",
        "datetime": "date datetime time timedelta timezone",
        "numpy": "dtype",
        "numpy._core.multiarray": "_reconstruct scalar",
        "numpy.core.multiarray": "_reconstruct scalar",
        "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
        "torch": "device",
        "types": "SimpleNamespace",
        "ultralytics.utils": "IterableSimpleNamespace",
    }
)
# What may be filled, once it is made:
_ATTRIBUTE_DICTS = _paths(
    {
        "lightning.fabric.utilities.data": "AttributeDict",
        "lightning_fabric.utilities.data": "AttributeDict",
        "pytorch_lightning.utilities.parsing": "AttributeDict",
    }
)
_FILLED = _ATTRIBUTE_DICTS | _paths({"collections": "Counter defaultdict deque"})
# What may be made an instance of:
_MADE = (
    _ATTRIBUTE_DICTS
    | _paths(MODULE_CLASSES)
    | _paths(
        {
            "argparse": "Namespace",
            "collections": "OrderedDict",
            "omegaconf.base": "ContainerMetadata Metadata",
            "omegaconf.dictconfig": "DictConfig",
            "omegaconf.listconfig": "ListConfig",
            "omegaconf.nodes": "AnyNode BooleanNode FloatNode IntegerNode StringNode",
        }
    )
)
# What may stand there as a value, such as a norm layer or an activation, and so is imported:
_NAMED = (
    frozenset(CALLS)
    | _CALLED
    | _MADE
    | _paths(
        {
            "builtins": "bool bytes dict float int list object str",
            "numpy": "ndarray",
            "torch": "Tensor",
            "torch._C._nn": "gelu softplus",
            "torch._tensor": "Tensor",
            "torch.nn.functional": "elu gelu hardswish leaky_relu mish relu relu6 sigmoid silu "
            "softmax tanh",
            "torch.nn.parameter": "Buffer Parameter",
            "typing": "Any Dict List Optional Tuple Union",
        }
    )
)


def harmful(paths: Iterable[str]) -> str | None:
    """Return the first of some names that only a file made to harm would hold, if there is one."""
    return next((path for path in paths if _is_harmful(path)), None)


def _is_harmful(path: str) -> bool:
    root = path.replace(":", ".").partition(".")[0]
    if root in sys.stdlib_module_names and root not in _USUAL_MODULES and root != "builtins":
        return True
    return path in _HARMFUL or path.startswith(_HARMFUL_PACKAGES)


def may_execute(machine: Machine) -> list[str]:
    """Return what a usual loader would import or run, beyond what is known to be harmless.

    What a pickle calls, what it makes instances of, what it fills by their methods, and what it
    only names (which is imported too): all must stand on exact lists.
    """
    found = {path for path in machine.named if not (is_dtype(path) or is_storage_class(path))}
    found -= _NAMED
    for instance in machine.instances:
        path = instance.path
        is_known = path in (_CALLED if instance.called else _MADE)
        is_filled = bool(instance.items or instance.entries)
        if not is_known or (is_filled and path not in _FILLED):
            found.add(path)
        elif path.startswith("numpy.") and not is_plain_numpy(instance):
            found.add(f"{path} of an unusual dtype")
    return sorted(found)
