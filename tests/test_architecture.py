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
# The parts of each package in order of import: a part may import those before it. A part is a folder, or a
# module that lies directly in the package.
PARTS = {
    "switch_model": [
        *(
            "commands",
            "tracing",
            "stepping",
            "config_rules",
            "config_fields",
            "config",
            "routing",
            "topk_routing",
            "interventions",
            "layers",
            "sparse_mlp",
        ),
        *(
            "token_trace",
            "grid",
            "storage",
            "models",
            "checkpoint",
            "adapters",
            "inference",
            "attribution",
            "export",
            "counterfactuals",
            "analysis",
            "traces",
            "plots",
            "monitor",
        ),
    ],
    "train": [
        *("formatting", "templates", "definitions", "names", "requirements", "launch", "bounded_process"),
        "picture_text",
        *("data", "arguments", "tasks"),
        *(
            "runs",
            "distributed",
            "evaluation",
            "weights",
            "release",
            "analysis",
            "preflight",
            "training",
            "sweep",
            "cli",
        ),
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


@pytest.mark.parametrize("package", PARTS)
def test_parts_import_one_way(package):
    modules, parts = own_modules(package), PARTS[package]
    assert {name.split(".")[1] for name in modules} == set(parts)
    for name, others in modules.items():
        part = parts.index(name.split(".")[1])
        later = {other for other in others if parts.index(other.split(".")[1]) > part}
        assert not later, f"{name} imports {later}"
    graphlib.TopologicalSorter(modules).prepare()  # Raises where modules import in a circle.


# What each of these may not bring along when it is imported, in an order in which each brings the one before.
SLOW = {
    "app": ("torch", "gradio"),
    "switch_model": ("plotly", "gradio", "matplotlib", "datasets", "pandas", "optuna"),
    "train.cli.main": ("plotly", "gradio", "matplotlib", "datasets", "pandas", "optuna", "sacrebleu"),
    "ui.page": ("plotly", "matplotlib", "optuna", "peft"),
}


def test_what_is_slow_to_import_is_imported_when_it_is_needed():
    code = f"""
import importlib, sys
for module, slow in {SLOW}.items():
    importlib.import_module(module)
    print(module, [name for name in slow if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{module} []" for module in SLOW]


# Above these a folder has more than one subject, a file too, and a function wants names for its parts.
MODULES_IN_FOLDER, MODULES_IN_ROOT, TEST_FILES_IN_ROOT, LINES_OF_FILE, LINES_OF_FUNCTION = 16, 14, 3, 400, 60


@pytest.mark.parametrize("package", PARTS)
def test_folders_files_and_functions_stay_small(package):
    sizes: dict[str, tuple[int, int]] = {}
    for folder in {path.parent for path in (ROOT / package).rglob("*.py")}:
        modules = [path for path in folder.glob("*.py") if not path.name.startswith("__")]
        most = MODULES_IN_ROOT if folder == ROOT / package else MODULES_IN_FOLDER
        sizes[folder.relative_to(ROOT).as_posix()] = len(modules), most
    for path in (ROOT / package).rglob("*.py"):
        name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        sizes[name] = len(text.splitlines()), LINES_OF_FILE
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                sizes[f"{name}::{node.name}"] = node.end_lineno - node.lineno + 1, LINES_OF_FUNCTION
    for path in (path for ending in ("js", "css") for path in (ROOT / package).rglob(f"*.{ending}")):
        sizes[path.relative_to(ROOT).as_posix()] = len(path.read_text(encoding="utf-8").splitlines()), LINES_OF_FILE
    above = {name: size for name, (size, most) in sizes.items() if size > most}
    assert not above


# A tag, but for those that plotly reads.
TAG = re.compile(r"</?(?!extra>|br>)[a-z]")


def test_html_of_the_page_stands_in_templates_which_escape():
    for path in (ROOT / "ui").rglob("*.py"):
        assert not {"html", "html.escape"} & imports(path), path
        joined = (
            node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.JoinedStr)
        )
        parts = (part.value for node in joined for part in node.values if isinstance(part, ast.Constant))
        assert not [part for part in parts if TAG.search(part)], path
    for path in (path for package in PARTS for path in (ROOT / package).rglob("*.html")):
        assert not re.search(r"\|\s*safe\b", path.read_text(encoding="utf-8")), path


# What is run on a platform, and a card, whose readers have a checkout.
SAID_FOR_CHECKOUTS = {"switch_model/commands.py", "train/release/package.py", "train/release/sagemaker_launch.py"}


def test_messages_name_the_command_that_the_person_has():
    for path in (path for package in PARTS for path in (ROOT / package).rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        documents = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        texts = [node.value for node in nodes if isinstance(node, ast.Constant) and id(node) not in documents]
        said = [text for text in texts if isinstance(text, str) and re.search("python (-m train|app.py)", text)]
        assert not said or path.relative_to(ROOT).as_posix() in SAID_FOR_CHECKOUTS, (path, said)


def test_few_test_files_lie_outside_the_folders():
    assert len(list((ROOT / "tests").glob("test_*.py"))) <= TEST_FILES_IN_ROOT


# Documented by Python itself, and by anywidget.
DOCUMENTED = {"_asdict", "_fields", "_exit", "_esm"}


def test_no_private_name_of_a_library_is_used_that_the_docs_do_not_list():
    from tests.support.private_names import private_names

    told = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").split("## Private names of libraries")[1]
    listed = set(re.findall(r"\b_\w+", told))
    used = private_names(list(PARTS))
    assert {name: files for name, files in used.items() if name not in listed | DOCUMENTED} == {}


def test_every_mistake_that_the_tests_are_tried_with_is_still_one():
    """tests/support/mutations.py changes lines of the code, which must still stand there, once."""
    from tests.support.mutations import MISTAKES

    for what, module, before, _ in MISTAKES:
        code = (ROOT / "switch_model" / f"{module}.py").read_text(encoding="utf-8")
        assert code.count(before) == 1, what


def test_app_is_only_a_launcher():
    assert len((ROOT / "app.py").read_text(encoding="utf-8").splitlines()) < 80


def test_the_page_about_tests_names_every_test_file():
    page = (ROOT / "docs/testing.md").read_text(encoding="utf-8")
    files = {path.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert {name for name in files if f"`{name}`" not in page} == set()


PAGES = sorted({ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")})
FOLDERS = ("switch_explorer", "switch_model", "train", "ui", "tests", "benchmarks", "docs", ".ci")


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
