"""The command line: python -m train [command] --flags. Without a command, it trains.

Unknown and abbreviated flags are errors; what goes wrong is said in a line, with exit status 2.
"""

import argparse
import io
import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from switch_model.checkpoint import CheckpointError
from train.flags import Parser, read_flags
from train.publish import PublishError
from train.runs import RUNS, Run, RunError
from train.tables import FILE_ENDINGS, DataError, is_table

COMMANDS_HELP = """
other commands (each has --help):
  python -m train runs [FOLDER]    all runs: state, data set, best figure, time
  python -m train stop RUN         end a run after its step, with a checkpoint
  python -m train resume RUN       go on with a stopped run
  python -m train evaluate …       scores, confusion matrix and routing of a checkpoint
  python -m train analyze …        where the tokens of a whole data set go
  python -m train predict …        classes of texts, with or without their routing
  python -m train package …        a finished run as a small checkpoint folder with a model card
  python -m train publish …        a checkpoint and its model card to the Hugging Face Hub
  python -m train convert OLD.pt … a state dict as a checkpoint folder
  python -m train import SOURCE …  a transformers SwitchTransformers checkpoint, such as google/switch-base-8
  python -m train sweep …          a search over any arguments, a run each
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    # Between datasets and pyarrow; nobody who trains can do anything about it.
    warnings.filterwarnings("ignore", "Specifying null_placement", FutureWarning)
    command, rest = (COMMANDS[argv[0]], argv[1:]) if argv and argv[0] in COMMANDS else (_train, argv)
    try:
        command(rest)
    except (CheckpointError, DataError, PublishError, RunError, ValueError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # Whoever read the output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    return 0


def _train(argv: list[str]) -> None:
    arguments, max_runs = read_flags(argv, COMMANDS_HELP)
    from train.training import train

    _report(train(arguments, max_runs))


def _resume(argv: list[str]) -> None:
    parser = _parser("resume", "Go on with a stopped run from its last checkpoint.")
    parser.add_argument("run", help="folder of the run")
    parser.add_argument("--max_runs", type=_positive, help="wait until fewer than so many runs of its folder run")
    options = parser.parse_args(argv)
    from train.training import resume

    _report(resume(options.run, options.max_runs))


def _stop(argv: list[str]) -> None:
    parser = _parser("stop", "Ask a run to end after its step, with a checkpoint to resume from.")
    parser.add_argument("run", help="folder of the run")
    run = Run.open(parser.parse_args(argv).run)
    if not run.state().active:
        raise RunError(f"{run.folder} is not at work: its state is {run.state().name}.")
    run.request_stop()
    print(f"{run.folder} stops after its step. Go on with it: python -m train resume {run.folder}")


def _runs(argv: list[str]) -> None:
    parser = _parser("runs", "All runs of a folder, the newest first.")
    parser.add_argument("folder", nargs="?", default=str(RUNS), help="where they lie")
    parser.add_argument("--json", action="store_true", help="as JSON")
    options = parser.parse_args(argv)
    from train.history import run_table, summaries

    found = summaries(options.folder)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print(run_table(found) if found else f"There are no runs in {options.folder}.")


def _evaluate(argv: list[str]) -> None:
    parser = _parser("evaluate", "Scores, calibration, confusion matrix and routing of a checkpoint, as JSON.")
    parser.add_argument("--checkpoint", required=True, help="folder, run folder, zip or hub id")
    parser.add_argument("--dataset", required=True, help="name or file, as in training")
    parser.add_argument("--split", help="split to measure; none = the one to report on")
    parser.add_argument("--data_dir", help="as in training")
    parser.add_argument("--text_column", help="as in training")
    parser.add_argument("--label_column", help="as in training")
    parser.add_argument("--batch_size", type=_positive, default=64, help="texts per pass")
    parser.add_argument("--num_samples", type=_positive, help="measure the first so many rows only")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="none = cuda where there is one")
    parser.add_argument(
        "--output_dir",
        help="also write evaluation.json and pictures of the confusion matrix and of the classes there",
    )
    options = vars(parser.parse_args(argv))
    output_dir = options.pop("output_dir")
    from train.evaluation import evaluate

    figures = evaluate(options.pop("checkpoint"), options.pop("dataset"), options.pop("split"), **options)
    text = json.dumps(figures, indent=2)
    if output_dir:
        from train.figures import write_pictures

        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "evaluation.json").write_text(text + "\n", encoding="utf-8")
        title = f"{Path(figures['checkpoint']).name} on {figures['dataset']}, {figures['split']}"
        write_pictures(figures, f"{title}: accuracy {figures['accuracy']:.2%}", folder)
    print(text)


def _predict(argv: list[str]) -> None:
    parser = _parser("predict", "Classes of texts: from arguments, standard input, a file, or a data set.")
    parser.add_argument("texts", nargs="*", help="texts; none = a line each from standard input")
    parser.add_argument(
        "--checkpoint", help="folder, run folder, zip or hub id; none = RANDOM weights, for a first try"
    )
    parser.add_argument(
        "--file", help="a CSV, TSV, JSONL or parquet; a CSV with classes and probabilities added goes to --output"
    )
    parser.add_argument("--output", help="where that copy goes; none = standard output")
    parser.add_argument("--text_column", help="column of texts, or two with a comma between; none = found by name")
    parser.add_argument("--label_column", help="the data set's column of classes; none = found by name")
    parser.add_argument("--dataset", help="rows of a data set, as in training: true class, predicted class, text")
    parser.add_argument("--split", help="its split; none = the one to report on")
    parser.add_argument("--data_dir", help="as in training")
    parser.add_argument("--num_samples", type=_positive, help="rows of the data set; none = 20 (toy: 1000)")
    parser.add_argument("--trace", action="store_true", help="also print where each token went")
    parser.add_argument("--trace_file", help="write texts, tokens and routing records there, as JSON")
    parser.add_argument("--batch_size", type=_positive, help="texts per pass; none = 32 (toy: 4)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="none = cuda where there is one")
    parser.add_argument("--num_classes", type=_positive, default=3, help="without --checkpoint: classes of the toy")
    parser.add_argument("--vocab_size", type=_positive, default=500, help="without --checkpoint: words of the toy")
    parser.add_argument("--seed", type=int, default=0, help="without --checkpoint: of the random weights")
    options = parser.parse_args(argv)
    if sum(map(bool, (options.texts, options.file, options.dataset))) > 1:
        parser.error("give texts, --file or --dataset: one of them")
    if options.file and (options.trace or options.trace_file):
        parser.error("--trace and --trace_file go with texts or --dataset, not with --file")
    if options.output and not options.file:
        parser.error("--output goes with --file; redirect standard output otherwise")
    if options.file and not is_table(options.file):
        parser.error(f"--file {options.file} must end in one of {', '.join(FILE_ENDINGS)}")
    from switch_model.predictor import Predictor
    from train.prediction import classify_file, print_texts, random_predictor, rows_to_show

    if options.checkpoint:
        predictor = Predictor.from_checkpoint(options.checkpoint, options.device)
    else:
        predictor = random_predictor(options.num_classes, options.vocab_size, options.seed, options.device)
        print(
            "NO CHECKPOINT: THE WEIGHTS ARE RANDOM, AND SO ARE THE CLASSES BELOW. Name one with --checkpoint.\n",
            file=sys.stderr,
            flush=True,
        )
    texts, true_labels = options.texts, None
    if not (texts or options.file or options.dataset):
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(errors="replace")  # Bytes that are no UTF-8 shall not end the whole list.
        texts = [] if sys.stdin.isatty() and not options.checkpoint else [line.rstrip("\n") for line in sys.stdin]
        if not texts and not options.checkpoint:
            options.dataset = "toy"
    toy = options.dataset == "toy"
    batch_size = options.batch_size or (4 if toy else 32)
    if options.file:
        # In memory first: a bad input must not leave half an output, nor empty a file that is both.
        copy = io.StringIO(newline="")
        classify_file(predictor, Path(options.file), copy, options.text_column, batch_size)
        if options.output:
            Path(options.output).write_text(copy.getvalue(), encoding="utf-8", newline="")
        else:
            print(copy.getvalue(), end="")
        return
    if options.dataset:
        shape = {"num_classes": options.num_classes, "vocab_size": options.vocab_size}
        texts, true_labels = rows_to_show(
            options.checkpoint,
            options.dataset,
            options.split,
            options.data_dir,
            options.num_samples or (1000 if toy else 20),
            None if options.checkpoint else shape,
            text_column=options.text_column,
            label_column=options.label_column,
        )
    print_texts(predictor, texts, true_labels, batch_size, options.trace, options.trace_file)


def _analyze(argv: list[str]) -> None:
    parser = _parser("analyze", "Where a checkpoint sends the tokens of a whole data set: HTML report and tables.")
    parser.add_argument("--checkpoint", required=True, help="folder, run folder, zip or hub id")
    parser.add_argument("--dataset", required=True, help="as in training; classes are used where there are such")
    parser.add_argument("--split", help="none = the one to report on")
    parser.add_argument("--data_dir", help="as in training")
    parser.add_argument("--text_column", help="as in training")
    parser.add_argument("--label_column", help="as in training")
    parser.add_argument("--num_samples", type=_positive, help="rows, drawn at random; none = all")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="none = cuda where there is one")
    parser.add_argument("--importance", type=_natural, default=32, help="texts to measure importance on; 0 = none")
    parser.add_argument("--output", required=True, help="folder for report.html, measures.json and two parquet tables")
    options = parser.parse_args(argv)
    from switch_model.corpus import route_corpus
    from switch_model.predictor import Predictor
    from train.analyze import importances, rows_to_analyze, write_report
    from train.corpus_report import facts_in_words

    predictor = Predictor.from_checkpoint(options.checkpoint, options.device)
    columns = {key: getattr(options, key) for key in ("data_dir", "text_column", "label_column", "num_samples")}
    rows = rows_to_analyze(predictor.model.config.labels, options.dataset, options.split, **columns)

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done:,} of {total:,} texts", end="\n" if done == total else "", file=sys.stderr, flush=True)

    corpus = route_corpus(predictor, rows.texts, rows.true, progress)
    importance = importances(predictor, corpus, options.importance) if options.importance else None
    title = f"{Path(options.checkpoint).name} on {Path(options.dataset).name}"
    write_report(corpus, importance, title, rows.note, Path(options.output))
    print(f"{facts_in_words(corpus)} {rows.note}".rstrip())
    print(f"Report: {Path(options.output) / 'report.html'}")


def _package(argv: list[str]) -> None:
    parser = _parser(
        "package", "A finished run as a small checkpoint folder with a model card, evaluated as it lies there."
    )
    parser.add_argument("--run", required=True, help="folder of the run")
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument("--data_dir", help="as in training")
    parser.add_argument("--data_note", help="what the card says of the data")
    parser.add_argument("--machine", help="what the card says of the machine")
    options = parser.parse_args(argv)
    from train.package import package

    figures = package(
        options.run, options.output, data_dir=options.data_dir, data_note=options.data_note, machine=options.machine
    )
    print(json.dumps(figures, indent=2))


def _convert(argv: list[str]) -> None:
    parser = _parser("convert", "A .pt state dict as a checkpoint folder. Pickles are opened nowhere else.")
    parser.add_argument("source", help="the .pt or .pth file; only tensors are read from it")
    parser.add_argument("--tokenizer", required=True, help="folder or hub id of the tokenizer it was trained with")
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument("--config", help="config.json or arguments.json, for what weights can't tell; none = defaults")
    parser.add_argument("--labels", help="class names in order, with commas between")
    parser.add_argument("--seq_len", type=_positive, default=128, help="tokens that the model reads of a text")
    options = vars(parser.parse_args(argv))
    if options["labels"]:
        options["labels"] = [name.strip() for name in options["labels"].split(",")]
    from train.convert import convert

    output = options["output"]
    config = convert(options.pop("source"), **options)
    sparse = f"{len(config.sparse_layers)} of them sparse with {config.num_experts} experts"
    print(
        f"{output}: {config.num_layers} blocks, {sparse if config.sparse_layers else 'all dense'}.\n"
        f"The weights don't tell, so taken as given: "
        f"{config.dense_act_fn}, pooling {config.pooling}, embedding_norm {config.embedding_norm}, capacity "
        f"{config.eval_capacity_factor}. "
        "If that is not how it was trained, name its config with --config."
    )


def _import(argv: list[str]) -> None:
    from train.import_checkpoint import command

    command(argv)


def _publish(argv: list[str]) -> None:
    parser = _parser(
        "publish",
        "Upload a checkpoint with its model card to the Hugging Face Hub, as who is logged in (`hf auth login`, or the "
        "token in HF_TOKEN).",
    )
    parser.add_argument("--run", required=True, help="folder of the run, or of a checkpoint")
    parser.add_argument("--repo_id", required=True, help="owner/name on the Hub; made where it is not there yet")
    parser.add_argument("--public", action="store_true", help="for everyone to see, and not for its owner alone")
    options = parser.parse_args(argv)
    from train.publish import publish

    print(publish(options.run, options.repo_id, private=not options.public))


def _sweep(argv: list[str]) -> None:
    from train.search_space import SYNTAX
    from train.sweep import DEFAULT_TRIALS, SAMPLERS, sweep, sweep_table

    parser = Parser(
        prog="python -m train sweep",
        description="A search over training arguments: one run after another, compared by their validation figure.",
        epilog=f"values of --search, such as lr=1e-4..1e-2:log,num_experts=2|4|8:\n{SYNTAX}\n\n"
        "Every other flag is one of training, for all trials: see python -m train --help.\n"
        "The same command goes on with a sweep that was stopped.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--search", action="append", required=True, help="arguments and their values, see below")
    parser.add_argument("--sampler", choices=SAMPLERS, default="random", help="how values are chosen (default: random)")
    parser.add_argument(
        "--trials", type=_positive, help=f"how many runs (default: the whole grid, or {DEFAULT_TRIALS})"
    )
    parser.add_argument("--search_seed", type=_natural, default=0, help="of the choice of values (default: 0)")
    options, rest = parser.parse_known_args(argv)
    arguments, max_runs = read_flags(rest, COMMANDS_HELP)
    if max_runs is not None:
        parser.error("--max_runs does not go with a sweep: its runs follow one another")
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
        print(f"{found.stopped} Go on with: python -m train sweep {shlex.join(given)}")
    if found.best is not None:
        equal = sum(trial.figure == found.best.figure for trial in found.ranked())
        tie = f", the first of {equal} equal ones" if equal > 1 else ""
        print(
            f"Best on validation: trial {found.best.number}{tie}.\n"
            f"Checkpoint: {found.folder / found.best.run / 'best'}\n"
            f"The same again: {found.best_arguments().command()}\n"
            f"Look at all: {found.folder / 'parallel_coordinates.html'}"
        )


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "runs": _runs,
    "stop": _stop,
    "resume": _resume,
    "evaluate": _evaluate,
    "predict": _predict,
    "analyze": _analyze,
    "package": _package,
    "publish": _publish,
    "convert": _convert,
    "import": _import,
    "sweep": _sweep,
}


def _report(run: Run) -> None:
    from train.tasks import TASKS

    state = run.state()
    if state.name == "stopped":
        print(f"{state.message} Go on with: python -m train resume {run.folder}")
    elif state.message:
        print(state.message)
    if not run.metrics("eval"):
        return
    task = TASKS[run.arguments().train.task]
    pick = max if task.higher_is_better else min
    best = pick(run.metrics("eval"), key=lambda record: record[task.best])
    print(f"Best validation {task.describe(best[task.best])} (step {best['step']}). Checkpoint: {run.best}")
    if task.labelled:
        print(f"Look at it: python app.py --checkpoint {run.best}")
    else:
        print(f"Make a classifier of it: python -m train --init_from {run.best} --dataset …")


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    return Parser(
        prog=f"python -m train {command}",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not allowed: it must be at least 1")
    return value


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is not allowed: it must be at least 0")
    return value
