"""Training in two processes that torchrun started: as one process with the global batch, in one folder."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.waits import PATIENCE
from train.cli.main import main
from train.data.fingerprint import Fingerprint
from train.distributed.checks import check_same_number
from train.runs.run import Run, RunError

ROOT = Path(__file__).resolve().parent.parent.parent
# No noise, of which each process has its own. Two processes can't share 305 rows, nor 61 for validation, evenly.
ARGUMENTS = shlex.split(
    """
    --dataset toy --num_samples 305 --device cpu --max_steps 50 --eval_steps 25 --logging_steps 5 --optimizer adamw
    --lr 3e-4 --dropout 0 --expert_dropout 0 --switch_dropout 0 --router_noise_eps 0
    --sequence_balance_coef 0.01 --ema_decay 0.9
    """
)


def in_two(*words: str) -> str:
    """The output of a command in two processes; it must succeed."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    done = subprocess.run(
        [*launcher, "-m", "train", *words], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(value) -> list[float]:
    """All numbers in a JSON value."""
    if isinstance(value, (dict, list)):
        return [one for part in (value.values() if isinstance(value, dict) else value) for one in numbers(part)]
    return [value] if isinstance(value, (int, float)) else []


def test_two_processes_train_as_one_does_with_the_global_batch(tmp_path):
    two, one = Run(tmp_path / "two"), Run(tmp_path / "one")
    said = in_two(*ARGUMENTS, "--batch_size", "8", "--output_dir", str(two.folder))
    assert "2 processes × 8 texts: 16 texts per step." in said and said.count("Best validation accuracy") == 1
    assert main([*ARGUMENTS, "--batch_size", "16", "--output_dir", str(one.folder)]) == 0

    for kind in ("train", "eval"):
        for ours, alone in zip(two.metrics(kind), one.metrics(kind), strict=True):
            for record in (ours, alone):  # Time is each run's own.
                for name in ("seconds", "runtime", "samples_per_second", "steps_per_second"):
                    record.pop(name, None)
            assert numbers(ours) == pytest.approx(numbers(alone), abs=2e-5), (ours, alone)
    last = one.last_checkpoint()
    for name, weight in load_file(last / "model.safetensors").items():
        torch.testing.assert_close(
            load_file(two.last_checkpoint() / "model.safetensors")[name], weight, atol=1e-5, rtol=0
        )
    assert json.loads((two.best / "training.json").read_text())["rows"] == {"train": 305, "validation": 61}

    began = Fingerprint.load(two.rows_path).about["processes"]
    with pytest.raises(RunError, match="was begun by 2 processes"):
        check_same_number(two, began, 1)
