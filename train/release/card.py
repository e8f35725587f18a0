"""The model card of a checkpoint (model_card.md.jinja): every metric beside the command that prints it."""

import re
from typing import Any

from switch_model.config import SwitchConfig
from train.arguments.groups import DEFAULT_TASK
from train.evaluation.reliance import known, markdown
from train.formatting import counted, one_line
from train.templates import render

LICENCES = {
    "ag_news": "Apache-2.0 for these weights. The AG corpus behind them is for research and non-commercial use.",
    "sst2": "Apache-2.0 for these weights. The data follows the terms of SST and GLUE.",
    "tiny_stories": "Apache-2.0 for these weights. TinyStories is under CDLA-Sharing-1.0.",
    "en_hi": "CC BY-NC-SA 4.0, as the captions of Hindi Visual Genome behind these weights; the other sentences are "
    "Tatoeba's (CC BY 2.0 FR) and Wikipedia's (CC BY-SA 3.0).",
    **dict.fromkeys(("toy", "mini_news", "mini_reviews"), "Apache-2.0 for these weights. The texts were invented."),
    "imdb": "Apache-2.0 for these weights. The IMDB reviews are for research use; cite Maas et al., 2011.",
}
UNKNOWN_LICENCE = "That of the data it was trained on."


# A share of dropped tokens that a reader should know about.
NOTABLE_DROPS = 0.01


def metrics_in_words(metrics: dict[str, Any]) -> str:
    """The metrics of an evaluation that say how good a model is."""
    words = {
        "bleu": "BLEU **{:.1f}**",
        "chrf": "chrF {:.1f}",
        "perplexity": "perplexity **{:.2f}** per token",
        "bits_per_character": "{:.3f} bits per character",
        "accuracy": "accuracy **{:.2%}**",
        "macro_f1": "macro-F1 {:.2%}",
        "loss": "loss {:.4f}",
    }
    said = [text.format(metrics[name]) for name, text in words.items() if name in metrics]
    if "hidden_share" in metrics:
        said.append(f"{metrics['hidden_share']:.0%} of the tokens hidden")
    return ", ".join(said) + (f" ({metrics['bleu_signature']})" if "bleu_signature" in metrics else "")


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
    from train.tasks.registry import TASKS  # Slow to import, and every command imports this file.

    arguments = training["arguments"]
    return render(
        "release/model_card.md.jinja",
        config=config,
        task=TASKS[arguments.get("task", DEFAULT_TASK)],
        arguments=arguments,
        training=training,
        parameters=parameters,
        evaluation=evaluation,
        evaluation_command=evaluation_command,
        licence=_licence(arguments),
        terms=LICENCES.get(arguments["dataset"], UNKNOWN_LICENCE),
        # What an even load hides, where there is something to hide.
        drops_much=evaluation is not None
        and max((layer["drop_rate"] for layer in evaluation["routing"]), default=0.0) > NOTABLE_DROPS,
        reliance=None if (found := known(evaluation)) is None else markdown(found),
        classes=[as_written(label) for label in config.labels],
        blocks=sum(map(config.depth, config.stacks)),
        data_note=training.get("data_note", as_written(arguments["dataset"])).rstrip("."),
        as_written=as_written,
        counted=counted,
        metrics_in_words=metrics_in_words,
    )
