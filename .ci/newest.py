"""A report that decides nothing: do models, generation, files and app hold with the newest versions the ranges allow?

python .ci/newest.py [MINUTES]      # after `make test`; ends by itself after so many minutes (default 27)

Sets up .venv-latest, runs the tests below there, and says which versions differ from the lock and what broke.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
LOCKED, NEWEST = ROOT / ".venv", ROOT / ".venv-latest"
TESTS = {
    "models": (
        "switch_model/test_model",
        "switch_model/test_oracle_transformers",
        "switch_model/test_oracle_heads",
        "switch_model/test_heads",
        "switch_model/test_import",
    ),
    "checkpoint": ("switch_model/test_checkpoint",),
    "generation": ("switch_model/test_generator", "ui/test_writing"),
    "app": ("ui/test_app",),
}


def say(text: str) -> None:
    """Marked, and without counts as pytest closes with, not even in a quoted message: those are `make test`'s own."""
    print("newest: " + re.sub(r"(\d+) (passed|failed|skipped|errors?)\b", r"\2: \1", text), flush=True)


def run(command: list[str], log: Path, ends_at: float) -> int | None:
    """Exit code, or None where time was up; what it printed goes into the log."""
    with open(log, "w", encoding="utf-8") as file:
        # A group of its own, so that what it started ends with it.
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            return process.wait(max(ends_at - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def versions(venv: Path) -> dict[str, str]:
    command = [venv / "bin" / "python", "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    pairs = (line.split("==") for line in lines if "==" in line)
    return {normal(name): version for name, version in pairs if name != "pip"}


def normal(name: str) -> str:
    """A package's name in one spelling, which is mostly that of its folder too."""
    return re.sub(r"[-_.]+", "-", name).lower()


def differences() -> dict[str, str]:
    """Package -> its newest version, where the lock has another."""
    locked, newest = versions(LOCKED), versions(NEWEST)
    for name in sorted(newest):
        if newest[name] != locked.get(name):
            say(f"{name} {newest[name]}, " + (f"in the lock {locked[name]}" if name in locked else "not in the lock"))
    return {name: version for name, version in newest.items() if version != locked.get(name)}


def failures(results: Path, changed: dict[str, str]) -> list[str]:
    """One line for each test that broke, with those of the changed packages that it broke in or on the way through."""
    lines = []
    for case in ElementTree.parse(results).iter("testcase"):
        found = next((case.find(kind) for kind in ("failure", "error") if case.find(kind) is not None), None)
        if found is None:
            continue
        passed_through = {normal(name) for name in re.findall(r"site-packages/(\w+)", found.text or "")}
        packages = [f"{name} {changed[name]}" for name in sorted(passed_through & changed.keys())]
        message = (found.get("message") or "no message").strip().splitlines()[0][:200]
        where = f" (in {', '.join(packages)})" if packages else ""
        lines.append(f"{case.get('classname')}::{case.get('name')}{where}: {message}")
    return lines


def main(minutes: float = 27) -> None:
    ends_at = time.monotonic() + minutes * 60
    say("a report on the newest versions that pyproject.toml allows; it decides nothing")
    logs = ROOT / "build" / "newest"
    logs.mkdir(parents=True, exist_ok=True)
    if code := run(["make", "install-latest"], logs / "install.txt", ends_at):
        lines = (logs / "install.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return say(f"they could not be installed ({code}): {lines[-1] if lines else ''}")
    if code is None:
        return say(f"installing them was not done after {minutes:g} minutes")
    changed = differences()
    if not changed:
        say("every version is the lock's")
    for subject, names in TESTS.items():
        results = logs / f"{subject}.xml"
        results.unlink(missing_ok=True)
        command = [NEWEST / "bin" / "python", "-m", "pytest", "-n", "2", "--dist", "loadfile", f"--junitxml={results}"]
        files = [f"tests/{name}.py" for name in names]
        code = run([str(word) for word in (*command, *files)], logs / f"{subject}.txt", ends_at)
        if code is None:
            return say(f"{subject}: time was up after {minutes:g} minutes")
        broken = failures(results, changed) if results.exists() else []
        say(f"{subject}: " + ("all hold" if code == 0 else f"{len(broken)} broke (pytest's exit code {code})"))
        for line in broken:
            say(f"  {line}")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
