"""python -m train predict: classify texts, generate text, or fill blanks."""

import argparse
import sys
from typing import TYPE_CHECKING

from switch_model.storage.hub import with_revision
from switch_model.storage.whole_files import check_writable
from train.cli.common import CHECKPOINT, DTYPE, REVISION, add_source_flags
from train.cli.parser import as_path, as_text, command_parser, natural, positive
from train.data.source import DataSource
from train.data.table_file import FILE_ENDINGS, instead_of_a_table, is_table

if TYPE_CHECKING:
    from switch_model.inference.classifier import Predictor


def predict_command(argv: list[str]) -> None:
    parser = _parser()
    options = parser.parse_args(argv)
    _check(parser, options)
    from switch_model.adapters.loading import load_any
    from switch_model.adapters.model import AdaptedTokenClassifier
    from switch_model.checkpoint import require_classifier
    from switch_model.inference.classifier import Predictor
    from switch_model.inference.token_classifier import TokenClassifier
    from switch_model.models.masked_lm import SwitchForMaskedLM
    from train.evaluation.prediction import (
        fill_texts,
        label_tokens,
        random_predictor,
        write_texts,
    )

    if options.checkpoint:
        model, tokenizer = load_any(options.checkpoint, options.device, dtype=options.dtype)
        if model.can_generate():
            return write_texts(model, tokenizer, options)
        if isinstance(model, AdaptedTokenClassifier):
            return label_tokens(TokenClassifier(model, tokenizer), options)
        if isinstance(model, SwitchForMaskedLM):
            return fill_texts(model, tokenizer, options)
        require_classifier(model)
        predictor = Predictor(model, tokenizer)
    else:
        predictor = random_predictor(options.num_classes, options.vocab_size, options.seed, options.device)
        print(
            "NO CHECKPOINT: THE WEIGHTS ARE RANDOM, AND SO ARE THE CLASSES BELOW. Give one with --checkpoint.\n",
            file=sys.stderr,
            flush=True,
        )
    _classify(predictor, options)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("predict", "Classify texts, generate text from them, or fill their blanks.")
    parser.add_argument(
        "texts", nargs="*", type=as_text, help="texts, ___ = a blank; none = one per line of standard input"
    )
    parser.add_argument("--revision", help=REVISION)
    parser.add_argument("--checkpoint", type=as_path, help=f"{CHECKPOINT}; none = RANDOM weights, for a first try")
    parser.add_argument(
        "--file", type=as_path, help="a CSV, TSV, JSONL or parquet file; --output is a copy with the results added"
    )
    parser.add_argument(
        "--output",
        type=as_path,
        help="file for that copy, in the format of its extension; none or - = CSV to standard output",
    )
    add_source_flags(
        parser,
        required=False,
        dataset="data set, as in training; prints true class, predicted class, text",
        split="its split; default: test",
        text_column="column of texts, or two, comma-separated; none = found by name",
        label_column="the data set's column of classes; none = found by name",
    )
    parser.add_argument("--num_samples", type=positive, help="rows of the data set; none = 20 (toy: 1000)")
    parser.add_argument(
        "--trace", action="store_true", help="also print each token's routing, and what each expert writes"
    )
    parser.add_argument(
        "--trace_file", type=as_path, help="JSON file for texts, tokens, routing records and what each expert writes"
    )
    parser.add_argument("--batch_size", type=positive, help="texts per batch; none = 32 (toy: 4)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="none = cuda where there is one")
    parser.add_argument("--dtype", help=DTYPE)
    parser.add_argument("--num_beams", type=positive, help="generation: beams; none = no beam search")
    parser.add_argument("--max_new_tokens", type=positive, help="generation: maximum number of tokens; none = no limit")
    parser.add_argument("--temperature", type=float, help="sampling (causal LM): temperature; none = 0.8")
    parser.add_argument("--top_k", type=natural, help="sampling: the k most probable tokens; 0 = all, none = 40")
    parser.add_argument(
        "--top_p", type=float, help="sampling: the most probable tokens up to this total; none = 1, all"
    )
    parser.add_argument(
        "--save_text", type=as_path, help="file for generated texts, or for texts with filled blanks, one per line"
    )
    parser.add_argument("--num_classes", type=positive, default=3, help="without --checkpoint: classes of the toy")
    parser.add_argument("--vocab_size", type=positive, default=500, help="without --checkpoint: words of the toy")
    parser.add_argument("--seed", type=int, default=0, help="of sampling; without --checkpoint: of the random weights")
    return parser


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Reject incompatible flags and unwritable files before anything is computed."""
    if sum(map(bool, (options.texts, options.file, options.dataset))) > 1:
        parser.error("give only one of: texts, --file, --dataset")
    if options.file and (options.trace or options.trace_file):
        parser.error("--trace and --trace_file need texts or --dataset, not --file")
    if options.output and not options.file:
        parser.error("--output needs --file; otherwise redirect standard output")
    if options.file and not is_table(options.file):
        ending = f"--file {options.file} must end in one of {', '.join(FILE_ENDINGS)}"
        parser.error((instead_of_a_table(options.file) or ending).rstrip("."))
    for name in ("output", "trace_file", "save_text"):
        if getattr(options, name) == "-":
            setattr(options, name, None if name == "output" else "/dev/stdout")
        check_writable(getattr(options, name))
    for name in ("revision", "dtype"):
        if getattr(options, name) and not options.checkpoint:
            parser.error(f"--{name} needs --checkpoint")
    if options.checkpoint:
        options.checkpoint = with_revision(options.checkpoint, options.revision)
    if options.output:
        from train.data.table_output import check_output

        check_output(options.output, options.file)


def _classify(predictor: "Predictor", options: argparse.Namespace) -> None:
    """Classify the texts, or the rows of the file or data set."""
    from switch_model.analysis.typical_texts import TypicalTexts
    from train.data.table_output import write_table
    from train.evaluation.asked_texts import lines_of_input
    from train.evaluation.prediction import SAMPLING, classify_file, print_texts, refuse, rows_to_show

    writes = ("save_text", "num_beams", "max_new_tokens", *SAMPLING)
    refuse(options, writes, "this model is a classifier. For its predictions in a file, use --file with --output.")
    texts = options.texts
    if not (texts or options.file or options.dataset):
        if options.checkpoint:
            texts = lines_of_input()
        else:
            texts = [] if sys.stdin.isatty() else [line.rstrip("\n") for line in sys.stdin]
            options.dataset = None if texts else "toy"
    toy = options.dataset == "toy"
    batch_size = options.batch_size or (4 if toy else 32)
    if options.file:
        source = DataSource(options.file, text_column=options.text_column)
        write_table(classify_file(predictor, source, batch_size), options.output)
        return
    pairs = ((text, None) for text in texts)
    if options.dataset:
        shape = {"num_classes": options.num_classes, "vocab_size": options.vocab_size}
        pairs = rows_to_show(
            options.checkpoint,
            DataSource.of(options),
            options.num_samples or (1000 if toy else 20),
            None if options.checkpoint else shape,
        )
    typical = TypicalTexts.at(options.checkpoint) if options.checkpoint else None
    print_texts(predictor, pairs, batch_size, options.trace, options.trace_file, typical)
