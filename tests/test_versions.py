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


def test_the_wheel_holds_every_file_of_its_packages(tmp_path):
    packages = [name.rstrip("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]
    for name in [*packages, "pyproject.toml", "README.md", "LICENSE"]:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    # In a process and a copy of its own: setuptools changes folders, and leaves its own behind.
    build = "import setuptools.build_meta; print(setuptools.build_meta.build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(tmp_path / done.stdout.splitlines()[-1]) as wheel:
        held = set(wheel.namelist())
    assert STYLE_SHEET.is_relative_to(ROOT / "ui")
    for package in packages:
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert path.relative_to(ROOT).as_posix() in held
