"""A summary of one torch file, as plain values that JSON can represent."""

from typing import Any, BinaryIO

from soupcore.safe_torch.arrays import Arrays
from soupcore.safe_torch.execution import (
    may_execute,
    run_by_ultralytics,
    ultralytics_network,
)
from soupcore.safe_torch.formats import read_tree
from soupcore.safe_torch.metadata import Plain, Scalars, details_of, local_paths_of, values_of
from soupcore.safe_torch.names import MARKER
from soupcore.safe_torch.siblings import WeightSet
from soupcore.safe_torch.tensors import Tensor
from soupcore.safe_torch.values import entries_of
from soupcore.safe_torch.weight_sets import find_weight_sets

_MOST_NAMED = 100  # names in `executes`
LONGEST_NAME = 1_000  # of a tensor
_MOST_REPEATED = 100  # times that the same bytes are used; models with shared layers have dozens


def read_contents(file: BinaryIO) -> dict[str, Any]:
    """Read a file that `torch.save` wrote. Nothing is executed.

    Weights are not read, but tensors of one element beside the weights, such as a metric, are.

    Args:
        file: The file, seekable.

    Returns:
        `format`: "zip", "legacy", or "pickle" for NumPy arrays that pickle wrote.
        `sets`: a dict for each set of weights, the preferred one first: `name`, `title`, `notes`,
        `left_out` (places of other trained parts, see `weight_sets`), and either `tensors`,
        `{name: [storage key, dtype, offset, shape, stride, conjugate, negative]}`, or `problem`
        and `way_out`, two sentences.
        `metadata`: `{"stockpot": recipe as JSON}` for a soup; else empty.
        `details`: plain values about the run that saved the file, see `metadata.details_of`.
        `executes`: names that `torch.load` would run or import, beyond those known as harmless.
        `network`: the description of an Ultralytics model, if there is one that runs no code.
        `local_paths`: `[[place, path]]`, paths on the machine that saved the file.
        `storages`: `{key: [offset in the file, bytes, CRC-32 or None]}` of the tensors in `sets`.

    Raises:
        Refusal: The file is not one of torch.save, is damaged, or holds no weights.
    """
    kind, tree, machine, places = read_tree(file)
    arrays = Arrays(machine)
    found_sets = find_weight_sets(tree, arrays.tensor_of)
    places |= arrays.places
    weights = {tensor for found in found_sets for tensor in found.tensors.values()}
    sets = [_described(found) for found in found_sets]
    executes = may_execute(machine) + run_by_ultralytics(machine.instances)
    used = {tensor[0] for found in sets for tensor in found.get("tensors", {}).values()}
    return {
        "format": kind,
        "sets": sets,
        "metadata": _metadata(tree),
        "details": details_of(tree, Scalars(file, places, weights).number_of),
        "executes": executes[:_MOST_NAMED],
        "network": ultralytics_network(machine.instances),
        "local_paths": local_paths_of(tree),
        "storages": {key: places[key] for key in places if key in used},
    }


def read_values(file: BinaryIO) -> dict[str, Plain]:
    """Read the plain values of a file that `torch.save` wrote without weights. Nothing is executed.

    Args:
        file: The file, seekable, such as a `training_args.bin`.

    Raises:
        Refusal: The file is not one of torch.save, or is damaged.
    """
    _, tree, _, _ = read_tree(file)
    return values_of(tree)


def _metadata(tree: Any) -> dict[str, str]:
    recipe = (entries_of(tree) or {}).get(MARKER)
    return {MARKER: recipe} if type(recipe) is str else {}


def _described(found: WeightSet) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": found.name,
        "title": found.title,
        "notes": found.notes,
        "left_out": found.left_out,
    }
    if found.problem:
        problem, way_out = found.problem
        return described | {"problem": problem, "way_out": way_out}
    tensors = {}
    for name, tensor in found.tensors.items():
        if trouble := _problem_of_name(name) or tensor.problem():
            problem, way_out = trouble
            problem = f"Tensor {name[:60]!r} {problem}."
            return described | {"problem": problem, "way_out": way_out}
        assert isinstance(tensor, Tensor)  # noqa: S101 - the others have a problem
        tensors[name] = [
            tensor.storage.key,
            tensor.dtype,
            tensor.offset,
            tensor.shape,
            tensor.stride,
            tensor.conjugate,
            tensor.negative,
        ]
    if found.described_nbytes > _MOST_REPEATED * found.nbytes:
        problem = f"Its tensors repeat stored bytes more than {_MOST_REPEATED} times."
        return described | {"problem": problem, "way_out": ""}
    return described | {"tensors": tensors}


def _problem_of_name(name: str) -> tuple[str, str] | None:
    if len(name) > LONGEST_NAME:
        return f"has a name longer than the limit of {LONGEST_NAME}", ""
    if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
        return "has a name that is not text", ""
    return None
