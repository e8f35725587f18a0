"""Which version of every package: the lock, and the newest and the oldest that the ranges in pyproject.toml allow.

python tests/support/versions.py lock             # both requirements.txt, and sdk_version in README.md
python tests/support/versions.py latest | oldest  # prints what pip should install beside the torch that is installed

uv only resolves here, and pip installs: so torch is the build at hand, and not one with gigabytes for CUDA.
"""

import importlib.metadata
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
UV = ROOT / ".venv-uv" / "bin" / "uv"
APP = ("pyproject.toml",)
TESTS = ("--all-extras", "--group", "test", "pyproject.toml")
# Resolved with the rest, written nowhere: what a Space installs by itself must agree with the lock.
SPACE = ("--group", "space")
UNIVERSAL = ("--universal", "--python-version", "3.11")
THIS_PYTHON = ("--python-version", "{}.{}".format(*sys.version_info), "--no-build")

HEADER = """\
# Made by `make lock` from the ranges in pyproject.toml, for Python 3.11 to 3.14 on every system. Not to be edited.
"""
TORCH_FIRST = "# torch and what it alone brings are not locked: pip takes the build that suits the machine.\n"


def torch_range() -> str:
    """torch's line of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return next(line for line in project["dependencies"] if re.match(r"torch\b", line))


def _uv(arguments: tuple[str, ...], constraints: list[str], without_torch: bool) -> list[str]:
    if not UV.exists():
        sys.exit("uv is not set up: make lock, make test-latest and make test-oldest do that, and run this.")
    with tempfile.TemporaryDirectory() as folder:
        pins, excluded = Path(folder, "constraints.txt"), Path(folder, "excludes.txt")
        pins.write_text("\n".join(constraints), encoding="utf-8")
        excluded.write_text("torch", encoding="utf-8")
        command = [str(UV), "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--constraints", str(pins)]
        command += ["--excludes", str(excluded)] if without_torch else []
        # Without colours and index options of the environment: the answer is read, and written to files for everybody.
        done = subprocess.run([*command, "--color", "never", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return [line for line in done.stdout.splitlines() if line and not line.startswith(("#", "-"))]


def resolve(
    *wanted: tuple[str, ...], how: tuple[str, ...], beside: tuple[str, ...] = (), torch: str
) -> list[list[str]]:
    """Exact lines for each of `wanted`, that agree with each other, with `beside` and with torch, but without torch.

    First everything is resolved with torch, so that what it asks for counts; then each by itself under those versions,
    without torch, so that what nothing else needs is gone.
    """
    everything = _uv((*how, *beside, *wanted[-1]), [torch], without_torch=False)
    return [_uv((*how, *part), everything, without_torch=True) for part in wanted]


def lock() -> None:
    app, tests = resolve(APP, TESTS, how=UNIVERSAL, beside=SPACE, torch=torch_range())
    (ROOT / "requirements.txt").write_text(
        HEADER + TORCH_FIRST + "\n".join([torch_range(), *app]) + "\n", encoding="utf-8"
    )
    more = [line for line in tests if line not in app]
    (ROOT / "tests" / "requirements.txt").write_text(
        HEADER + "# What the tests need besides ../requirements.txt.\n" + "\n".join(more) + "\n", encoding="utf-8"
    )
    readme = ROOT / "README.md"
    gradio = next(line.removeprefix("gradio==") for line in app if line.startswith("gradio=="))
    text = re.sub(r"(?m)^sdk_version: .*$", f"sdk_version: {gradio}", readme.read_text(encoding="utf-8"), count=1)
    readme.write_text(text, encoding="utf-8")
    print(f"requirements.txt: {len(app)} packages; tests/requirements.txt: {len(more)} more.")


def print_for_here(*options: str) -> None:
    torch = "torch==" + importlib.metadata.version("torch").partition("+")[0]
    [lines] = resolve(TESTS, how=(*THIS_PYTHON, *options), torch=torch)
    print("\n".join(lines))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["lock"]:
            lock()
        case ["latest"]:
            print_for_here()
        case ["oldest"]:
            print_for_here("--resolution", "lowest-direct")
        case _:
            sys.exit("python tests/support/versions.py lock | latest | oldest")
