"""A PostgreSQL server of our own for the tests, where one is installed.

python -m tests.postgres

installs one where we are root on Debian. Elsewhere the tests that need one are skipped.
"""

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine

# Parameters of a fixture that gives a database.
DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)]

_USER = "nobody"  # the server refuses to run as root


def _program(name: str) -> str | None:
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(debian[-1]) if debian else shutil.which(name)


@contextmanager
def postgres_server() -> Iterator[URL]:
    """Run a server that only this user reaches, over a socket; skip the test where there is none.

    Yields:
        The URL of its first database; see `new_database`.
    """
    initdb, pg_ctl = _program("initdb"), _program("pg_ctl")
    if initdb is None or pg_ctl is None:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    user = _USER if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)

    def run(*command: str) -> None:
        subprocess.run(command, user=user, check=True, cwd=folder, stdout=subprocess.DEVNULL)

    data = str(folder / "data")
    options = f"-c listen_addresses='' -k {folder} -c fsync=off"
    run(initdb, "--pgdata", data, "--no-sync", "--auth=trust", "--username=stockpot")
    try:
        run(pg_ctl, "start", "-w", "-D", data, "-o", options, "-l", str(folder / "log"))
        query = {"host": str(folder)}
        yield URL.create("postgresql+psycopg", "stockpot", database="postgres", query=query)
        run(pg_ctl, "stop", "-D", data, "-m", "immediate")
    finally:
        shutil.rmtree(folder)


def new_database(server: URL) -> str:
    """Create an empty database and return its URL."""
    name = f"test_{secrets.token_hex(4)}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return server.set(database=name).render_as_string(hide_password=False)


def main() -> None:
    if _program("initdb") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "postgresql"]
        for command in (["apt-get", "update", "-qq"], install):
            subprocess.run(command, check=False)  # without it, the tests say what they skip
    print(f"Tests on PostgreSQL use {_program('initdb') or 'none and are skipped'}")


if __name__ == "__main__":
    main()
