"""What every test stands on: no hub, no telemetry, one thread, and a run trained once for all tests that need one."""

import os
from contextlib import contextmanager

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", GRADIO_ANALYTICS_ENABLED="False")
os.environ.pop("SWITCH_DATA_DIR", None)

import pytest
import torch

from train.cli import main

# Tiny models gain nothing from a second thread, and wait for it endlessly on a busy machine.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The tiny checkpoint of tests/ui_support.py, to be read and not changed."""
    from tests.ui_support import save_tiny_checkpoint

    return save_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def predictor(checkpoint):
    from switch_model import Predictor

    return Predictor.from_checkpoint(checkpoint, "cpu")


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory):
    """A run folder, trained on the toy data with the command line's own defaults but for three epochs."""
    from train.runs import Run

    folder = tmp_path_factory.mktemp("runs") / "toy"
    assert main(["--output_dir", str(folder), "--epochs", "3"]) == 0
    return Run(folder)


@pytest.fixture
def stopping_at_saves(monkeypatch):
    """Runs of this process are stopped, as by Ctrl-C, right behind a checkpoint: with stopping_at_saves(): …"""
    from train.trainer import SwitchTrainer

    saved = SwitchTrainer._save_checkpoint

    def save_then_stop(self, *args):
        saved(self, *args)
        raise KeyboardInterrupt

    @contextmanager
    def stopping():
        with monkeypatch.context() as patch:
            patch.setattr(SwitchTrainer, "_save_checkpoint", save_then_stop)
            yield

    return stopping
