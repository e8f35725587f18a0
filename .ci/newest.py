"""A report that decides nothing: do models, generation, files and app hold with the newest versions the ranges allow?

python .ci/newest.py [MINUTES]      # after `make test`; ends by itself after so many minutes (default 27)

Sets up .venv-latest, runs the tests below there, and says which versions differ from the lock and what broke.
"""

import re
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
LOCKED, NEWEST = ROOT / ".venv", ROOT / ".venv-latest"
TESTS = {
    "models": ("test_model", "test_oracle_transformers", "test_oracle_heads", "test_heads", "test_import"),
    "checkpoint": ("test_checkpoint",),
    "generation": ("test_generator", "test_writing"),
    "app": ("test_app",),
}


def say(text: str) -> None:
    """In lines of our own, and marked: whoever reads the closing line of a test run must find that of `make test`."""
    print("newest: " + text, flush=True)


def run(command: list[str], log: Path, ends_at: float) -> int | None:
    """Exit code, or None where time was up; what it printed goes into the log."""
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        try:
            return process.wait(max(ends_at - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            return None


def versions(venv: Path) -> dict[str, str]:
    command = [venv / "bin" / "python", "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    pairs = (line.split("==") for line in lines if "==" in line)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}


def say_differences() -> None:
    locked, newest = versions(LOCKED), versions(NEWEST)
    changed = {name for name in locked.keys() & newest.keys() if locked[name] != newest[name]} - {"pip"}
    for name in sorted(changed):
        say(f"{name} {newest[name]}, in the lock {locked[name]}")
    if not changed:
        say("every version is the lock's")


def failures(results: Path) -> list[str]:
    """One line for each test that broke."""
    lines = []
    for case in ElementTree.parse(results).iter("testcase"):
        for kind in ("failure", "error"):
            if (found := case.find(kind)) is not None:
                message = (found.get("message") or "").strip().splitlines() or [""]
                lines.append(f"{case.get('classname')}::{case.get('name')}: {message[0][:200]}")
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
    say_differences()
    for subject, names in TESTS.items():
        results = logs / f"{subject}.xml"
        results.unlink(missing_ok=True)
        command = [NEWEST / "bin" / "python", "-m", "pytest", f"--junitxml={results}"]
        files = [f"tests/{name}.py" for name in names]
        code = run([str(word) for word in (*command, *files)], logs / f"{subject}.txt", ends_at)
        if code is None:
            return say(f"{subject}: time was up after {minutes:g} minutes")
        broken = failures(results) if results.exists() else []
        say(f"{subject}: " + ("all hold" if code == 0 else f"{len(broken)} broke (pytest's exit code {code})"))
        for line in broken:
            say(f"  {line}")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
