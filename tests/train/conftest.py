"""A small file of one's own and a run trained on it."""

from pathlib import Path

import pytest

from tests.support.small_model import SMALL
from train.cli.main import main
from train.data.toy import make_toy
from train.runs.run import Run


@pytest.fixture(scope="module")
def own_file(tmp_path_factory) -> Path:
    """90 rows of two columns, in a folder whose name a shell would cut in two."""
    rows, names = make_toy(90, seed=5)
    path = tmp_path_factory.mktemp("my data") / "good.csv"
    lines = [f"{text},{names[label]}" for text, label in zip(rows["text"], rows["label"], strict=True)]
    path.write_text("\n".join(["text,label", *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def own_run(own_file) -> Run:
    """A run of four steps on the file, to be read and not changed."""
    folder = own_file.parent / "run"
    asked = ["--dataset", str(own_file), *SMALL, "--validation_size", "0.2", "--max_steps", "4"]
    assert main([*asked, "--output_dir", str(folder)]) == 0
    return Run(folder)
