"""python -m train package, calibrate and publish: shrink, calibrate and upload a finished run."""

import json

from switch_model.storage.whole_files import check_writable
from train.cli.common import add_source_flags
from train.cli.parser import as_path, as_text, command_parser, positive
from train.data.source import DataSource


def package_command(argv: list[str]) -> None:
    parser = command_parser(
        "package", "Make a small, evaluated checkpoint folder with a model card from a finished run."
    )
    parser.add_argument("--run", type=as_path, required=True, help="folder of the run")
    parser.add_argument("--output", type=as_path, required=True, help="folder to write")
    parser.add_argument("--data_dir", type=as_path, help="as in training")
    parser.add_argument("--data_note", type=as_text, help="description of the data, for the card")
    parser.add_argument("--machine", type=as_text, help="description of the machine, for the card")
    parser.add_argument("--num_beams", type=positive, default=1, help="beams in the evaluation of a translation model")
    parser.add_argument(
        "--as",
        dest="kind",
        choices=("mixtral",),
        help="as a model of transformers: a decoder with rotary positions and top-k experts (docs/routers.md)",
    )
    options = parser.parse_args(argv)
    check_writable(options.output, folder=True)
    from train.release.package import package, package_as_mixtral

    options = vars(options)
    if options.pop("kind") is not None:
        print(json.dumps(package_as_mixtral(options["run"], options["output"]), indent=2))
        return
    metrics = package(options.pop("run"), options.pop("output"), **options)
    print(json.dumps(metrics, indent=2))


def calibrate_command(argv: list[str]) -> None:
    parser = command_parser(
        "calibrate",
        "Calibrate a classifier: one temperature, fitted on the validation rows of its run, is folded into its weights "
        "and noted in training.json, with bounds of the run's training texts. Predicted classes stay the same. A run "
        "does both; this command adds what checkpoints of earlier versions, or from elsewhere, lack.",
    )
    parser.add_argument("--checkpoint", type=as_path, required=True, help="folder, or run folder")
    add_source_flags(
        parser,
        without=("split", "target_column"),
        dataset="what it was trained on, or a file of rows with labels that it was not trained on",
    )
    parser.add_argument("--output", type=as_path, help="folder to write; none = in the checkpoint's place")
    options = parser.parse_args(argv)
    check_writable(options.output, folder=True)
    from train.release.calibrate import calibrate

    print(json.dumps(calibrate(options.checkpoint, DataSource.of(options), options.output), indent=2))


def publish_command(argv: list[str]) -> None:
    parser = command_parser(
        "publish",
        "Upload a checkpoint with its model card to the Hugging Face Hub, with the account of `hf auth login` or the "
        "token in HF_TOKEN.",
    )
    parser.add_argument("--run", type=as_path, required=True, help="folder of the run, or of a checkpoint")
    parser.add_argument(
        "--repo_id", type=as_path, required=True, help="owner/name on the Hub; created if it does not exist"
    )
    parser.add_argument("--public", action="store_true", help="make it public; default: private")
    options = parser.parse_args(argv)
    from train.release.publish import publish

    print(publish(options.run, options.repo_id, private=not options.public))
