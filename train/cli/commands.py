"""The commands that work on a checkpoint: evaluate, analyze, predict, package, publish, convert, import.

Each takes its part of the command line; train/cli/main.py says what goes wrong.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from switch_model.storage.hub import short_name, with_revision
from switch_model.storage.whole_files import check_writable, folder_written_aside
from train.cli.parser import as_path, as_text, command_parser, natural, positive
from train.data.table_file import FILE_ENDINGS, instead_of_a_table, is_table
from train.words import counted

RELIANCE = "rows, drawn at random, to measure on how much the model relies on its experts; 0 = none"
REVISION = "of a hub id: a branch, tag, commit or refs/pr/N, as owner/name@REVISION says too; none = main"


def evaluate_command(argv: list[str]) -> None:
    parser = command_parser("evaluate", "Scores, calibration, confusion matrix and routing of a checkpoint, as JSON.")
    parser.add_argument("--checkpoint", type=as_path, required=True, help="folder, run folder, zip or hub id")
    parser.add_argument("--revision", help=REVISION)
    parser.add_argument("--dataset", type=as_path, required=True, help="name or file, as in training")
    parser.add_argument(
        "--split",
        help="split to measure; none = the one to report on; validation = also what a run held out of its data",
    )
    parser.add_argument("--data_dir", type=as_path, help="as in training")
    parser.add_argument("--text_column", help="as in training")
    parser.add_argument("--label_column", help="as in training")
    parser.add_argument("--batch_size", type=positive, default=64, help="texts per pass")
    parser.add_argument("--num_samples", type=positive, help="measure the first so many rows only")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="none = cuda where there is one")
    parser.add_argument("--target_column", help="as in training, of a model that translates")
    parser.add_argument("--language", help="as in training")
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
    options = vars(parser.parse_args(argv))
    output_dir = options.pop("output_dir")
    check_writable(output_dir, folder=True)
    check_writable(options["save_text"])
    options["checkpoint"] = with_revision(options["checkpoint"], options.pop("revision"))
    from train.evaluation.classification import evaluate

    options["progress"] = _progress("pass", "passes")
    figures = evaluate(options.pop("checkpoint"), options.pop("dataset"), options.pop("split"), **options)
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


def predict_command(argv: list[str]) -> None:
    parser = command_parser("predict", "Classes of texts, what a model writes for them, or what fills their blanks.")
    parser.add_argument(
        "texts", nargs="*", type=as_text, help="texts, ___ = a blank to fill; none = a line each from standard input"
    )
    parser.add_argument("--revision", help=REVISION)
    parser.add_argument(
        "--checkpoint", type=as_path, help="folder, run folder, zip or hub id; none = RANDOM weights, for a first try"
    )
    parser.add_argument(
        "--file", type=as_path, help="a CSV, TSV, JSONL or parquet; a copy with the answers added goes to --output"
    )
    parser.add_argument(
        "--output",
        type=as_path,
        help="where that copy goes, in the format of its ending; none or - = CSV to standard output",
    )
    parser.add_argument("--text_column", help="column of texts, or two with a comma between; none = found by name")
    parser.add_argument("--label_column", help="the data set's column of classes; none = found by name")
    parser.add_argument(
        "--dataset", type=as_path, help="rows of a data set, as in training: true class, predicted class, text"
    )
    parser.add_argument("--split", help="its split; none = the one to report on")
    parser.add_argument("--data_dir", type=as_path, help="as in training")
    parser.add_argument("--num_samples", type=positive, help="rows of the data set; none = 20 (toy: 1000)")
    parser.add_argument("--trace", action="store_true", help="also print where each token went")
    parser.add_argument("--trace_file", type=as_path, help="write texts, tokens and routing records there, as JSON")
    parser.add_argument("--batch_size", type=positive, help="texts per pass; none = 32 (toy: 4)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="none = cuda where there is one")
    parser.add_argument("--num_beams", type=positive, help="of a model that writes: beams; none = no search")
    parser.add_argument("--max_new_tokens", type=positive, help="of a model that writes; none = as long as it can")
    parser.add_argument("--temperature", type=float, help="of a model that writes on (clm): of the draw; none = 0.8")
    parser.add_argument("--top_k", type=natural, help="draw of so many likeliest tokens; 0 = all, none = 40")
    parser.add_argument("--top_p", type=float, help="draw of those that make up so much probability; none = 1, all")
    parser.add_argument(
        "--save_text", type=as_path, help="a file for what is written, or for texts with blanks filled, a line each"
    )
    parser.add_argument("--num_classes", type=positive, default=3, help="without --checkpoint: classes of the toy")
    parser.add_argument("--vocab_size", type=positive, default=500, help="without --checkpoint: words of the toy")
    parser.add_argument("--seed", type=int, default=0, help="of the draw; without --checkpoint: of the random weights")
    options = parser.parse_args(argv)
    if sum(map(bool, (options.texts, options.file, options.dataset))) > 1:
        parser.error("give texts, --file or --dataset: one of them")
    if options.file and (options.trace or options.trace_file):
        parser.error("--trace and --trace_file go with texts or --dataset, not with --file")
    if options.output and not options.file:
        parser.error("--output goes with --file; redirect standard output otherwise")
    if options.file and not is_table(options.file):
        ending = f"--file {options.file} must end in one of {', '.join(FILE_ENDINGS)}"
        parser.error((instead_of_a_table(options.file) or ending).rstrip("."))
    for name in ("output", "trace_file", "save_text"):
        if getattr(options, name) == "-":
            setattr(options, name, None if name == "output" else "/dev/stdout")
        check_writable(getattr(options, name))
    if options.revision and not options.checkpoint:
        parser.error("--revision goes with --checkpoint")
    if options.checkpoint:
        options.checkpoint = with_revision(options.checkpoint, options.revision)
    if options.output:
        from train.data.table_output import check_output

        check_output(options.output, options.file)
    from switch_model.checkpoint import load_checkpoint, require_classifier
    from switch_model.inference.classifier import Predictor
    from switch_model.models.encoder import SwitchForMaskedLM
    from train.data.table_output import write_table
    from train.evaluation.prediction import (
        DRAWING,
        classify_file,
        fill_texts,
        lines_of_input,
        print_texts,
        random_predictor,
        refuse,
        rows_to_show,
        write_texts,
    )

    if options.checkpoint:
        model, tokenizer = load_checkpoint(options.checkpoint, options.device)
        if model.can_generate():
            return write_texts(model, tokenizer, options)
        if isinstance(model, SwitchForMaskedLM):
            return fill_texts(model, tokenizer, options)
        require_classifier(model)
        predictor = Predictor(model, tokenizer)
    else:
        predictor = random_predictor(options.num_classes, options.vocab_size, options.seed, options.device)
        print(
            "NO CHECKPOINT: THE WEIGHTS ARE RANDOM, AND SO ARE THE CLASSES BELOW. Name one with --checkpoint.\n",
            file=sys.stderr,
            flush=True,
        )
    writes = ("save_text", "num_beams", "max_new_tokens", *DRAWING)
    refuse(options, writes, "this model tells classes, it does not write. Its answers in a file: --file with --output.")
    texts, true_labels = options.texts, None
    if not (texts or options.file or options.dataset):
        if options.checkpoint:
            texts = lines_of_input()
        else:
            texts = [] if sys.stdin.isatty() else [line.rstrip("\n") for line in sys.stdin]
            options.dataset = None if texts else "toy"
    toy = options.dataset == "toy"
    batch_size = options.batch_size or (4 if toy else 32)
    if options.file:
        write_table(*classify_file(predictor, Path(options.file), options.text_column, batch_size), options.output)
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


def analyze_command(argv: list[str]) -> None:
    parser = command_parser("analyze", "Where the tokens of a whole data set go: HTML report and tables.")
    parser.add_argument("--checkpoint", type=as_path, required=True, help="folder, run folder, zip or hub id")
    parser.add_argument("--revision", help=REVISION)
    parser.add_argument(
        "--dataset", type=as_path, required=True, help="as in training; classes are used where there are such"
    )
    parser.add_argument("--split", help="as in evaluate; none = the one to report on")
    parser.add_argument("--data_dir", type=as_path, help="as in training")
    parser.add_argument("--text_column", help="as in training")
    parser.add_argument("--label_column", help="as in training")
    parser.add_argument("--num_samples", type=positive, help="rows, drawn at random; none = all")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="none = cuda where there is one")
    parser.add_argument("--importance", type=natural, default=32, help="texts to measure importance on; 0 = none")
    parser.add_argument("--reliance", type=natural, default=256, help=RELIANCE)
    parser.add_argument(
        "--output", type=as_path, required=True, help="folder for report.html, measures.json and two parquet tables"
    )
    options = parser.parse_args(argv)
    check_writable(options.output, folder=True)
    options.checkpoint = with_revision(options.checkpoint, options.revision)
    from switch_model.analysis.corpus import route_corpus
    from switch_model.inference.classifier import Predictor
    from train.analysis.analyze import importances, rows_to_analyze, with_overlap, write_report
    from train.analysis.report import facts_in_words
    from train.evaluation.reliance import measured, rows_of

    predictor = Predictor.from_checkpoint(options.checkpoint, options.device)
    columns = {key: getattr(options, key) for key in ("data_dir", "text_column", "label_column", "num_samples")}
    labels = predictor.model.config.labels
    rows = rows_to_analyze(labels, options.dataset, options.split, checkpoint=options.checkpoint, **columns)
    rows = with_overlap(rows, options.checkpoint)

    corpus = route_corpus(predictor, rows.texts, rows.true, _progress("text", "texts"))
    importance = importances(predictor, corpus, options.importance) if options.importance else None
    found = measured(
        predictor.model, rows_of(corpus, predictor.model.config), options.reliance, _progress("pass", "passes")
    )
    title = f"{short_name(options.checkpoint)} on {Path(options.dataset).name}"
    write_report(corpus, importance, title, rows.note, Path(options.output), found)
    print(f"{facts_in_words(corpus)} {rows.note}".rstrip())
    if found:
        print(" ".join(found["reliance"]["in_words"]))
    print(f"Report: {Path(options.output) / 'report.html'}")


def _progress(one: str, many: str) -> Callable[[int, int], None]:
    """What says how far something is, where somebody looks on."""

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r{done:,} of {counted(total, one, many)}", end=end, file=sys.stderr, flush=True)

    return progress


def package_command(argv: list[str]) -> None:
    parser = command_parser(
        "package", "A finished run as a small checkpoint folder with a model card, evaluated as it lies there."
    )
    parser.add_argument("--run", type=as_path, required=True, help="folder of the run")
    parser.add_argument("--output", type=as_path, required=True, help="folder to write")
    parser.add_argument("--data_dir", type=as_path, help="as in training")
    parser.add_argument("--data_note", type=as_text, help="what the card says of the data")
    parser.add_argument("--machine", type=as_text, help="what the card says of the machine")
    parser.add_argument("--num_beams", type=positive, default=1, help="of a model that translates, when it is measured")
    options = parser.parse_args(argv)
    check_writable(options.output, folder=True)
    from train.release.package import package

    options = vars(options)
    figures = package(options.pop("run"), options.pop("output"), **options)
    print(json.dumps(figures, indent=2))


def convert_command(argv: list[str]) -> None:
    parser = command_parser("convert", "A .pt state dict as a checkpoint folder. Pickles are opened nowhere else.")
    parser.add_argument("source", type=as_path, help="the .pt or .pth file; only tensors are read from it")
    parser.add_argument(
        "--tokenizer", type=as_path, required=True, help="folder or hub id of the tokenizer it was trained with"
    )
    parser.add_argument("--revision", help="of the tokenizer's hub id: a branch, tag, commit or refs/pr/N")
    parser.add_argument("--output", type=as_path, required=True, help="folder to write")
    parser.add_argument(
        "--config", type=as_path, help="config.json or arguments.json, for what weights can't tell; none = defaults"
    )
    parser.add_argument("--labels", type=as_text, help="class names in order, with commas between")
    parser.add_argument("--seq_len", type=positive, default=128, help="tokens that the model reads of a text")
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
        f"The weights don't tell, so taken as given: "
        f"{config.dense_act_fn}, pooling {config.pooling}, embedding_norm {config.embedding_norm}, capacity "
        f"{config.eval_capacity_factor}. "
        "If that is not how it was trained, name its config with --config."
    )
    if labels_are_numbers(config):
        print(f"Its {config.num_labels} classes have no names: give them with --labels, in order, commas between.")


def import_command(argv: list[str]) -> None:
    from train.weights.switch_transformers import command

    command(argv)


def publish_command(argv: list[str]) -> None:
    parser = command_parser(
        "publish",
        "Upload a checkpoint with its model card to the Hugging Face Hub, as who is logged in (`hf auth login`, or the "
        "token in HF_TOKEN).",
    )
    parser.add_argument("--run", type=as_path, required=True, help="folder of the run, or of a checkpoint")
    parser.add_argument(
        "--repo_id", type=as_path, required=True, help="owner/name on the Hub; made where it is not there yet"
    )
    parser.add_argument("--public", action="store_true", help="for everyone to see, and not for its owner alone")
    options = parser.parse_args(argv)
    from train.release.publish import publish

    print(publish(options.run, options.repo_id, private=not options.public))
