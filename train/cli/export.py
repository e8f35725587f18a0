"""python -m train export: a checkpoint as a folder that a runtime or platform reads."""

from switch_model.storage.whole_files import check_writable
from train.cli.common import REVISION
from train.cli.parser import as_path, command_parser


def export_command(argv: list[str]) -> None:
    parser = command_parser("export", "Write a checkpoint in a format that runs elsewhere (docs/export.md).")
    parser.add_argument("--checkpoint", type=as_path, required=True, help="folder, run folder, zip or hub id")
    parser.add_argument(
        "--format",
        required=True,
        help="onnx, onnx-int8, torchao-int8, openvino, tensorrt, triton, endpoint, sagemaker, docker, space",
    )
    parser.add_argument("--output", type=as_path, required=True, help="new folder to write")
    parser.add_argument(
        "--with_routing", action="store_true", help="onnx: also each token's expert and gate, for each sparse layer"
    )
    parser.add_argument("--revision", help=REVISION)
    options = parser.parse_args(argv)
    check_writable(options.output, folder=True)
    from train.release.export import export

    said = export(
        options.checkpoint,
        options.format,
        options.output,
        with_routing=options.with_routing,
        revision=options.revision,
    )
    print(f"{options.output}: {said}")
