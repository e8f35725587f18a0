"""Training in two processes that torchrun started: as one process with the global batch, in one folder; with whole
models, and with the experts spread over both."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from switch_model import SwitchConfig, SwitchForSequenceClassification
from tests.support.small_model import SMALL
from tests.support.waits import PATIENCE
from train.arguments.arguments import Arguments
from train.cli.main import main
from train.data.fingerprint import Fingerprint
from train.data.toy import make_toy
from train.distributed.checks import check_experts, check_same_number, check_several
from train.distributed.processes import Processes
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


def same_metrics(ours: Run, alone: Run) -> None:
    for kind in ("train", "eval"):
        for here, there in zip(ours.metrics(kind), alone.metrics(kind), strict=True):
            for record in (here, there):  # Time is each run's own.
                for name in ("seconds", "runtime", "samples_per_second", "steps_per_second"):
                    record.pop(name, None)
            assert numbers(here) == pytest.approx(numbers(there), abs=2e-5), (here, there)


def same_weights(ours: Path, alone: Path) -> None:
    expected, found = load_file(alone), load_file(ours)
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=1e-5, rtol=0)


def test_two_processes_train_as_one_does_with_the_global_batch(tmp_path):
    two, one = Run(tmp_path / "two"), Run(tmp_path / "one")
    said = in_two(*ARGUMENTS, "--batch_size", "8", "--output_dir", str(two.folder))
    assert "2 processes × 8 texts: 16 texts per step." in said and said.count("Best validation accuracy") == 1
    assert main([*ARGUMENTS, "--batch_size", "16", "--output_dir", str(one.folder)]) == 0

    same_metrics(two, one)
    same_weights(two.last_checkpoint() / "model.safetensors", one.last_checkpoint() / "model.safetensors")
    assert json.loads((two.best / "training.json").read_text())["rows"] == {"train": 305, "validation": 61}

    began = Fingerprint.load(two.rows_path).about["processes"]
    with pytest.raises(RunError, match="was begun by 2 processes"):
        check_same_number(two, began, 1)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--expert_parallel 2", "The experts of each layer are spread over 2 processes."),
        ("--fsdp true --ema_decay 0", "All weights are divided among them."),
    ],
)
def test_divided_weights_train_as_whole_ones_do_and_go_on_from_an_ordinary_checkpoint(tmp_path, flags, words):
    divided, whole = Run(tmp_path / "divided"), Run(tmp_path / "whole")
    # The gradients' norm, over both processes, is above the limit. An expert that is full drops tokens.
    arguments = [*ARGUMENTS, "--max_steps", "20", "--eval_steps", "10", "--num_experts", "4", "--grad_clip", "0.5"]
    arguments += ["--min_expert_capacity", "1", "--probe", "a text", "--weight_decay", "0.1"]
    arguments += ["--gradient_accumulation_steps", "2", *flags.split()[2:]]
    said = in_two(*arguments, *flags.split(), "--batch_size", "4", "--output_dir", str(divided.folder))
    assert words in said
    assert main([*arguments, "--batch_size", "8", "--output_dir", str(whole.folder)]) == 0

    def same() -> None:
        same_metrics(divided, whole)
        for file in sorted(whole.last_checkpoint().glob("*.safetensors")):
            same_weights(divided.last_checkpoint() / file.name, file)
        assert divided.metrics("probe")[-1]["layers"]
        ours, alone = (torch.load(run.last_checkpoint() / "optimizer.pt")["state"] for run in (divided, whole))
        for index, state in alone.items():
            torch.testing.assert_close(ours[index], state, atol=1e-5, rtol=0)

    same()
    assert whole.metrics("train")[-1]["routing"][0]["drop_rate"] > 0
    same_weights(divided.best / "model.safetensors", whole.best / "model.safetensors")

    # As a run that was killed after its first checkpoint.
    shutil.rmtree(divided.last_checkpoint())
    shutil.rmtree(divided.best)
    divided.set_state("stopped")
    in_two("resume", str(divided.folder))
    same()


def test_rows_as_they_come_are_shared_by_both_processes_and_a_run_goes_on_behind_the_last(tmp_path):
    rows, names = make_toy(100, seed=5)
    frame = pd.DataFrame({"text": rows["text"][:], "label": [names[label] for label in rows["label"]]})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    arguments = [*ARGUMENTS, "--dataset", str(tmp_path / "rows.csv"), *SMALL, "--token_dropout", "0"]
    arguments += shlex.split("--streaming true --shuffle_buffer 20 --validation_size 0.2 --max_steps 10 --eval_steps 5")
    two, one = Run(tmp_path / "two"), Run(tmp_path / "one")
    # About eighty rows a pass: the second pass begins before the first checkpoint.
    in_two(*arguments, "--batch_size", "10", "--expert_parallel", "2", "--output_dir", str(two.folder))
    assert main([*arguments, "--batch_size", "20", "--output_dir", str(one.folder)]) == 0

    def same() -> None:
        same_metrics(two, one)
        same_weights(two.last_checkpoint() / "model.safetensors", one.last_checkpoint() / "model.safetensors")

    same()
    shutil.rmtree(two.last_checkpoint())
    shutil.rmtree(two.best)
    two.set_state("stopped")
    in_two("resume", str(two.folder))
    same()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--expert_parallel 3", "torchrun --nproc_per_node 3"),
        ("--fsdp true", "torchrun --nproc_per_node 2"),
        ("--expert_parallel 0", "at least 1"),
        ("--expert_parallel 2 --train_only experts", "--fsdp true divides experts too"),
    ],
)
def test_what_needs_other_processes_is_refused_with_the_command(flags, said, capsys):
    assert main([*ARGUMENTS, *flags.split()]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"expert_parallel": 2, "optimizer": "adafactor"}, "take --optimizer adamw"),
        ({"expert_parallel": 2, "precision": "float16"}, "take --precision bfloat16"),
        ({"fsdp": True, "compile": True}, "take --compile false"),
        ({"fsdp": True, "ema_decay": 0.9}, "take --ema_decay 0"),
        ({"fsdp": True, "expert_parallel": 2}, "take one of them"),
    ],
)
def test_what_divided_weights_can_not_have_is_refused(flags, said):
    with pytest.raises(ValueError, match=said):
        check_several(Processes(count=2), Arguments.resolve({"optimizer": "adamw", **flags}))


def test_experts_must_divide_evenly():
    config = SwitchConfig(num_experts=6, d_model=8, d_ff=8, num_heads=1, d_kv=8, vocab_size=10)
    check_experts(3, SwitchForSequenceClassification(config))
    with pytest.raises(ValueError, match="not possible with 6 experts"):
        check_experts(4, SwitchForSequenceClassification(config))
