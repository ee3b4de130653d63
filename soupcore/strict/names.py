"""What the names in a pickle tell of it: what it would do to who loads it in the usual way.

Here nothing is ever called, so these lists guard nothing of ours. They serve two people: the one
who opens a file that was made to harm, and should hear so (`check_name`); and the one who would be
given a soup in the form of such a file, for whom only what stands on an exact list is harmless
(`may_execute`).
"""

import sys

from soupcore.strict.known_classes import MODULE_CLASSES, MODULE_PATHS
from soupcore.strict.numpy_values import is_plain_numpy
from soupcore.strict.pickles import Machine
from soupcore.strict.refusal import Refusal
from soupcore.strict.tensors import HARMLESS_CALLS, is_dtype, is_storage_class
from soupcore.strict.values import Inert


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _paths(names: dict[str, str]) -> frozenset[str]:
    return frozenset(f"{module}.{name}" for module in names for name in names[module].split())


# Of the standard library, the modules that a training run has reason to mention. Any other one in a
# pickle (os, subprocess, runpy, ...) is there to run something.
_USUAL_MODULES = _words(
    """
    _collections_abc _datetime _decimal _io _operator _random abc argparse array builtins cmath
    collections configparser contextlib copy dataclasses datetime decimal enum fractions functools
    inspect io ipaddress itertools logging math numbers operator optparse pathlib queue random re
    statistics string textwrap time types typing uuid weakref zoneinfo
    """
)
# Those of it that have modules inside, in one version of Python or another. Where another one seems
# to, such as `code.models`, it is of a package of somebody's own.
_PACKAGES = _words(
    """
    _pyrepl asyncio collections compression concurrent ctypes curses dbm distutils email encodings
    ensurepip html http idlelib importlib json lib2to3 logging msilib multiprocessing os pathlib
    pydoc_data pyexpat re sqlite3 string sysconfig test tkinter tomllib turtledemo unittest urllib
    venv wsgiref xml xmlrpc zipfile zoneinfo
    """
)
_USUAL_NAMES = _paths(
    {"_codecs": "encode", "copyreg": "_reconstructor", "torch.serialization": "_get_layout"}
)
_HARMFUL = _paths(
    {
        "builtins": "__import__ breakpoint compile delattr eval exec exit globals help input "
        "locals open quit setattr vars",
        "io": "FileIO open open_code",
        "_io": "FileIO open open_code",
        "operator": "attrgetter methodcaller",
        "types": "CodeType FunctionType",
        "numpy": "load",
        "torch": "load",
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
    "torch.serialization.",
    "torch.utils.collect_env.",
    "torch.utils.cpp_extension.",
)

# The exact lists. What may be called:
_CALLED = _paths(
    {
        "builtins": "bytearray complex range slice",
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
# Of these, what may have items appended or set by key, and what must have no arguments:
_APPENDED = _paths({"collections": "deque"})
_SET_BY_KEY = _paths({"collections": "Counter defaultdict"})
_EMPTY = _paths({"types": "SimpleNamespace", "ultralytics.utils": "IterableSimpleNamespace"})
# What must have one text for its only argument:
_TEXTS = _paths({"torch.torch_version": "TorchVersion"})
# What may be made an instance of:
_MADE = (
    MODULE_PATHS
    | _TEXTS
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
# What may stand there as a value, such as a norm layer or an activation. Whoever has it may call
# it with anything, so classes with more in their constructors are not among these.
_VALUES = (
    HARMLESS_CALLS
    | _paths({module: MODULE_CLASSES[module] for module in MODULE_CLASSES if "torch.nn." in module})
    | _paths(
        {
            "builtins": "bool bytes dict float int list object str",
            "numpy": "ndarray",
            "omegaconf.dictconfig": "DictConfig",
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


def check_name(path: str) -> None:
    """Make sure that a name is none that only a file made to harm would hold.

    Raises:
        Refusal: It is one.
    """
    if _is_harmful(path):
        root, name = path.partition(".")[0], path.rpartition(".")[2]
        may_be_a_model = root in sys.stdlib_module_names and name[:1].isupper()
        raise Refusal(
            f"Its pickle names {path.replace(':', '.')}, which runs code or opens files when it is "
            "loaded in the usual way. No checkpoint needs that; do not load it elsewhere.",
            f"If {root} is a module of your own, save model.state_dict() instead."
            if may_be_a_model
            else "",
        )


def _is_harmful(path: str) -> bool:
    if path in _USUAL_NAMES:
        return False
    module, _, within = path.partition(":")
    # A name with dots may walk from a module to another one that it happens to have imported.
    steps = within.split(".")
    return (
        path in _HARMFUL
        or path.startswith(_HARMFUL_PACKAGES)
        or any(step.startswith("__") for step in steps)
        or _is_unusual_library(module if within else path.rpartition(".")[0])
        or _is_unusual_library(steps[0])
    )


def _is_unusual_library(module: str) -> bool:
    """Whether a module can be one of the standard library that no training run mentions."""
    root, _, inside = module.partition(".")
    if root not in sys.stdlib_module_names or root in _USUAL_MODULES:
        return False
    return not inside or root in _PACKAGES


def may_execute(machine: Machine) -> list[str]:
    """Return what a usual loader would import or run, beyond what is known to be harmless.

    What a pickle calls, what it makes instances of and fills, what it gives them for attributes,
    and what it only names (which is imported too): all must stand on exact lists.
    """
    known = _CALLED | _MADE | _VALUES
    found = {path for path in machine.named if path not in known} | (machine.values - _VALUES)
    found = {path for path in found if not (is_dtype(path) or is_storage_class(path))}
    found |= {f"the attribute {name}" for name in machine.hidden}
    for instance in machine.instances:
        if not _is_known(instance):
            found.add(instance.path)
        elif instance.path.startswith("numpy.") and not is_plain_numpy(instance):
            found.add("numpy.dtype of an unusual kind")
    return sorted(found)


def _is_known(instance: Inert) -> bool:
    path = instance.path
    return (
        path in (_CALLED if instance.called else _MADE)
        and not (instance.items and path not in _APPENDED)
        and not (instance.entries and path not in _SET_BY_KEY)
        and not (instance.args and path in _EMPTY)
        and not (path in _TEXTS and [type(arg) for arg in instance.args] != [str])
        and _has_known_state(instance)
    )


def _has_known_state(instance: Inert) -> bool:
    """Whether its attributes are those that `instance.attributes` gives."""
    state = instance.state
    if type(state) is tuple and instance.path not in MODULE_PATHS:
        slots = len(state) == 2 and all(part is None or isinstance(part, dict) for part in state)
        return slots or instance.path.startswith("numpy.")  # see is_plain_numpy
    return state is None or isinstance(state, dict)
