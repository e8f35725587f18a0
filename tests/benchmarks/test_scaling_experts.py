"""Scaling experts: when a curve first reaches a loss, what is compared with what, and that a stopped one goes on."""

import random

import pyarrow
import pyarrow.parquet
import pytest

from benchmarks import scaling_experts
from benchmarks.scaling_results import Curve, compared, share_of_steps, table
from train.runs.run import Run, RunError

CURVE = [(10, 5.0), (20, 4.0), (30, 4.2), (40, 3.0)]
STEP = {"milliseconds": 10.0, "over_all_weights": 1.0, "parameters": 100, "active": 100}
STEPS = {1: STEP | {"ratio": 1.0}, 4: STEP | {"ratio": 1.5}, 8: STEP | {"ratio": 2.0}}


@pytest.mark.parametrize(
    ("target", "share"),
    [
        (4.5, 0.375),  # Halfway between steps 10 and 20.
        (4.0, 0.5),
        (4.1, 0.475),  # The first time counts, though the curve rises above it again.
        (3.0, 1.0),
        (2.9, None),
        (6.0, 0.25),  # Nothing is known from before the first evaluation.
    ],
)
def test_the_step_at_which_a_curve_first_reaches_a_loss(target, share):
    assert share_of_steps(CURVE, target, 40) == (share and pytest.approx(share))


def test_a_run_is_compared_with_the_dense_run_of_its_seed():
    curves = [
        Curve(1, 0, [(50, 5.0), (100, 4.0)], 1.0),
        Curve(1, 1, [(50, 6.0), (100, 4.5)], 1.0),
        Curve(4, 0, [(50, 4.0), (100, 3.0)], 1.0),
        Curve(4, 1, [(50, 5.0), (100, 4.0)], 1.0),
        Curve(8, 0, [(50, 5.0), (100, 4.1)], 1.0),
    ]
    dense, four, eight = compared(curves, STEPS)
    assert dense["loss"] == 4.25 and dense["spread"] == 0.5 and dense["speed_up_in_steps"] == 1
    # Seed 0 after half of the steps, seed 1 after three quarters; each step takes half as long again.
    assert four["share_of_steps"] == pytest.approx(0.625) and four["speed_up_in_steps"] == pytest.approx(1.6)
    assert four["speed_up_in_time"] == pytest.approx(1.6 / 1.5)
    assert eight["share_of_steps"] is None and eight["speed_up_in_time"] is None
    assert "never" in table({"rows": [dense, four, eight]})


class StopsAfterThreeSteps(scaling_experts.ProgressCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            self.run.request_stop()
        super().on_step_end(args, state, control, **kwargs)


def test_a_stopped_curve_goes_on_and_a_finished_one_is_read(tmp_path, monkeypatch):
    data = tmp_path / "data"
    draw, words = random.Random(0), ["oil", "prices", "rose", "while", "the", "cat", "sat", "on", "a", "mat"]
    for name, column in scaling_experts.TEXTS.items():
        (data / name).mkdir(parents=True)
        texts = [" ".join(draw.choices(words, k=30)) + name for _ in range(80)]
        pyarrow.parquet.write_table(pyarrow.table({column or "text": texts}), data / name / "train.parquet")
    monkeypatch.setenv("SWITCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(scaling_experts, "VOCABULARY", 300)
    size = scaling_experts.SIZE | dict(
        d_model=16,
        d_ff=16,
        seq_len=8,
        batch_size=2,
        warmup=1.0,
        eval_steps=2,
        eval_iters=1,
        logging_steps=2,
    )
    stream = scaling_experts.make_stream(tmp_path / "curves", str(data), size)
    assert len(stream.train) > 100 and len(stream.validation)

    def arguments(folder: str, steps: int = 4):
        return scaling_experts.arguments_of(size | {"total_iters": steps}, 4, 0, tmp_path / folder)

    def points(run: Run):
        return scaling_experts.curve_of(run, 4, 0, 4).points

    whole = scaling_experts.train_curve(arguments("whole"), stream)
    assert [step for step, _ in points(whole)] == [2, 4]

    # Stopped after its third step, then gone on with; finished after two, then asked for more.
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(scaling_experts, "ProgressCallback", StopsAfterThreeSteps)
        scaling_experts.train_curve(arguments("stopped"), stream)
    assert points(scaling_experts.train_curve(arguments("stopped"), stream)) == points(whole)
    scaling_experts.train_curve(arguments("longer", steps=2), stream)
    assert points(scaling_experts.train_curve(arguments("longer"), stream)) == points(whole)

    # A finished one is read again, not trained, and never taken for one of another size.
    before = whole.metrics_path.read_bytes()
    assert scaling_experts.train_curve(arguments("whole"), stream).metrics_path.read_bytes() == before
    changed = arguments("whole")
    changed.train.lr = 0.5
    with pytest.raises(RunError, match="other settings"):
        scaling_experts.train_curve(changed, stream)
