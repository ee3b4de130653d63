import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from soupcore import Store
from soupcore.processes import Process
from soupcore.store.leases import ClaimRow, DatabaseTime, Holder, HolderRow, remove_dead
from tests.postgres import DATABASES


@pytest.fixture(params=DATABASES)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    store = Store(tmp_path / "shared", url)
    yield store
    store.close()


def holders(store: Store) -> set[str]:
    with store.session() as session:
        return set(session.scalars(select(HolderRow.name)))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_clock_of_the_database_counts_seconds_and_parts_of_them(shared: Store) -> None:
    with shared.session() as session:
        times = [session.scalars(select(DatabaseTime())).one() for _ in range(200)]
    assert abs(times[-1] - time.time()) < 5
    assert times == sorted(times)
    assert len(set(times)) > 1


def test_a_lease_is_renewed_while_it_is_held_and_runs_out_after_that(shared: Store) -> None:
    holder = Holder(shared.engine, "me", lease=0.5)
    with holder.held():
        begun = time.monotonic()
        while time.monotonic() < begun + 1.2:
            remove_dead(shared.engine)
            assert holders(shared) == {"me"}
            time.sleep(0.05)
    while holders(shared):
        remove_dead(shared.engine)
    with holder.held():
        assert holders(shared) == {"me"}
    holder.leave()
    assert holders(shared) == set()


def test_leases_do_not_count_after_a_machine_slept(shared: Store) -> None:
    holder = Holder(shared.engine, "me", lease=0.01)
    with holder.held():
        pass
    time.sleep(0.02)
    remove_dead(shared.engine, by_lease=False)
    assert holders(shared) == {"me"}
    remove_dead(shared.engine)
    assert holders(shared) == set()


def a_process() -> subprocess.Popen[bytes]:
    """Return a process with a child, which leads a group."""
    code = "import os, time\nos.fork()\nprint(flush=True)\ntime.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == [b"\n"] * 2
    return process


def hold(store: Store, pid: int, *, lease: float) -> None:
    """Have a process hold a lease and a point."""
    here = Process.of(pid)
    with store.session() as session, session.begin():
        session.add(
            HolderRow(
                name="other",
                lease_until=time.time() + lease,
                machine=here.machine,
                pid=here.pid,
                started=here.started,
                is_worker=True,
            )
        )
        session.add(ClaimRow(mixture_key="p", task_key="t", split_digest="s", holder="other"))


def claims(store: Store) -> int:
    with store.session() as session:
        return len(session.scalars(select(ClaimRow)).all())


def test_a_process_of_this_machine_is_seen_to_have_ended_before_its_lease_runs_out(
    shared: Store,
) -> None:
    process = a_process()
    hold(shared, process.pid, lease=600)
    remove_dead(shared.engine)
    assert (holders(shared), claims(shared)) == ({"other"}, 1)
    os.kill(process.pid, signal.SIGKILL)  # its child lives on, with all that it inherited
    wait_until(lambda: Process.of(process.pid).started == "")
    remove_dead(shared.engine)
    assert (holders(shared), claims(shared)) == (set(), 0)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_local_worker_with_an_expired_lease_is_killed_with_its_children(
    shared: Store,
) -> None:
    process = a_process()
    process.send_signal(signal.SIGSTOP)
    hold(shared, process.pid, lease=-1)
    remove_dead(shared.engine)
    assert holders(shared) == set()
    process.communicate(timeout=300)  # which waits until its child has closed the pipe, too
    assert process.returncode == -signal.SIGKILL


def test_a_process_with_a_used_id_is_not_taken_for_the_one_before() -> None:
    here = Process.current()
    assert here.is_here
    assert not here.has_ended
    before = Process(here.machine, here.pid, "1")
    assert before.has_ended
    elsewhere = Process("other machine", here.pid, "1")
    assert not elsewhere.is_here
    assert not elsewhere.has_ended
    assert not elsewhere.kill()
