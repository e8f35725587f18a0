"""python -m train analyze: routing of a whole data set."""

from pathlib import Path

from switch_model.storage.hub import short_name, with_revision
from switch_model.storage.whole_files import check_writable
from train.cli.common import RELIANCE, REVISION, add_source_flags, progress_line
from train.cli.parser import as_path, command_parser, natural, positive
from train.data.source import DataSource


def analyze_command(argv: list[str]) -> None:
    parser = command_parser("analyze", "Analyse the routing of a whole data set: HTML report and tables.")
    parser.add_argument("--checkpoint", type=as_path, required=True, help="folder, run folder, zip or hub id")
    parser.add_argument("--revision", help=REVISION)
    add_source_flags(
        parser,
        without=("target_column",),
        dataset="as in training; classes are used if there are any",
        split="as in evaluate; default: test",
    )
    parser.add_argument("--num_samples", type=positive, help="number of rows, sampled at random; none = all")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="none = cuda where there is one")
    parser.add_argument(
        "--importance", type=natural, default=32, help="number of texts for expert importance; 0 = none"
    )
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
    from train.analysis.report import facts_in_words, most_telling_in_words, told_of_class
    from train.evaluation.reliance import measured, rows_of

    predictor = Predictor.from_checkpoint(options.checkpoint, options.device)
    labels, source = predictor.model.config.labels, DataSource.of(options)
    rows = rows_to_analyze(labels, source, num_samples=options.num_samples, checkpoint=options.checkpoint)
    rows = with_overlap(rows, options.checkpoint)

    corpus = route_corpus(predictor, rows.texts, rows.true, progress_line("text", "texts"))
    importance = importances(predictor, corpus, options.importance) if options.importance else None
    found = measured(
        predictor.model, rows_of(corpus, predictor.model.config), options.reliance, progress_line("pass", "passes")
    )
    title = f"{short_name(options.checkpoint)} on {Path(options.dataset).name}"
    write_report(corpus, importance, title, rows.note, Path(options.output), found)
    print(f"{facts_in_words(corpus)} {most_telling_in_words(told_of_class(corpus))} {rows.note}".rstrip())
    if found:
        print(" ".join(found["reliance"]["in_words"]))
    print(f"Report: {Path(options.output) / 'report.html'}")
