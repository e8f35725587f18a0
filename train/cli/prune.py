"""python -m train prune: which experts a model can do without, and a checkpoint without them."""

from switch_model.commands import command
from switch_model.storage.hub import with_revision
from switch_model.storage.whole_files import check_writable
from train.cli.common import REVISION, add_source_flags, progress_line
from train.cli.parser import as_path, command_parser, positive
from train.data.source import DataSource
from train.formatting import pasted


def prune_command(argv: list[str]) -> None:
    from switch_model.analysis.pruning import SCORES

    parser = command_parser(
        "prune",
        "Rank a model's experts, and say what it would lose without the lowest: predicted from single experts, and "
        "measured on other rows. With --output, write the smaller checkpoint.",
    )
    parser.add_argument("--checkpoint", type=as_path, required=True, help="folder, run folder, zip or hub id")
    parser.add_argument("--revision", help=REVISION)
    add_source_flags(
        parser,
        without=("target_column",),
        dataset="as in training; one half of the rows gives the scores, the other the losses",
        split="as in evaluate; default: validation",
    )
    parser.add_argument(
        "--keep", type=positive, help="experts kept in each layer; none = three quarters, half, a quarter"
    )
    parser.add_argument("--by", choices=SCORES, default="reap", help="score by which the checkpoint's experts are kept")
    parser.add_argument("--rows", type=positive, default=512, help="rows for the scores, and as many for the losses")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="none = cuda where there is one")
    parser.add_argument("--output", type=as_path, help="folder of the smaller checkpoint; needs --keep")
    options = parser.parse_args(argv)
    if options.output:
        if options.keep is None:
            parser.error("--output needs --keep")
        check_writable(options.output, folder=True)
    options.split = options.split or "validation"
    from train.analysis.prune import pruning_of, table_in_words, write_pruned

    checkpoint = with_revision(options.checkpoint, options.revision)
    found = pruning_of(
        checkpoint,
        DataSource.of(options),
        options.keep,
        options.rows,
        options.device,
        progress_line("expert", "experts"),
    )
    print(table_in_words(found))
    if options.output:
        print(write_pruned(found, options.keep, options.by, options.output))
        task = "--task clm " if found.model.config.stacks == ("decoder",) else ""
        print(f"Train it a little more: {command()} {task}--init_from {pasted(options.output)} --dataset …")
