"""python -m train convert and import: checkpoints from an old state dict, or from a transformers model."""

import argparse

from switch_model.commands import command
from switch_model.storage.hub import with_revision
from switch_model.storage.whole_files import check_writable
from train.cli.parser import Parser, as_path, as_text, command_parser, positive
from train.formatting import pasted


def import_command(argv: list[str]) -> None:
    from switch_model.adapters.loading import DTYPES
    from train.weights.switch_transformers import import_checkpoint

    parser = Parser(
        prog=command("import"),
        description="Convert a SwitchTransformers checkpoint of transformers into a checkpoint folder (encoder and "
        "decoder, or the encoder alone), or a Mixtral into a causal model. Either can start a run: "
        f"{command()} --init_from FOLDER.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "source",
        type=as_path,
        help="a folder with config.json and safetensors, or a hub id, such as google/switch-base-32",
    )
    parser.add_argument("--revision", help="of a hub id: a branch, tag, commit or refs/pr/N; none = main")
    parser.add_argument("--output_dir", type=as_path, required=True, help="folder to write")
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights on disk; none = as in the source")
    parser.add_argument("--encoder_only", action="store_true", help="without the decoder")
    parser.add_argument("--tokenizer", type=as_path, help="hub id or folder, if the source has no tokenizer.json")
    options = parser.parse_args(argv)
    check_writable(options.output_dir, folder=True)
    dtype = DTYPES.get(options.dtype)
    asked = dict(encoder_only=options.encoder_only, tokenizer=options.tokenizer, revision=options.revision)
    config = import_checkpoint(options.source, options.output_dir, dtype=dtype, **asked)
    depths = " and ".join(f"{config.depth(stack)} blocks in the {stack}" for stack in config.stacks)
    sparse = f"{len(config.sparse_layers)} of them sparse with {config.num_experts} experts"
    print(f"{options.output_dir}: {depths}, {sparse if config.sparse_layers else 'all dense'}.")
    task = "--task clm " if config.stacks == ("decoder",) else ""
    print(f"Train from it: {command()} {task}--init_from {pasted(options.output_dir)} --dataset …")


def convert_command(argv: list[str]) -> None:
    parser = command_parser(
        "convert", "Convert a .pt state dict into a checkpoint folder: the only command that opens pickles."
    )
    parser.add_argument("source", type=as_path, help="the .pt or .pth file; only tensors are read from it")
    parser.add_argument(
        "--tokenizer", type=as_path, required=True, help="folder or hub id of the tokenizer it was trained with"
    )
    parser.add_argument("--revision", help="of the tokenizer's hub id: a branch, tag, commit or refs/pr/N")
    parser.add_argument("--output", type=as_path, required=True, help="folder to write")
    parser.add_argument(
        "--config", type=as_path, help="config.json or arguments.json, for fields not in the weights; none = defaults"
    )
    parser.add_argument("--labels", type=as_text, help="class names in order, comma-separated")
    parser.add_argument("--seq_len", type=positive, default=128, help="maximum number of tokens per text")
    options = vars(parser.parse_args(argv))
    if options["labels"]:
        options["labels"] = [name.strip() for name in options["labels"].split(",")]
    check_writable(options["output"], folder=True)
    options["tokenizer"] = with_revision(options["tokenizer"], options.pop("revision"))
    from train.weights.state_dict import convert, labels_are_numbers

    output = options["output"]
    config = convert(options.pop("source"), **options)
    sparse = f"{len(config.sparse_layers)} of them sparse with {config.num_experts} experts"
    print(
        f"{output}: {config.num_layers} blocks, {sparse if config.sparse_layers else 'all dense'}.\n"
        f"Assumed, because the weights don't determine them: "
        f"{config.dense_act_fn}, pooling {config.pooling}, embedding_norm {config.embedding_norm}, capacity "
        f"{config.eval_capacity_factor}. "
        "If it was trained with others, give its config with --config."
    )
    if labels_are_numbers(config):
        print(f"Its {config.num_labels} classes have no names: give them with --labels, in order, comma-separated.")
