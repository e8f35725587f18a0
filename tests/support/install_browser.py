"""Make sure that there is a Chromium for the browser tests: install one where that is possible, else say so in a line.

python tests/support/install_browser.py
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """Path of a Chromium: the system's, else the one that Playwright downloaded, else None."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    try:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            path = playwright.chromium.executable_path
    except Exception:  # Playwright is missing or can't start: then there is no browser either.
        return None
    return path if Path(path).exists() else None


def _attempt(*command: str) -> bool:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def main() -> None:
    if find_chromium():
        return
    print("No Chromium found: installing one for the browser tests …", flush=True)
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        _attempt("apt-get", "update")
        _attempt("apt-get", "install", "-y", "--no-install-recommends", "chromium")
    if not find_chromium():
        _attempt(sys.executable, "-m", "playwright", "install", "chromium")
    if not find_chromium():
        print("No Chromium could be installed: the browser tests are skipped.")


if __name__ == "__main__":
    main()
