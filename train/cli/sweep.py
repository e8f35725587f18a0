"""python -m train sweep and compare-routers: a search over training arguments, and kinds of routers, a run each."""

import argparse
import shlex
from pathlib import Path

from switch_model.commands import command
from train.cli.parser import COMMANDS_HELP, Parser, as_text, natural, positive, read_flags
from train.launch import ignore_closed_stdout
from train.names import split_names
from train.runs.run import RUNS, named_after, reserve_folder


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


def compare_routers_command(argv: list[str]) -> None:
    ignore_closed_stdout()
    from train.sweep.routers import KINDS, compare_routers, kinds_for, table, write_picture
    from train.tasks.registry import TASKS

    parser = Parser(
        prog=command("compare-routers"),
        description="Kinds of routers compared with dense MLPs at equal data, steps, seeds and active parameters: a "
        "run for each kind and seed, then one table and one plot.",
        epilog=f"All other flags are those of training, for all runs: see {command()} --help. The same command goes on "
        "where a stopped one ended.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--kinds",
        type=as_text,
        help=f"comma-separated, of {', '.join(KINDS)}; none = all that the task's model can have",
    )
    parser.add_argument("--seeds", type=as_text, default="0,1,2", help="comma-separated (default: 0,1,2)")
    options, rest = parser.parse_known_args(argv)
    arguments, max_runs = read_flags(rest, COMMANDS_HELP)
    if max_runs is not None:
        parser.error("--max_runs can't be used here: runs are sequential")
    task = arguments.train.task
    kinds = split_names(options.kinds) if options.kinds else kinds_for(task)
    seeds = split_names(options.seeds)
    if wrong := [kind for kind in kinds if kind not in KINDS]:
        parser.error(f"--kinds {wrong[0]} is not allowed: it must be of {', '.join(KINDS)}")
    if not all(seed.isdecimal() for seed in seeds):
        parser.error(f"--seeds {options.seeds} is not allowed: it must be whole numbers, comma-separated")
    folder = Path(arguments.train.output_dir or reserve_folder(RUNS, named_after(arguments.data.dataset, "-routers")))
    found = compare_routers(arguments, kinds, [int(seed) for seed in seeds], folder)
    write_picture(found, task, folder / "routers.png")
    lost = "accuracy falls" if TASKS[task].labelled else "perplexity rises"
    print(f"\n{table(found, task)}\n\nActive and all parameters in millions; “shuffled” and “off”: what {lost} by.")
    print(f"Table and plot: {folder / 'routers.csv'}, {folder / 'routers.png'}")
