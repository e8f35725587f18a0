"""python -m train evaluate: a checkpoint measured on a split, as JSON and pictures."""

import json
import sys

from switch_model.storage.hub import short_name, with_revision
from switch_model.storage.whole_files import check_writable, folder_written_aside
from train.cli.common import RELIANCE, REVISION, add_source_flags, progress_line
from train.cli.parser import as_path, command_parser, natural, positive
from train.data.source import DataSource


def evaluate_command(argv: list[str]) -> None:
    parser = command_parser("evaluate", "Scores, calibration, confusion matrix and routing of a checkpoint, as JSON.")
    parser.add_argument("--checkpoint", type=as_path, required=True, help="folder, run folder, zip or hub id")
    parser.add_argument("--revision", help=REVISION)
    add_source_flags(
        parser,
        split="split to measure; none = the one to report on; validation = also what a run held out of its data",
    )
    parser.add_argument("--batch_size", type=positive, default=64, help="texts per pass")
    parser.add_argument("--num_samples", type=positive, help="measure the first so many rows only")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="none = cuda where there is one")
    parser.add_argument("--num_beams", type=positive, default=1, help="of a model that writes: beams; 1 = greedy")
    parser.add_argument(
        "--save_text", type=as_path, help="of a model that translates: a file for what it writes, a line per row"
    )
    parser.add_argument("--reliance", type=natural, default=256, help=RELIANCE)
    parser.add_argument(
        "--output_dir",
        type=as_path,
        help="also write evaluation.json and pictures of the confusion matrix and of the classes there",
    )
    options = parser.parse_args(argv)
    output_dir = options.output_dir
    check_writable(output_dir, folder=True)
    check_writable(options.save_text)
    from train.evaluation.classification import evaluate
    from train.evaluation.settings import EvaluationSettings

    names = ("batch_size", "num_samples", "num_beams", "save_text", "reliance")
    settings = EvaluationSettings(
        **{name: getattr(options, name) for name in names}, progress=progress_line("pass", "passes")
    )
    checkpoint = with_revision(options.checkpoint, options.revision)
    metrics = evaluate(checkpoint, DataSource.of(options), settings, options.device)
    if note := metrics.get("note"):
        print(note, file=sys.stderr)
    if (known := metrics["trained_on"]) in ("most", "some"):
        how_many = known.capitalize() if metrics["trained_rows"] is None else f"{metrics['trained_rows']:,}"
        print(
            f"{how_many} of these rows were trained on: metrics on them speak of memory. Those that the run held out "
            "are measured with --split validation.",
            file=sys.stderr,
        )
    text = json.dumps(metrics, indent=2)
    if output_dir:
        with folder_written_aside(output_dir) as folder:
            (folder / "evaluation.json").write_text(text + "\n", encoding="utf-8")
            if "confusion" in metrics:
                from train.evaluation.pictures import write_pictures

                title = f"{short_name(metrics['checkpoint'])} on {metrics['dataset']}, {metrics['split']}"
                write_pictures(metrics, f"{title}: accuracy {metrics['accuracy']:.2%}", folder)
    print(text)
