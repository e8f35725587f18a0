"""python -m train sweep: a search over training arguments, a run each."""

import argparse
import shlex

from switch_model.commands import command
from train.cli.parser import COMMANDS_HELP, Parser, natural, positive, read_flags
from train.launch import ignore_closed_stdout


def sweep_command(argv: list[str]) -> None:
    ignore_closed_stdout()
    from train.sweep.search_space import SYNTAX
    from train.sweep.sweep import DEFAULT_TRIALS, SAMPLERS, sweep, sweep_table

    parser = Parser(
        prog=command("sweep"),
        description="A search over training arguments: one run after another, compared by their validation metric.",
        epilog=f"values of --search, such as lr=1e-4..1e-2:log,num_experts=2|4|8:\n{SYNTAX}\n\n"
        f"All other flags are those of training, for all trials: see {command()} --help.\n"
        "The same command resumes a stopped sweep.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--search", action="append", required=True, help="arguments and their values, see below")
    parser.add_argument("--sampler", choices=SAMPLERS, default="random", help="how values are chosen (default: random)")
    parser.add_argument("--trials", type=positive, help=f"how many runs (default: the whole grid, or {DEFAULT_TRIALS})")
    parser.add_argument("--search_seed", type=natural, default=0, help="seed of the sampler (default: 0)")
    options, rest = parser.parse_known_args(argv)
    arguments, max_runs = read_flags(rest, COMMANDS_HELP)
    if max_runs is not None:
        parser.error("--max_runs can't be used in a sweep: its runs are sequential")
    found = sweep(
        arguments,
        options.search,
        sampler=options.sampler,
        trials=options.trials,
        search_seed=options.search_seed,
    )
    print(f"\n{sweep_table(found)}\n")
    if found.stopped:
        given = [*argv, *([] if arguments.train.output_dir else ["--output_dir", str(found.folder)])]
        print(f"{found.stopped} Resume with: {command('sweep')} {shlex.join(given)}")
    if found.best is not None:
        equal = sum(trial.figure == found.best.figure for trial in found.ranked())
        tie = f", the first of {equal} equal ones" if equal > 1 else ""
        print(
            f"Best on validation: trial {found.best.number}{tie}.\n"
            f"Checkpoint: {found.folder / found.best.run / 'best'}\n"
            f"Repeat it: {found.best_arguments().again()}\n"
            f"Plots of all trials: {found.folder / 'parallel_coordinates.html'}"
        )
