"""The lock keeps to the ranges in pyproject.toml, for every Python; the wheel holds what its packages read."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import switch_explorer
from train.cli.main import COMMANDS
from ui.look.theme import STYLE_SHEET

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
RANGES = PROJECT["project"]["dependencies"]
EXTRAS = PROJECT["project"]["optional-dependencies"]
TEST_RANGES = [line for extra in EXTRAS.values() for line in extra] + PROJECT["dependency-groups"]["test"]


def lines(name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pins(python: str) -> dict[str, str]:
    """Package -> version for a Python on Linux, from both locks."""
    machine = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    found = {}
    for line in lines("requirements.txt")[1:] + lines("tests/requirements.txt"):
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate(machine):
            assert found.setdefault(canonicalize_name(pin.name), str(pin.specifier)) == str(pin.specifier), line
    return found


def test_a_lock_is_exact_and_says_nothing_of_where_it_was_made():
    first, *exact = lines("requirements.txt") + lines("tests/requirements.txt")
    assert first == next(line for line in RANGES if line.startswith("torch"))
    for line in exact:
        assert re.fullmatch(r"[a-z0-9-]+==[\w.!+]+( ; .+)?", line)
    assert not [line for line in exact if re.match(r"torch|triton|nvidia-|cuda-", line)]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_the_lock_keeps_to_the_ranges(python):
    locked = pins(python)
    for wanted in map(Requirement, RANGES[1:] + TEST_RANGES):
        version = locked[canonicalize_name(wanted.name)].removeprefix("==")
        assert wanted.specifier.contains(version), f"{wanted}, but the lock has {version}: make lock"


def test_a_space_is_given_the_gradio_of_the_lock():
    front = (ROOT / "README.md").read_text(encoding="utf-8").split("---")[1]
    python = re.search(r'^python_version: "(.+)"$', front, re.MULTILINE)[1]
    assert re.search(r"^sdk_version: (.+)$", front, re.MULTILINE)[1] == pins(python)["gradio"].removeprefix("==")


def test_the_wheel_holds_every_file_and_only_names_of_its_own(tmp_path):
    inside = "switch_explorer/inside"
    places = {name: f"{inside}/{name}" for name in ("train", "ui", "assets/models")}
    places |= {name: name for name in ("switch_model", "switch_explorer")}
    files = {
        name: f"{inside}/{name}" for name in ("app.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE")
    }
    for name in places:
        large = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.json.gz")
        shutil.copytree(ROOT / name, tmp_path / "source" / name, ignore=large)
    for name in (*files, "setup.py"):
        shutil.copyfile(ROOT / name, tmp_path / "source" / name)
    # In a process and a copy of its own: setuptools changes folders, and leaves its own behind.
    build = "import setuptools.build_meta; print(setuptools.build_meta.build_wheel('.'))"
    command = [sys.executable, "-c", build]
    done = subprocess.run(command, cwd=tmp_path / "source", capture_output=True, text=True, check=True)
    with zipfile.ZipFile(tmp_path / "source" / done.stdout.splitlines()[-1]) as wheel:
        held = set(wheel.namelist())
        wheel.extractall(tmp_path / "installed")
    tops = {name.partition("/")[0] for name in held}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"switch_explorer", "switch_model"}
    assert STYLE_SHEET.is_relative_to(ROOT / "ui")
    assert set(files.values()) <= held
    for name, place in places.items():
        for path in (tmp_path / "source" / name).rglob("*"):
            if path.is_file():
                assert f"{place}/{path.relative_to(tmp_path / 'source' / name).as_posix()}" in held

    code = (
        "import runpy, sys; sys.path.insert(0, sys.argv[1])\n"
        "import switch_explorer\n"
        "try: switch_explorer.main(['--help'])\n"
        "except SystemExit: pass\n"
        "from train.requirements import ROOT, needed\n"
        "assert needed() and str(ROOT) == sys.argv[1] + '/switch_explorer/inside' and 'torch' not in sys.modules\n"
        "messages = runpy.run_path(sys.argv[1] + '/switch_model/commands.py')\n"
        "assert messages['command']('export') == 'switch-explorer export'\n"
        "assert messages['app_command']() == 'switch-explorer'"
    )
    command = [sys.executable, "-I", "-c", code, str(tmp_path / "installed")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "usage: switch-explorer" in done.stdout, done.stderr


def test_the_installed_command_has_every_command():
    assert set(switch_explorer.COMMANDS) == {"train", *COMMANDS}
