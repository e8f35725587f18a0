"""A workspace with a finished run."""

import shutil

import pytest

from ui.server.workspace import Workspace


@pytest.fixture
def workspace(toy_run, tmp_path) -> Workspace:
    """A workspace with one finished run, "toy"."""
    shutil.copytree(toy_run.folder, tmp_path / "toy")
    return Workspace(tmp_path)
