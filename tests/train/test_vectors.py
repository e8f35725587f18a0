"""Rows of continuous vectors instead of texts: read, learned, measured, and refused where they have no place."""

import json

import numpy as np
import pandas as pd
import pytest

from switch_model.inference.classifier import Predictor
from switch_model.storage.errors import CheckpointError
from tests.support.small_model import SMALL
from train.arguments.arguments import Arguments
from train.cli.main import main
from train.data.errors import DataError
from train.data.loading import read_split
from train.data.source import DataSource
from train.runs.run import Run

KEPT = [flag for flag in SMALL if flag not in ("--vocab_size", "200")]


def file_of_vectors(path, rows: int = 160) -> str:
    """A parquet file of 2 to 6 vectors of width 5 a row; the class is the number that is largest on average."""
    random = np.random.default_rng(0)
    classes = random.integers(3, size=rows)
    cells = [random.normal(size=(random.integers(2, 7), 5)) + 2 * np.eye(5)[own] for own in classes]
    frame = pd.DataFrame({"id": range(rows), "audio": [cell.tolist() for cell in cells], "label": classes})
    frame.loc[3, "audio"] = None
    frame.to_parquet(path)
    return str(path)


def test_a_classifier_of_vectors_is_trained_measured_and_named(tmp_path, capsys):
    data, run = file_of_vectors(tmp_path / "rows.parquet"), str(tmp_path / "run")
    asked = ["--dataset", data, "--features_column", "audio", *KEPT, "--lr", "1e-2", "--max_steps", "80"]
    assert main([*asked, "--validation_size", "0.4", "--eval_steps", "40", "--output_dir", run]) == 0
    best = max(line["accuracy"] for line in Run(run).metrics("eval"))
    capsys.readouterr()
    assert best > 0.9
    assert main(["evaluate", "--checkpoint", run, "--dataset", data, "--split", "validation", "--device", "cpu"]) == 0
    held_out = json.loads(capsys.readouterr().out)
    assert held_out["trained_on"] == "none" and held_out["accuracy"] == pytest.approx(best) and held_out["routing"]
    assert main(["evaluate", "--checkpoint", run, "--dataset", data, "--features_column", "audio"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["rows"] == 159 and measured["trained_on"] == "most"
    assert "--features_column audio" in (tmp_path / "run" / "best" / "README.md").read_text()

    # Whatever takes texts says that this model does not.
    with pytest.raises(CheckpointError, match="takes vectors of numbers, not texts"):
        Predictor.from_checkpoint(run)
    for command in (["predict", "a text"], ["analyze", "--dataset", data, "--output", str(tmp_path / "report")]):
        assert main([command[0], "--checkpoint", run, *command[1:]]) == 2
        assert "takes vectors of numbers, not texts" in capsys.readouterr().err
    assert main(["--init_from", run]) == 2 and "it takes vectors of numbers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([[[1.0, 2.0]], [[1.0, 2.0, 3.0]]], "vectors of 2 widths ('2', '3')"),
        ([[1.0, 2.0], [3.0]], "does not hold rows of vectors (row 1)"),
        ([[[1.0], [1.0, 2.0]], [[1.0]]], "does not hold rows of vectors (row 1)"),
        (["a", "b"], "does not hold rows of vectors (row 1)"),
        ([[[1.0, float("nan")]], [[1.0, 2.0]]], "a number in row 1 that is not finite"),
        ([None, []], "holds no vectors"),
    ],
)
def test_what_is_no_row_of_vectors_is_refused(cells, said, tmp_path):
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"vectors": pd.Series(cells, dtype=object), "label": ["a", "b"]}).to_parquet(path)
    with pytest.raises(DataError) as refused:
        read_split(DataSource(str(path), features_column="vectors"))
    assert said in str(refused.value)


def test_what_is_about_words_is_refused_with_vectors():
    asked = {"dataset": "rows.parquet", "features_column": "vectors"}
    Arguments.resolve(asked).check()  # The preset's own flags of words are left out.
    with pytest.raises(ValueError, match="--rare_token_dropout can't be used with --features_column"):
        Arguments.resolve(asked | {"rare_token_dropout": 2.0}).check()
