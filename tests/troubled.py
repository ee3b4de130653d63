"""A sweep with one of each kind of trouble, and what is to be said of each."""

import io
import json
import os
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.helpers import State

SAMPLE = Path(__file__).parents[1] / "sample_data" / "digits" / "sweep"

# {checkpoint: (left out, a part of the problem, a part of the way out)}
TROUBLES = {
    "adapter": (
        True,
        "do not fit 'head.weight' of the base",
        "the adapter was trained on",
    ),
    "archive": (True, "TorchScript archive", "torch.jit.load"),
    "code": (True, "which runs code", "Exclude or replace it"),
    "run-01-copy": (False, "the same weights as run-01", "Exclude one of them"),
    "damaged": (True, "the checksum of the record", "Copy it again"),
    "diverged": (True, "NaN or infinite values (3 of 10)", "use an earlier checkpoint"),
    "empty": (True, "is empty", "Copy or download it again"),
    "gone": (False, "there is no such checkpoint", "remove the row"),
    "half": (False, "stored as float16, but as float32 in the base", "averaged in the wider"),
    "own-head": (False, "started from a different head", "use the head of"),
    "page": (True, "is a web page", "Open it in a browser"),
    "pointer": (True, "Git LFS pointer", "git lfs pull"),
    "quantized": (True, "quantized", "Save the float weights"),
    "shards": (
        True,
        "model.safetensors.index.json: the shard model-00002-of-00002.safetensors is missing",
        "Copy it beside the index",
    ),
    "short": (True, "was truncated", "Copy or download it again"),
    "state-of-optimizer": (True, "the state of an optimizer", "Choose the file that holds"),
    "ten-more-classes": (True, "shape [20, 256], but [10, 256] in the base", "architecture"),
    "unfinished": (True, "cannot be opened", "Copy or download it again"),
    "without-bias": (True, "lacks 1 tensor of the base: head.bias", "architecture"),
}
# Of these nothing is to be said.
FINE = ("run-01", "run-02", "run-03", "compiled", "in-parallel", "lightning", "yolo")


def make_troubled_sweep(folder: Path) -> Path:
    """Write it; all but the troubles is a copy, or a wrapped one, of runs of the bundled sample."""
    folder.mkdir(parents=True)
    runs = {name: load_file(SAMPLE / f"{name}.safetensors") for name in _COPIED}
    for name in ("base", "run-01", "run-02", "run-03"):
        save_file(runs[name], folder / f"{name}.safetensors")
    _write_wrapped(folder, runs)
    _write_misfits(folder, runs["run-01"])
    _write_warnings(folder, runs)
    _write_damaged(folder, runs["run-01"])
    (folder / "optimizer.pt").write_bytes(b"what a trainer left")
    return folder


_COPIED = ("base", *(f"run-{number:02}" for number in range(1, 9)))


def _write_wrapped(folder: Path, runs: dict[str, State]) -> None:
    save_file(_prefixed(runs["run-04"], "module."), folder / "in-parallel.safetensors")
    torch.save(_prefixed(runs["run-05"], "_orig_mod."), folder / "compiled.pt")
    torch.save(
        {"epoch": 7, "state_dict": _prefixed(runs["run-06"], "net."), "optimizer_states": []},
        folder / "lightning.ckpt",
    )
    torch.save({"epoch": 9, "model": runs["run-07"], "ema": runs["run-08"]}, folder / "yolo.pt")


def _write_misfits(folder: Path, good: State) -> None:
    factors = {f"base_model.model.head.lora_{f}.weight": torch.ones(2, 2) for f in "AB"}
    save_file(factors, folder / "adapter.safetensors")
    more = good | {"head.weight": torch.zeros(20, 256), "head.bias": torch.zeros(20)}
    save_file(more, folder / "ten-more-classes.safetensors")
    save_file(
        {n: t for n, t in good.items() if n != "head.bias"}, folder / "without-bias.safetensors"
    )
    bias = good["head.bias"].clone()
    bias[:3] = torch.nan
    save_file(good | {"head.bias": bias}, folder / "diverged.safetensors")
    torch.save(
        torch.optim.Adam([nn.Parameter(torch.ones(2))]).state_dict(),
        folder / "state-of-optimizer.pt",
    )


def _write_warnings(folder: Path, runs: dict[str, State]) -> None:
    save_file(runs["run-01"], folder / "run-01-copy.safetensors")
    generator = torch.Generator().manual_seed(1)
    head = torch.randn(10, 256, generator=generator)
    save_file(runs["run-03"] | {"head.weight": head}, folder / "own-head.safetensors")
    save_file({n: t.half() for n, t in runs["run-02"].items()}, folder / "half.safetensors")
    (folder / "sweep.jsonl").write_text(json.dumps({"name": "gone", "learning_rate": 0.1}) + "\n")


def _write_damaged(folder: Path, good: State) -> None:
    whole = (folder / "run-01.safetensors").read_bytes()
    (folder / "empty.pt").write_bytes(b"")
    (folder / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    (folder / "page.bin").write_text("<!DOCTYPE html><title>404</title>")
    (folder / "short.safetensors").write_bytes(whole[: len(whole) // 2])
    zipped = io.BytesIO()
    torch.save(good, zipped)
    (folder / "unfinished.pt").write_bytes(zipped.getvalue()[: len(zipped.getvalue()) // 2])
    value = good["head.bias"].numpy().tobytes()
    (folder / "damaged.pt").write_bytes(zipped.getvalue().replace(value, bytes(len(value)), 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch no longer likes to write such files
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), folder / "archive.pt")
        quantized = torch.quantize_per_tensor(good["head.weight"], 0.1, 0, torch.qint8)
        torch.save(good | {"head.weight": quantized}, folder / "quantized.pt")
    torch.save(good | {"note": _Hostile()}, folder / "code.pt")
    (folder / "shards").mkdir()
    first = "model-00001-of-00002.safetensors"
    save_file(good, folder / "shards" / first)
    weight_map = dict.fromkeys(good, first) | {"x": "model-00002-of-00002.safetensors"}
    index = folder / "shards" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))


class _Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("echo this must never run",)


def _prefixed(state: State, prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}
