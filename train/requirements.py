"""Error messages for packages that are missing, broken, too old or too new.

Only the standard library, because nothing else may be installed. Used only after a failure, so that it costs no time.
Try it: print(wrong_versions())
"""

import importlib.metadata
import sys
import tomllib
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent
# This project's own packages: an error in them is not the installation's fault.
OWN = ("app", "benchmarks", "switch_explorer", "switch_model", "train", "ui", "__main__")
# An installation has the file too, but the person is not in its folder.
REMEDY = f"pip install -r {ROOT / 'requirements.txt' if ROOT.name == 'inside' else 'requirements.txt'}"
SHOWN_CHARACTERS = 200


def why_not_imported(error: BaseException) -> str | None:
    """A sentence with the remedy, for an exception from importing a third-party package; None for any other.

    Incompatible packages raise many types: ImportError, AttributeError, ValueError, OSError, SyntaxError.
    """
    while isinstance(error, ImportError) and error.__cause__ is not None:  # transformers wraps it.
        error = error.__cause__
    package = _being_imported(error.__traceback__)
    if isinstance(error, ImportError):
        package = (error.name or "").partition(".")[0] or package or "a package"
    elif isinstance(error, SyntaxError) and error.filename:
        file = Path(error.filename)
        package = file.parent.name if file.stem == "__init__" else file.stem
    if package is None or package in OWN:
        return None
    if wrong := wrong_versions():
        return wrong
    if isinstance(error, ModuleNotFoundError) and package not in sys.modules:
        return f"{package} is not installed. Install what this project needs: {REMEDY}"
    name = (importlib.metadata.packages_distributions().get(package) or [package])[0]
    return (
        f"{name} {_version(package) or _version(name) or ''} can't be imported ({type(error).__name__}: "
        f"{_first_words(error)}). Install it anew: pip uninstall -y {name}, then {REMEDY}"
    ).replace("  ", " ")


def why_it_failed(error: BaseException) -> str | None:
    """`why_not_imported`, or for any other exception the unsupported versions that may cause it; None without any."""
    if said := why_not_imported(error):
        return said
    wrong = wrong_versions()
    return wrong and f"{type(error).__name__}: {_first_words(error)}. {wrong}"


def wrong_versions() -> str | None:
    """A sentence on the packages that are missing, too old or too new; None where all are as in pyproject.toml."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return None
    missing, others = [], []
    for line in needed():
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _version(requirement.name)
        if version is None:
            missing.append(requirement.name)
        elif not requirement.specifier.contains(version, prereleases=True):
            others.append(f"{requirement.name} is {version}, and {requirement.specifier} is needed")
    said = [f"{', '.join(missing)} {'are' if len(missing) > 1 else 'is'} not installed"] if missing else []
    return f"{'; '.join(said + others)}: {REMEDY}" if said or others else None


def needed() -> list[str]:
    """The requirements in pyproject.toml, or of the installed package."""
    try:
        return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    except (OSError, ValueError, KeyError):
        pass
    try:
        return importlib.metadata.requires("switch-explorer") or []
    except importlib.metadata.PackageNotFoundError:
        return []


def _first_words(error: BaseException) -> str:
    return " ".join(str(error).split())[:SHOWN_CHARACTERS] or "no message"


def _version(package: str) -> str | None:
    """The version of the imported module, which may shadow the installed one; else the installed version."""
    loaded = getattr(sys.modules.get(package), "__version__", None)
    if isinstance(loaded, str):
        return loaded
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _being_imported(traceback: TracebackType | None) -> str | None:
    """The innermost third-party package whose import was running."""
    found = None
    while traceback is not None:
        frame = traceback.tb_frame
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if frame.f_code.co_name == "<module>" and package not in OWN:
            found = package
        traceback = traceback.tb_next
    return found
