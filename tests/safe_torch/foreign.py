"""Objects of packages that are not installed, pickled under the names these packages give them.

`torch.save(value, file, pickle_module=foreign)` writes them; no one here could load them.
"""

import pickle
from typing import Any

_PythonPickler: Any = vars(pickle)["_Pickler"]


class Pickler(_PythonPickler):  # type: ignore[misc]
    """Writes classes that have `pickled_as` under that name."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        path = getattr(obj, "pickled_as", None)
        if path is None:
            super().save_global(obj, name)
            return
        module, _, name = path.rpartition(".")
        self.write(b"c" + f"{module}\n{name}\n".encode())
        self.memoize(obj)

    dispatch = _PythonPickler.dispatch | {type: save_global}


def dump(value: object, file: Any, protocol: int) -> None:
    Pickler(file, protocol).dump(value)


class Foreign:
    """An instance of a class of such a package."""

    pickled_as: str

    def __init__(self, **attributes: object) -> None:
        self.__dict__.update(attributes)


class DictConfig(Foreign):
    pickled_as = "omegaconf.dictconfig.DictConfig"


class ListConfig(Foreign):
    pickled_as = "omegaconf.listconfig.ListConfig"


class AnyNode(Foreign):
    pickled_as = "omegaconf.nodes.AnyNode"


class ContainerMetadata(Foreign):
    pickled_as = "omegaconf.base.ContainerMetadata"


class AttributeDict(dict[str, Any]):
    pickled_as = "lightning.fabric.utilities.data.AttributeDict"


def omegaconf_tree(value: object, parent: Foreign | None = None) -> Foreign:
    """What `OmegaConf.create(value)` pickles."""
    about = {"_metadata": ContainerMetadata(ref_type=Any, optional=True), "_parent": parent}
    if isinstance(value, dict):
        made = DictConfig(**about)
        made.__dict__["_content"] = {key: omegaconf_tree(part, made) for key, part in value.items()}
        return made
    if isinstance(value, list):
        items = ListConfig(**about)
        items.__dict__["_content"] = [omegaconf_tree(part, items) for part in value]
        return items
    return AnyNode(**about, _val=value)
