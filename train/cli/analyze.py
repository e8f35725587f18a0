"""python -m train analyze: routing of a whole data set."""

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from switch_model.storage.hub import short_name, with_revision
from switch_model.storage.whole_files import check_writable
from train.cli.common import CHECKPOINT, DTYPE, RELIANCE, REVISION, add_source_flags, progress_line
from train.cli.parser import as_path, command_parser, natural, positive
from train.data.source import DataSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from switch_model.analysis.corpus import Corpus
    from switch_model.inference.pipeline import AnyModel
    from switch_model.traces.agreement import LayerAgreement


def analyze_command(argv: list[str]) -> None:
    parser = _parser()
    options = parser.parse_args(argv)
    check_writable(options.output, folder=True)
    if options.from_trace:
        return _analyze_trace(options)
    if not options.checkpoint or not options.dataset:
        parser.error("give --checkpoint and --dataset, or --from_trace")
    options.checkpoint = with_revision(options.checkpoint, options.revision)
    from switch_model.adapters.loading import load_any
    from switch_model.analysis.corpus import route_corpus
    from switch_model.inference.classifier import CLASSIFIERS, Predictor
    from train.analysis.agreement import agreement_in_words
    from train.analysis.analyze import atlas_of, rows_to_analyze, with_overlap, with_tokenless, write_report
    from train.analysis.atlas import atlas_in_words
    from train.analysis.report import (
        distinct_in_words,
        distinct_of,
        facts_in_words,
        most_telling_in_words,
        told_of_class,
    )
    from train.evaluation.measured_rows import rows_of
    from train.evaluation.reliance import PASSES, measured

    model, tokenizer = load_any(options.checkpoint, options.device, dtype=options.dtype)
    if not isinstance(model, CLASSIFIERS):
        return _analyze_texts(model, tokenizer, options)
    predictor = Predictor(model, tokenizer)
    labels, source = predictor.model.config.labels, DataSource.of(options)
    rows = rows_to_analyze(labels, source, num_samples=options.num_samples, checkpoint=options.checkpoint)
    rows = with_overlap(rows, options.checkpoint)

    corpus = route_corpus(predictor, rows.texts, rows.true, progress_line("text", "texts"))
    rows = with_tokenless(rows, corpus)
    agreed = _agreement(corpus, options)
    atlas = atlas_of(predictor, corpus, options.importance, progress_line("expert", "experts"))
    found = measured(predictor.model, rows_of(corpus, predictor), options.reliance, progress_line(*PASSES))
    title = f"{short_name(options.checkpoint)} on {Path(options.dataset).name}"
    if (choices := corpus.measures[0].get("choices", 1)) > 1:
        said = f"Each token has {choices} experts, and all of them count."
        rows = replace(rows, note=f"{rows.note} {said}".strip())
    write_report(corpus, atlas, title, rows.note, Path(options.output), found, *agreed)
    print(f"{facts_in_words(corpus)} {most_telling_in_words(told_of_class(corpus))} {rows.note}".rstrip())
    _say(distinct_in_words(corpus.layers, distinct_of(corpus), corpus.num_experts))
    _say(agreement_in_words(*agreed))
    print(atlas_in_words(atlas))
    if found:
        print(" ".join(found["reliance"]["in_words"]))
    print(f"Report: {Path(options.output) / 'report.html'}")


def _parser() -> ArgumentParser:
    parser = command_parser("analyze", "Analyse the routing of a whole data set: HTML report and tables.")
    parser.add_argument("--checkpoint", type=as_path, help=CHECKPOINT)
    parser.add_argument("--revision", help=REVISION)
    add_source_flags(
        parser,
        required=False,
        without=("target_column",),
        dataset="as in training; classes are used if there are any",
        split="as in evaluate; default: test",
    )
    parser.add_argument("--num_samples", type=positive, help="number of rows, sampled at random; none = all")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="none = cuda where there is one")
    parser.add_argument("--dtype", help=DTYPE)
    parser.add_argument(
        "--importance", type=natural, default=32, help="most texts on which each expert is switched off; 0 = none"
    )
    parser.add_argument("--reliance", type=natural, default=256, help=RELIANCE)
    parser.add_argument(
        "--output",
        type=as_path,
        required=True,
        help="folder for report.html, measures.json, the expert atlas (atlas.csv, atlas.json) and two parquet tables",
    )
    _add_trace_flags(parser)
    return parser


def _analyze_texts(model: "AnyModel", tokenizer: "PreTrainedTokenizerFast", options: Namespace) -> None:
    """The routing of texts by a model that gives them no class."""
    from switch_model.analysis.corpus import ENCODER_ALONE, route_corpus
    from switch_model.analysis.scoring import MEASURED
    from switch_model.inference.pipeline import TextPipeline
    from train.analysis.agreement import agreement_in_words
    from train.analysis.analyze import atlas_of, rows_to_analyze, with_overlap, with_tokenless
    from train.analysis.atlas import atlas_in_words
    from train.analysis.report import distinct_in_words, distinct_of
    from train.analysis.trace import write_texts_report
    from train.evaluation.measured_rows import rows_of
    from train.evaluation.reliance import PASSES, measured

    rows = rows_to_analyze([], DataSource.of(options), num_samples=options.num_samples, checkpoint=options.checkpoint)
    rows = with_overlap(rows, options.checkpoint)
    if model.config.is_encoder_decoder:
        rows = replace(rows, note=f"{rows.note} {ENCODER_ALONE}".strip())
    pipeline = TextPipeline(model, tokenizer)
    corpus = route_corpus(pipeline, rows.texts, rows.true, progress_line("text", "texts"), rows.classes)
    rows = with_tokenless(rows, corpus)
    agreed = _agreement(corpus, options)
    atlas = atlas_of(pipeline, corpus, options.importance, progress_line("expert", "experts"))
    found = {}
    if isinstance(model, MEASURED):
        found = measured(model, rows_of(corpus, pipeline), options.reliance, progress_line(*PASSES))
    title = f"{short_name(options.checkpoint)} on {Path(options.dataset).name}"
    facts = write_texts_report(corpus, atlas, title, rows.note, Path(options.output), found, *agreed)
    print(f"{facts} {rows.note}".rstrip())
    _say(distinct_in_words(corpus.layers, distinct_of(corpus), corpus.num_experts))
    _say(agreement_in_words(*agreed))
    print(atlas_in_words(atlas))
    if found:
        print(" ".join(found["reliance"]["in_words"]))
    print(f"Report: {Path(options.output) / 'report.html'}")


def _say(sentence: str) -> None:
    if sentence:
        print(sentence)


def _agreement(corpus: "Corpus", options: Namespace) -> tuple[list["LayerAgreement"], str]:
    """How far --compare_with, another checkpoint, agrees on the same texts, and its name."""
    if not options.compare_with:
        return [], ""
    from switch_model.adapters.loading import load_any
    from switch_model.analysis.corpus import route_corpus
    from switch_model.inference.pipeline import TextPipeline
    from switch_model.traces.agreement import agreement
    from train.analysis.numbering import removed_of, with_common_numbers
    from train.analysis.trace import trace_of

    model, tokenizer = load_any(options.compare_with, options.device, dtype=options.dtype)
    routed = route_corpus(TextPipeline(model, tokenizer), corpus.texts, progress=progress_line("text", "texts"))
    removed = removed_of(options.checkpoint), removed_of(options.compare_with)
    mine, other, _ = with_common_numbers(trace_of(corpus), removed[0], trace_of(routed), removed[1])
    return agreement(mine, other), short_name(str(options.compare_with))


def _add_trace_flags(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--from_trace",
        type=as_path,
        help="instead of a checkpoint: routing recorded elsewhere, by vLLM, SGLang, llama.cpp or others "
        "(docs/trace-format.md)",
    )
    parser.add_argument(
        "--compare_with",
        type=as_path,
        help="how far another agrees: a checkpoint, or with --from_trace a trace of the same tokens",
    )
    parser.add_argument("--num_layers", type=positive, help="layers of the model, for a trace that does not say it")
    parser.add_argument("--top_k", type=positive, help="experts per token, for a trace that does not say it")
    parser.add_argument("--num_experts", type=positive, help="experts of a layer; none = as the trace says")


def _analyze_trace(options: Namespace) -> None:
    from switch_model.traces.agreement import agreement
    from switch_model.traces.opening import open_trace
    from train.analysis.trace import distinct_of_trace, write_trace_report

    shape = {name: getattr(options, name) for name in ("num_layers", "top_k", "num_experts")}
    trace, folder = open_trace(options.from_trace, **shape), Path(options.output)
    found, other = [], ""
    if options.compare_with:
        found, other = agreement(trace, open_trace(options.compare_with, **shape)), Path(options.compare_with).name
    print(write_trace_report(trace, f"Routing of {Path(options.from_trace).name}", folder, found, other))
    _say(distinct_of_trace(trace))
    for note in trace.notes:
        print(note)
    print(f"Report: {folder / 'report.html'}")
