"""Finding a Chromium for the browser tests, and installing one where there is none.

python -m tests.browser.chromium

"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find() -> str | None:
    """Return the path of a Chromium or Chrome of this machine, of Playwright's own, or None."""
    for name in _NAMES:
        if (path := shutil.which(name)) is not None:
            return path
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).is_file() else None


def install() -> None:
    """Install Chromium: Debian's where we are root on Debian, else Playwright's own."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"], check=True
        )
    else:
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=True)


def main() -> None:
    if find() is None:
        try:
            install()
        except subprocess.CalledProcessError as error:
            sys.exit(
                f"No Chromium was found and installing one failed ({error}). Install Chromium or "
                "Chrome with your system's package manager and run `make test` again."
            )
    print(f"Browser tests use {find()}")


if __name__ == "__main__":
    main()
