"""Imports run one way, and files stay small enough to have one subject."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Each module of switch_model, and what of switch_model it may know. Further up the list = further down the house.
MAY_IMPORT = {
    "config_rules": set(),
    "config": {"config_rules"},
    "routing": set(),
    "tracing": set(),
    "interventions": {"config_rules", "tracing"},
    "layers": {"config", "dropout"},
    "embedding": {"config"},
    "memory": set(),
    "dropout": {"tracing"},
    "grouped_linear": set(),
    "relu_experts": {"dropout"},
    "attention": {"config", "dropout", "layers", "tracing"},
    "queues": {"tracing"},
    "router": {"config", "dropout", "routing", "interventions", "queues"},
    "sparse_mlp": {
        "config",
        "routing",
        "dropout",
        "grouped_linear",
        "interventions",
        "layers",
        "memory",
        "queues",
        "relu_experts",
        "router",
        "tracing",
    },
    "cache_name": set(),
    "outputs": {"cache_name", "routing"},
    "analysis": {"routing"},
    "plots": {"routing"},
    "drift_plots": {"analysis", "routing"},
    "corpus": {"analysis", "predictor", "stepping"},
    "specialization": {"corpus"},
    "scoring": {"base", "corpus", "generation", "interventions", "modeling"},
    "reliance": {"base", "interventions", "scoring", "stepping"},
    "corpus_plots": {"corpus", "routing", "specialization"},
    "positions": {"config", "tracing"},
    "convolution": {"config"},
    "word_counts": {"config", "embedding"},
    "attention_experts": {
        "attention",
        "config",
        "grouped_linear",
        "interventions",
        "layers",
        "queues",
        "router",
        "routing",
        "tracing",
    },
    "stack": {
        "attention",
        "attention_experts",
        "config",
        "convolution",
        "dropout",
        "interventions",
        "layers",
        "positions",
        "routing",
        "sparse_mlp",
    },
    "base": {
        "attention_experts",
        "config",
        "interventions",
        "positions",
        "router",
        "routing",
        "sparse_mlp",
        "stack",
        "word_counts",
    },
    "modeling": {
        "base",
        "config",
        "config_rules",
        "dropout",
        "embedding",
        "importer",
        "interventions",
        "outputs",
        "pooling",
        "positions",
        "routing",
        "stack",
        "word_counts",
    },
    "encoder_decoder": {
        "base",
        "cache_name",
        "config",
        "interventions",
        "modeling",
        "outputs",
        "positions",
        "stack",
    },
    "generation": {"base", "cache_name", "config", "encoder_decoder", "interventions", "outputs", "stack"},
    "gaps": set(),
    "pooling": set(),
    "stepping": set(),
    "auto": {"base", "config", "encoder_decoder", "generation", "modeling"},
    "archive": set(),
    "paths": set(),
    "hub": {"archive"},
    "whole_files": set(),
    "tensor_file": {"archive"},
    "importer": {"archive", "config", "config_rules", "hub", "paths", "tensor_file"},
    "tokenizer_file": {"archive"},
    "checkpoint": {
        "archive",
        "auto",
        "base",
        "config",
        "config_rules",
        "hub",
        "modeling",
        "paths",
        "tensor_file",
        "tokenizer_file",
        "whole_files",
    },
    "counterfactuals": {"interventions", "predictor"},
    "predictor": {"interventions", "routing", "modeling", "checkpoint"},
    "bands": {"routing"},
    "decoding": set(),
    "generator": {
        "bands",
        "checkpoint",
        "decoding",
        "gaps",
        "generation",
        "interventions",
        "predictor",
        "tokenizer_file",
    },
    "mask_filler": {"bands", "checkpoint", "interventions", "modeling", "predictor"},
    "pipelines": {"checkpoint", "generation", "generator", "mask_filler", "modeling", "predictor"},
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


def test_modules_of_switch_model_import_one_way():
    modules = {path.stem for path in (ROOT / "switch_model").glob("*.py")} - {"__init__"}
    assert modules == set(MAY_IMPORT)
    for name, allowed in MAY_IMPORT.items():
        own = {
            part.split(".")[1]
            for part in imports(ROOT / "switch_model" / f"{name}.py")
            if part.startswith("switch_model.")
        }
        assert own <= allowed, f"{name} imports {own - allowed}"


def test_importing_the_model_loads_no_plots_and_no_page():
    heavy = ("plotly", "gradio", "matplotlib", "datasets")
    code = f"import sys, switch_model; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_mistake_that_the_tests_are_tried_with_is_still_one():
    """tests/mutations.py changes lines of the code, which must still stand there, once."""
    from tests.mutations import MISTAKES

    for what, module, before, _ in MISTAKES:
        code = (ROOT / "switch_model" / f"{module}.py").read_text(encoding="utf-8")
        assert code.count(before) == 1, what


def test_app_is_only_a_launcher():
    assert len((ROOT / "app.py").read_text(encoding="utf-8").splitlines()) < 80
