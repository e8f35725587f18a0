"""A run that learns from other checkpoints: their probabilities, by text and by class name; experts that take over."""

import pytest
import torch
from datasets import Dataset
from transformers import TrainerState

from switch_model import Predictor, SwitchConfig, SwitchForSequenceClassification, load_checkpoint
from train.arguments.arguments import Arguments
from train.cli.main import main
from train.data.errors import DataError
from train.tasks.collators import TEACHER
from train.tasks.registry import TASKS
from train.tasks.teaching import TokenTeachers, distillation_loss, with_teachers
from train.training.annealing import ResidualAnnealing


def settings(teachers: str):
    return Arguments.resolve({"teachers": teachers}).train


def test_each_row_gets_the_mean_of_what_its_teachers_say_of_its_own_text(toy_run):
    model, tokenizer = load_checkpoint(toy_run.best, "cpu")
    labels, predictor = model.config.labels, Predictor(model, tokenizer)
    texts = [tokenizer.decode(range(start, start + 4)) for start in (5, 40)]
    rows = Dataset.from_dict({"row": [1, 0]})
    backwards = labels[::-1]
    taught = with_teachers(rows, texts, backwards, settings(f"{toy_run.best}, {toy_run.best}"))
    for row, said in zip([1, 0], taught[TEACHER], strict=True):
        expected = predictor(texts[row]).scores
        assert said == pytest.approx([expected[name] for name in backwards], abs=1e-5)
    with pytest.raises(DataError, match="must have those of the data"):
        with_teachers(rows, texts, ["yes", "no"], settings(str(toy_run.best)))


def test_the_loss_is_least_where_the_teachers_are_met():
    teacher = torch.tensor([[0.7, 0.2, 0.1]])
    met = distillation_loss(teacher.log(), teacher)
    assert met.item() == pytest.approx(-(teacher * teacher.log()).sum().item())
    assert distillation_loss(torch.tensor([[0.0, 0.0, 0.0]]), teacher) > met


def test_a_command_to_share_names_teachers_without_this_machines_folders():
    arguments = Arguments.resolve({"dataset": "ag_news", "teachers": "owner/name, /home/me/runs/a/best"})
    assert arguments.portable()["teachers"] == "owner/name,a/best"


def test_what_passes_by_experts_falls_while_it_trains_and_is_the_configurations_in_between():
    model = SwitchForSequenceClassification(SwitchConfig(num_layers=2, readout="experts", expert_residual=0.2))
    annealing, state = ResidualAnnealing(model, decay=0.5), TrainerState(max_steps=8)

    def passing_by():
        (share,) = {block.expert_residual for block in model.encoder.blocks}
        return share

    shares = []
    for state.global_step in range(6):
        annealing.on_step_begin(None, state, None)
        shares.append(passing_by())
        annealing.on_step_end(None, state, None)
        assert passing_by() == 0.2
    assert shares == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.2])


@pytest.mark.parametrize("task", ["clm", "mlm", "span_corruption"])
def test_teachers_of_tokens_are_met_where_the_labels_are(task, tmp_path, capsys):
    small = ["--task", task, "--num_samples", "60", "--max_steps", "2", "--num_experts", "4"]
    teacher = str(tmp_path / "teacher")
    assert main([*small, "--output_dir", teacher]) == 0
    model, tokenizer = load_checkpoint(teacher, "cpu")
    ids = torch.tensor([[20, 21, 22, 23, 24], [30, 31, 32, 33, 34]])
    labels = ids if task == "clm" else ids.masked_fill(torch.tensor([[1, 0, 0, 1, 1], [0, 1, 1, 1, 1]]).bool(), -100)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    with torch.no_grad():
        logits = model(**inputs).logits
    if task == "mlm":  # Those of the labelled tokens, and no others.
        chosen = logits
    else:
        at = [(0, 1), (0, 2), (1, 0)] if task != "clm" else [(row, place) for row in (0, 1) for place in range(4)]
        chosen = torch.stack([logits[row, place] for row, place in at])
    entropy = torch.distributions.Categorical(logits=chosen).entropy().mean()
    teachers = TokenTeachers(teacher, TASKS[task], tokenizer, "cpu")
    assert teachers.loss(inputs, logits).item() == pytest.approx(entropy.item(), rel=1e-5)
    # A dense student takes over all but the experts.
    student = tmp_path / "student"
    flags = ["--init_from", teacher, "--teachers", teacher, "--sparse_step", "0", "--lr", "1e-12"]
    assert main([*small, *flags, "--output_dir", str(student)]) == 0
    dense = load_checkpoint(student, "cpu")[0].state_dict()
    assert not any(".experts." in name or ".router." in name for name in dense)
    torch.testing.assert_close(dense["shared.weight"], model.state_dict()["shared.weight"], atol=1e-6, rtol=0)
