"""A process that writes a soup is killed at each of its steps, and nothing half is ever seen."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers import any_tensor

# Forks itself, so that torch is imported once: the n-th child dies at its n-th step. After each,
# prints what is in the folder, before and after what was left is removed.
PROGRAM = """
import hashlib, json, os, signal, sys
from pathlib import Path
import soupcore
from soupcore.new_files import remove_leftovers

folder, forms = Path(sys.argv[1]), json.loads(sys.argv[2])
sweep = soupcore.Sweep.from_folder(folder / "sweep")
earlier, new = soupcore.manual(sweep, {"a": 1}), soupcore.uniform(sweep)
steps = 0

def content(of):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in of.iterdir()}

def die_at(last):
    def step(*_):
        global steps
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(call):
        def wrapper(*arguments, **named):
            step()
            return call(*arguments, **named)
        return wrapper

    for name in ("open", "fsync", "replace", "unlink", "pwrite"):
        setattr(os, name, counted(getattr(os, name)))
    return step

def killed_at(last, out, target, options):
    out.mkdir()
    earlier.save(out / target, **options)
    child = os.fork()
    if not child:
        new.save(out / target, **options, on_bytes=die_at(last))
        os._exit(0)
    killed = os.waitpid(child, 0)[1] == signal.SIGKILL
    seen = content(out)
    remove_leftovers(out)
    return killed, seen, content(out)

for number, (target, options) in enumerate(forms):
    whole = folder / f"whole-{number}"
    whole.mkdir()
    contents = []
    for soup in (earlier, new):
        soup.save(whole / target, **options)
        contents.append(content(whole))
    print(json.dumps(contents))
    deaths, killed = [], True
    while killed:
        last = len(deaths) + 1
        killed, *found = killed_at(last, folder / f"out-{number}-{last}", target, options)
        deaths.append([killed, *found])
    print(json.dumps(deaths))
"""

FORMS: list[tuple[str, dict[str, int]]] = [
    ("soup.safetensors", {}),
    ("model.safetensors", {"shard_size": 300_000}),
    ("soup.pt", {}),
]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("interrupted")
    (folder / "sweep").mkdir()
    for seed, name in enumerate("ab"):
        state = {key: any_tensor(torch.float32, 25_000, seed=seed) for key in "uvwxyz"}
        torch.save(state, folder / "sweep" / f"{name}.pt")
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), json.dumps(FORMS)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"STOCKPOT_WORKSPACE": str(folder)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return result.stdout.decode().splitlines()


@pytest.mark.integration
@pytest.mark.parametrize("number", range(len(FORMS)), ids=[name for name, _ in FORMS])
def test_a_killed_writer_leaves_complete_files_and_recognisable_leftovers(
    lines: list[str], number: int
) -> None:
    (earlier, new), deaths = json.loads(lines[2 * number]), json.loads(lines[2 * number + 1])
    (target, options) = FORMS[number]
    had_leftovers = 0
    for killed, seen, left in deaths:
        hidden = {name for name in seen if name.startswith(".")}
        had_leftovers += bool(hidden)
        assert left == {name: sha for name, sha in seen.items() if name not in hidden}
        assert all(sha in (earlier.get(name), new.get(name)) for name, sha in left.items())
        assert killed or left == new
        assert options or target in left
        if len(left) == len(new):  # never a part of one soup with a part of the other
            assert left in (earlier, new)
    assert had_leftovers > 5
    assert [killed for killed, *_ in deaths] == [True] * (len(deaths) - 1) + [False]
