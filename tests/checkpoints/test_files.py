import gc
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from soupcore import CheckpointError
from soupcore.checkpoints import files
from soupcore.checkpoints.files import Identity, Stamp, WeightFile


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(files, "_MOST_OPEN", 3)
    return 3


def written(folder: Path, count: int) -> list[WeightFile]:
    paths = [folder / f"{number}.bin" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 10)
    return [WeightFile(path) for path in paths]


def first_byte(file: WeightFile) -> int:
    buffer = bytearray(1)
    file.read_into(memoryview(buffer), 9)
    return buffer[0]


def descriptors(folder: Path) -> int:
    links = list(Path("/proc/self/fd").iterdir())
    return sum(str(folder) in str(link.readlink()) for link in links if link.is_symlink())


def test_few_of_many_files_stay_open_and_all_can_be_read(tmp_path: Path, few: int) -> None:
    many = written(tmp_path, 20)
    assert descriptors(tmp_path) == few
    assert [first_byte(file) for file in [*many, *reversed(many)]] == [
        *range(20),
        *range(19, -1, -1),
    ]
    assert descriptors(tmp_path) == few


def test_files_that_are_no_longer_needed_are_closed(tmp_path: Path) -> None:
    many = written(tmp_path, 5)
    assert descriptors(tmp_path) == 5
    del many
    gc.collect()
    assert descriptors(tmp_path) == 0


def test_a_file_that_is_being_read_stays_open(tmp_path: Path, few: int) -> None:
    first, *others = written(tmp_path, 9)
    opened = first.descriptor()
    for file in others:
        first_byte(file)
    assert os.pread(opened.number, 1, 0) == b"\0"


def test_many_threads_read_many_files(tmp_path: Path, few: int) -> None:
    many = written(tmp_path, 10)
    with ThreadPoolExecutor(8) as threads:
        assert [*threads.map(first_byte, many * 50)] == [*range(10)] * 50


def replaced(path: Path) -> None:
    path.with_name("new").write_bytes(b"x" * 10)
    path.with_name("new").rename(path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (replaced, "was changed after it was opened"),
        (lambda path: path.write_bytes(b"longer than before"), "was changed after it was opened"),
        (Path.unlink, "cannot be opened"),
    ],
)
def test_a_replaced_file_is_not_read_as_the_opened_one(
    tmp_path: Path, few: int, change: object, problem: str
) -> None:
    first, *_ = written(tmp_path, 9)
    assert callable(change)
    change(first.path)
    with pytest.raises(CheckpointError, match=rf"0\.bin {problem}"):
        first_byte(first)


def test_a_file_that_ends_inside_a_read_is_reported(tmp_path: Path) -> None:
    (file,) = written(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"0\.bin ended inside tensor 'w': it was truncated"):
        file.read_into(memoryview(bytearray(11)), 0, "tensor 'w'")


@pytest.fixture
def fixed_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that says the same times of all files, as after a restore from an image."""

    def identity(status: os.stat_result) -> Identity:
        return Identity(status.st_dev, status.st_ino, status.st_size, 1, 2)

    monkeypatch.setattr(files, "_as_identity", identity)


def overwrite(path: Path, offset: int, content: bytes) -> None:
    """Change bytes as `rsync --inplace -t` does: path, inode, size and modification time stay."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    same = ("st_dev", "st_ino", "st_size", "st_mtime_ns")
    assert [getattr(before, name) for name in same] == [getattr(after, name) for name in same]


def stamped(path: Path) -> Stamp:
    return WeightFile(path).stamp()


@pytest.mark.parametrize("size", [1, 1 << 10, 1 << 20])
def test_an_unchanged_file_keeps_its_stamp(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(os.urandom(size))
    assert stamped(path) == stamped(path)


def test_other_bytes_under_the_old_modification_time_have_another_stamp(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(1 << 20))
    before = stamped(path)
    overwrite(path, 5000, b"x")  # between the blocks that are probed
    after = stamped(path)
    assert after.probe == before.probe
    assert after != before


@pytest.mark.usefixtures("fixed_times")
@pytest.mark.parametrize("offset", range(0, 32 << 10, 1001))
def test_every_byte_of_a_small_file_determines_its_stamp(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(32 << 10))
    before = stamped(path)
    overwrite(path, offset, b"x")
    assert stamped(path) != before


@pytest.mark.usefixtures("fixed_times")
@pytest.mark.parametrize("size", [(32 << 10) + 1, 100_000, (1 << 20) + 7])
def test_eight_blocks_of_a_large_file_determine_its_stamp(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(size))
    before = stamped(path)
    for offset in [0, 4095, size - 4096, size - 1, *(i * (size - 4096) // 7 for i in range(8))]:
        overwrite(path, offset, b"x")
        assert stamped(path) != before
        overwrite(path, offset, b"\0")
        assert stamped(path) == before


def test_changes_within_one_tick_of_the_clock_have_different_stamps(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(1 << 20))
    seen = {stamped(path)}
    for value in range(1, 20):
        overwrite(path, 5000, bytes([value]))
        seen.add(stamped(path))
    assert len(seen) == 20


def extended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


@pytest.mark.parametrize("change", [extended, replaced])
def test_a_change_of_an_open_file_is_detected(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    (file,) = written(tmp_path, 1)
    file.check_unchanged()
    change(file.path)
    with pytest.raises(CheckpointError, match="was changed while it was read"):
        file.check_unchanged()
