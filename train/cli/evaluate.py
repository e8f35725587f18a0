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

    settings = ("batch_size", "num_samples", "device", "num_beams", "save_text", "reliance")
    figures = evaluate(
        with_revision(options.checkpoint, options.revision),
        DataSource.of(options),
        progress=progress_line("pass", "passes"),
        **{name: getattr(options, name) for name in settings},
    )
    if note := figures.get("note"):
        print(note, file=sys.stderr)
    if (known := figures["trained_on"]) in ("most", "some"):
        how_many = known.capitalize() if figures["trained_rows"] is None else f"{figures['trained_rows']:,}"
        print(
            f"{how_many} of these rows were trained on: figures on them speak of memory. Those that the run held out "
            "are measured with --split validation.",
            file=sys.stderr,
        )
    text = json.dumps(figures, indent=2)
    if output_dir:
        with folder_written_aside(output_dir) as folder:
            (folder / "evaluation.json").write_text(text + "\n", encoding="utf-8")
            if "confusion" in figures:
                from train.evaluation.pictures import write_pictures

                title = f"{short_name(figures['checkpoint'])} on {figures['dataset']}, {figures['split']}"
                write_pictures(figures, f"{title}: accuracy {figures['accuracy']:.2%}", folder)
    print(text)
