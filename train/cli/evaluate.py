"""python -m train evaluate: metrics of a checkpoint on a split, as JSON and figures."""

import json
import sys
from argparse import ArgumentParser

from switch_model.storage.hub import short_name, with_revision
from switch_model.storage.whole_files import check_writable, folder_written_aside
from train.cli.common import CHECKPOINT, DTYPE, RELIANCE, REVISION, add_source_flags, progress_line
from train.cli.parser import as_path, command_parser, natural, positive
from train.data.source import DataSource
from train.formatting import percent


def evaluate_command(argv: list[str]) -> None:
    parser = command_parser("evaluate", "Metrics, calibration, confusion matrix and routing of a checkpoint, as JSON.")
    parser.add_argument("--checkpoint", type=as_path, required=True, help=CHECKPOINT)
    parser.add_argument("--revision", help=REVISION)
    add_source_flags(
        parser,
        split="split to evaluate; default: test; validation = also the rows that a run held out",
    )
    _add_kinds(parser)
    parser.add_argument("--batch_size", type=positive, default=64, help="texts per batch")
    parser.add_argument("--num_samples", type=positive, help="number of rows, the first ones; none = all")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="none = cuda where there is one")
    parser.add_argument("--dtype", help=DTYPE)
    parser.add_argument("--num_beams", type=positive, default=1, help="beams, for encoder-decoder models; 1 = greedy")
    parser.add_argument(
        "--save_text", type=as_path, help="file for the generated texts, one per line, for encoder-decoder models"
    )
    parser.add_argument("--reliance", type=natural, default=256, help=RELIANCE)
    parser.add_argument(
        "--output_dir",
        type=as_path,
        help="folder for evaluation.json and plots of the confusion matrix and class distribution",
    )
    options = parser.parse_args(argv)
    output_dir = options.output_dir
    check_writable(output_dir, folder=True)
    check_writable(options.save_text)
    from train.evaluation.classification import evaluate
    from train.evaluation.reliance import PASSES
    from train.evaluation.settings import EvaluationSettings

    names = ("batch_size", "num_samples", "num_beams", "save_text", "metrics", "reliance")
    settings = EvaluationSettings(**{name: getattr(options, name) for name in names}, progress=progress_line(*PASSES))
    checkpoint = with_revision(options.checkpoint, options.revision)
    metrics = evaluate(checkpoint, DataSource.of(options), settings, options.device, options.dtype)
    if note := metrics.get("note"):
        print(note, file=sys.stderr)
    if (known := metrics["trained_on"]) in ("most", "some"):
        how_many = known.capitalize() if metrics["trained_rows"] is None else f"{metrics['trained_rows']:,}"
        print(
            f"{how_many} of these rows were trained on, so metrics on them are too optimistic. Evaluate the held-out "
            "rows with --split validation.",
            file=sys.stderr,
        )
    text = json.dumps(metrics, indent=2)
    if output_dir:
        with folder_written_aside(output_dir) as folder:
            (folder / "evaluation.json").write_text(text + "\n", encoding="utf-8")
            if "confusion" in metrics:
                from train.evaluation.pictures import write_pictures

                title = f"{short_name(metrics['checkpoint'])} on {metrics['dataset']}, {metrics['split']}"
                write_pictures(metrics, f"{title}: accuracy {percent(metrics['accuracy'])}", folder)
    print(text)


def _add_kinds(parser: ArgumentParser) -> None:
    """Flags for one kind of model."""
    parser.add_argument(
        "--features_column", help="column of vectors, for a model of vectors; none = the one that it was trained on"
    )
    parser.add_argument(
        "--metrics",
        choices=("none", "rouge"),
        default="none",
        help="further metrics of generated texts, for encoder-decoder models",
    )
