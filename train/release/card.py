"""The model card of a checkpoint: every figure beside the command that prints it."""

import re
from typing import Any

from switch_model.config import SwitchConfig
from train.evaluation.reliance import known, markdown
from train.formatting import counted, one_line

LICENCES = {
    "ag_news": "Apache-2.0 for these weights. The AG corpus behind them is for research and non-commercial use.",
    "sst2": "Apache-2.0 for these weights. The data follows the terms of SST and GLUE.",
    "tiny_stories": "Apache-2.0 for these weights. TinyStories is under CDLA-Sharing-1.0.",
    "en_hi": "CC BY-NC-SA 4.0, as the captions of Hindi Visual Genome behind these weights; the other sentences are "
    "Tatoeba's (CC BY 2.0 FR) and Wikipedia's (CC BY-SA 3.0).",
    "toy": "Apache-2.0 for these weights. The texts were invented.",
    "imdb": "Apache-2.0 for these weights. The IMDB reviews are for research use; cite Maas et al., 2011.",
}
UNKNOWN_LICENCE = "That of the data it was trained on."


# What a model does, and what the hub calls that.
PURPOSES = {
    "classification": ("sorts texts into ", "text-classification"),
    "mlm": ("guesses hidden tokens of a text", "fill-mask"),
    "span_corruption": ("writes what was cut out of a text", "text2text-generation"),
    "translation": ("translates", "translation"),
    "clm": ("goes on with a text", "text-generation"),
}


# A share of dropped tokens that a reader should know about.
NOTABLE_DROPS = 0.01


def figures_in_words(figures: dict[str, Any]) -> str:
    """The figures of an evaluation that say how good a model is."""
    words = {
        "bleu": "BLEU **{:.1f}**",
        "chrf": "chrF {:.1f}",
        "perplexity": "perplexity **{:.2f}** per token",
        "bits_per_character": "{:.3f} bits per character",
        "accuracy": "accuracy **{:.2%}**",
        "macro_f1": "macro-F1 {:.2%}",
        "loss": "loss {:.4f}",
    }
    said = [text.format(figures[name]) for name, text in words.items() if name in figures]
    if "hidden_share" in figures:
        said.append(f"{figures['hidden_share']:.0%} of the tokens hidden")
    return ", ".join(said) + (f" ({figures['bleu_signature']})" if "bleu_signature" in figures else "")


def _licence(arguments: dict[str, Any]) -> str:
    """As the hub names it: "other" where the data, here or of the model it started from, may bring other terms."""
    if arguments["dataset"] not in LICENCES or arguments.get("init_from"):
        return "other"
    return "cc-by-nc-sa-4.0" if arguments["dataset"] == "en_hi" else "apache-2.0"


def as_written(text: str) -> str:
    """A name as Markdown that shows it and nothing else: no markup, no HTML, no second line."""
    return re.sub(r"[\\`*\[\]<>|~$&]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", one_line(text))


def with_own_licence(card: str) -> str:
    """A card that an earlier version wrote, without its promise of a licence that nobody knows to hold."""
    head, rule, rest = card.partition("\n---\n")
    unknown = f"## Licence\n\n{UNKNOWN_LICENCE}" in rest
    return head.replace("\nlicense: apache-2.0", "\nlicense: other") + rule + rest if unknown else card


def model_card(
    config: SwitchConfig,
    training: dict[str, Any],
    parameters: tuple[int, int],
    evaluation: dict[str, Any] | None = None,
    evaluation_command: str | None = None,
) -> str:
    """Markdown.

    Args:
        training: training.json.
        parameters: (all, active per token).
        evaluation: what `python -m train evaluate` printed for the split one reports on, with the command that did.
    """
    arguments = training["arguments"]
    dataset = arguments["dataset"]
    rows = training["rows"]
    validation = training["validation"]
    task = arguments.get("task", "classification")
    classifies = task == "classification"
    writes = task in ("translation", "clm", "span_corruption")
    purpose, pipeline = PURPOSES[task]
    unit = {"translation": "pairs", "clm": f"blocks of {arguments['seq_len']} tokens"}.get(task, "rows")
    reads = f"Reads at most {arguments['seq_len']} tokens of a text; what follows is ignored."
    if task == "clm":
        reads = f"Goes on from the last {arguments['seq_len']} tokens of a text at most."
    if classifies:
        purpose += ", ".join(map(as_written, config.labels))
    lines = [
        "---",
        f"license: {_licence(arguments)}",
        "library_name: transformers",
        f"pipeline_tag: {pipeline}",
        "tags: [mixture-of-experts, switch-transformer]",
        "---",
        "",
        f"# Switch Transformer, {as_written(dataset)}",
        "",
        f"A top-1 mixture of experts that {purpose}. {sum(map(config.depth, config.stacks))} blocks; "
        f"{len(config.sparse_layers)} sparse layers with {config.num_experts} experts each; "
        f"{parameters[0]:,} parameters, {parameters[1]:,} active per token.",
        "",
        "## Training",
        "",
        "```",
        training["command"],
        "```",
        "",
        f"- Data: {training.get('data_note', as_written(dataset)).rstrip('.')}; {rows['train']:,} {unit} to train on, "
        f"{rows['validation']:,} others to choose the checkpoint.",
        *(
            [f"- Tokenizers: one of {config.vocab_size:,} tokens reads, one of {config.decoder_vocab_size:,} writes."]
            if config.decoder_vocab_size
            else []
        ),
        f"- Seed {arguments['seed']}; {training['seconds'] / 60:.0f} minutes"
        f"{' on ' + training['machine'] if training.get('machine') else ''}; torch {training['versions']['torch']}, "
        f"transformers {training['versions']['transformers']}.",
        f"- Validation, kept checkpoint (step {validation['step']}): {figures_in_words(validation)}."
        if "loss" in validation
        else f"- Stopped at step {validation['step']}, before its first evaluation.",
        "",
    ]
    if evaluation is not None:
        # What an even load hides, where there is something to hide.
        drops = max((layer["drop_rate"] for layer in evaluation["routing"]), default=0.0)
        one_text = (
            " Over many texts it says little about one: capacity counts per text, and a layer that drops much sends "
            "most of a text's tokens to the same few experts."
            if drops > NOTABLE_DROPS
            else ""
        )
        own_rows = " (most of these rows were trained on)" if evaluation["split"] == "train" else ""
        measured = counted(evaluation["rows"], "row", "rows")
        lines += [
            "## Evaluation",
            "",
            "```",
            evaluation_command,
            "```",
            "",
            f"{evaluation['split']} split{own_rows}, {measured}: {figures_in_words(evaluation)}. "
            "The same command prints the routing:",
            "",
            "| layer | "
            + " | ".join(f"expert {expert}" for expert in range(config.num_experts))
            + " | load CV | dropped |",
            "|---" * (config.num_experts + 3) + "|",
        ]
        for layer in evaluation["routing"]:
            shares = " | ".join(f"{share:.1%}" for share in layer["load"])
            lines.append(f"| {layer['layer']} | {shares} | {layer['load_cv']:.2f} | {layer['drop_rate']:.1%} |")
        lines += [
            "",
            "Load: share of the split's tokens that chose each expert, before drops." + one_text,
            "",
        ]
        if (found := known(evaluation)) is not None:
            lines += ["## Do the experts matter?", "", *markdown(found), ""]
    lines += [
        "## Limits",
        "",
        f"{reads} Knows only the language of "
        f"its training texts{' and its own classes: any text gets one, fitting or not' if classifies else ''}. "
        f"{'What it writes may be wrong or offend: it is small, and nobody has checked it. ' if writes else ''}What an "
        'expert receives is shown exactly; what it is "for" is not claimed.',
        "",
        "## Licence",
        "",
        LICENCES.get(dataset, UNKNOWN_LICENCE)
        + (" The model it started from brings the terms of its own data." if arguments.get("init_from") else ""),
        "",
    ]
    return "\n".join(lines)
