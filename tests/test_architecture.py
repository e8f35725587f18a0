"""Imports run one way, files stay small enough to have one subject, and the docs name what is there."""

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# The rooms of each package, the first ones knowing least: a room may import those before it. A room is a folder, or a
# module that lies directly in the package.
ROOMS = {
    "switch_model": [
        *(
            "tracing",
            "stepping",
            "config_rules",
            "config_fields",
            "config",
            "routing",
            "interventions",
            "layers",
            "sparse_mlp",
        ),
        *("storage", "models", "checkpoint", "inference", "counterfactuals", "analysis", "plots"),
    ],
    "train": [
        *("words", "names", "requirements", "launch", "picture_text", "data", "arguments", "tasks", "runs"),
        *("evaluation", "weights", "release", "analysis", "preflight", "training", "sweep", "cli"),
    ],
    "ui": [
        *("server", "look", "catalog", "views", "components", "cards", "sharing", "explore", "training", "models"),
        *("how_it_works", "analyse", "compare", "page", "launch"),
    ],
}
FORBIDDEN = {"switch_model": {"gradio", "train", "ui", "app"}, "train": {"gradio", "ui", "app"}, "ui": {"app"}}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_import_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        tops = {name.split(".")[0] for name in imports(path)}
        assert not tops & FORBIDDEN[package], path


def own_modules(package: str) -> dict[str, set[str]]:
    """Every module of a package by its dotted name, and those of the package that it imports."""
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in (ROOT / package).rglob("*.py")}
    paths = {name: path for name, path in paths.items() if not name.endswith(("__init__", "__main__"))}
    return {name: imports(path) & set(paths) for name, path in paths.items()}


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_import_one_way(package):
    modules, rooms = own_modules(package), ROOMS[package]
    assert {name.split(".")[1] for name in modules} == set(rooms)
    for name, others in modules.items():
        room = rooms.index(name.split(".")[1])
        later = {other for other in others if rooms.index(other.split(".")[1]) > room}
        assert not later, f"{name} imports {later}"
    graphlib.TopologicalSorter(modules).prepare()  # Raises where modules import in a circle.


def test_importing_the_model_loads_no_plots_and_no_page():
    heavy = ("plotly", "gradio", "matplotlib", "datasets")
    code = f"import sys, switch_model; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_mistake_that_the_tests_are_tried_with_is_still_one():
    """tests/support/mutations.py changes lines of the code, which must still stand there, once."""
    from tests.support.mutations import MISTAKES

    for what, module, before, _ in MISTAKES:
        code = (ROOT / "switch_model" / f"{module}.py").read_text(encoding="utf-8")
        assert code.count(before) == 1, what


def test_app_is_only_a_launcher():
    assert len((ROOT / "app.py").read_text(encoding="utf-8").splitlines()) < 80


PAGES = sorted({ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")})
FOLDERS = ("switch_model", "train", "ui", "tests", "benchmarks", "docs", ".ci")


@functools.cache
def own_files() -> dict[str, Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")] + list(ROOT.glob("*.*"))
    return {f"/{path.relative_to(ROOT).as_posix()}": path for path in found if path.is_file()}


@functools.cache
def words_of_the_code() -> set[str]:
    code = [path for path in own_files().values() if path.suffix in (".py", ".js", ".css", ".toml", ".txt")]
    return {word for path in code for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))}


def anchors(page: Path) -> set[str]:
    """What a link may name behind its #, as GitHub makes it of the headings."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
        other = page.parent / target if target else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_tests_flags_and_names_that_pages_name_are_there(page):
    text = page.read_text(encoding="utf-8")
    code = re.findall(r"`([^`]+)`", re.sub(r"(?s)^```.*?^```$", "", text, flags=re.MULTILINE))
    # A page may leave out the folders that its sentence is about.
    for name, test in re.findall(r"([\w./-]+\.(?:py|js|css|md))\b(?:::(\w+))?", " ".join(code)):
        paths = [path for at, path in own_files().items() if at.endswith(f"/{name}")]
        assert paths, name
        assert not test or any(f"def {test}(" in path.read_text(encoding="utf-8") for path in paths), f"{name}::{test}"
    for module in re.findall(r"python -m (benchmarks\.\w+)", text):
        assert f"/{module.replace('.', '/')}.py" in own_files(), module
    names = [name for span in code for name in re.findall(r"(?:^|\s)--(\w+)|^([A-Za-z_]\w{2,})$", span)]
    missing = [flag or name for flag, name in names if (flag or name) not in words_of_the_code()]
    assert not missing
