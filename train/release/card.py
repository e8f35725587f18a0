"""The model card of a checkpoint (model_card.md.jinja): every metric with the command that prints it."""

import re
from typing import Any

from switch_model.config import SwitchConfig
from train.arguments.groups import DEFAULT_TASK
from train.evaluation.reliance import known, markdown
from train.formatting import counted, listed, one_line, percent
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


# Drop rate from which the card has a remark.
NOTABLE_DROPS = 0.01
# Of a layer of 8 experts, each of which would take 12.5 % of the tokens.
NOTABLE_LOAD = 0.02


def metrics_in_words(metrics: dict[str, Any]) -> str:
    """An evaluation's main metrics as text."""
    words = {
        "bleu": "BLEU **{:.1f}**",
        "chrf": "chrF {:.1f}",
        "rouge1": "ROUGE-1 {:.1f}",
        "rouge2": "ROUGE-2 {:.1f}",
        "rougeL": "ROUGE-L {:.1f}",
        "perplexity": "perplexity **{:.2f}** per token",
        "bits_per_character": "{:.3f} bits per character",
        "accuracy": "accuracy **{}**",
        "macro_f1": "macro-F1 {}",
        "loss": "loss {:.4f}",
    }
    shown = metrics | {name: percent(metrics[name]) for name in ("accuracy", "macro_f1") if name in metrics}
    said = [text.format(shown[name]) for name, text in words.items() if name in metrics]
    if "hidden_share" in metrics:
        said.append(f"{percent(metrics['hidden_share'])} of the tokens masked")
    return ", ".join(said) + (f" ({metrics['bleu_signature']})" if "bleu_signature" in metrics else "")


def _licence(arguments: dict[str, Any]) -> str:
    """The hub's licence name: "other" if the data, or those of the initial model, may have other terms."""
    if arguments["dataset"] not in LICENCES or arguments.get("init_from"):
        return "other"
    return "cc-by-nc-sa-4.0" if arguments["dataset"] == "en_hi" else "apache-2.0"


def as_written(text: str) -> str:
    """A name escaped for Markdown, in one line."""
    return re.sub(r"[\\`*\[\]<>|~$&]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", one_line(text))


def with_own_licence(card: str) -> str:
    """A card of an earlier version, with "license: other" if the data's licence is unknown."""
    head, rule, rest = card.partition("\n---\n")
    unknown = f"## Licence\n\n{UNKNOWN_LICENCE}" in rest
    return head.replace("\nlicense: apache-2.0", "\nlicense: other") + rule + rest if unknown else card


def next_to_idle(evaluation: dict[str, Any] | None) -> list[str]:
    """The experts that took less than NOTABLE_LOAD of the evaluated tokens, such as "5 of encoder.1"."""
    layers = [] if evaluation is None else evaluation["routing"]
    return [
        f"{expert} of {layer['layer']}"
        for layer in layers
        for expert, share in enumerate(layer["load"])
        if share < NOTABLE_LOAD
    ]


def router_in_words(config: SwitchConfig) -> str:
    """A model by how its tokens get their experts: "top-1 mixture of experts"."""
    if config.router == "switch":
        return "top-1 mixture of experts"
    number, shared = config.num_experts_per_tok, config.num_shared_experts
    words = {
        "topk": f"top-{number} mixture of experts",
        "sigmoid_bias": f"top-{number} mixture of experts (chosen by sigmoids and a bias)",
        "expert_choice": f"mixture of experts that choose their tokens, {number} for each on average,",
    }[config.router]
    return f"{words} with {counted(shared, 'shared expert')}" if shared else words


def model_card(
    config: SwitchConfig,
    training: dict[str, Any],
    parameters: tuple[int, int],
    evaluation: dict[str, Any] | None = None,
    evaluation_command: str | None = None,
) -> str:
    """The card as Markdown.

    Args:
        training: training.json.
        parameters: (all, active per token).
        evaluation, evaluation_command: output of `python -m train evaluate` on the test split, and that command.
    """
    from train.tasks.registry import TASKS  # Slow to import, and every command imports this file.

    arguments = training["arguments"]
    return render(
        "release/model_card.md.jinja",
        config=config,
        router_in_words=router_in_words(config),
        task=TASKS[arguments.get("task", DEFAULT_TASK)],
        arguments=arguments,
        training=training,
        parameters=parameters,
        evaluation=evaluation,
        evaluation_command=evaluation_command,
        licence=_licence(arguments),
        terms=LICENCES.get(arguments["dataset"], UNKNOWN_LICENCE),
        # A balanced load over many texts can hide drops within texts.
        drops_much=evaluation is not None
        and max((layer["drop_rate"] for layer in evaluation["routing"]), default=0.0) > NOTABLE_DROPS,
        idle=listed(next_to_idle(evaluation)),
        notable_load=NOTABLE_LOAD,
        reliance=None if (found := known(evaluation)) is None else markdown(found),
        classes=[as_written(label) for label in config.labels],
        blocks=sum(map(config.depth, config.stacks)),
        data_note=training.get("data_note", as_written(arguments["dataset"])).rstrip("."),
        as_written=as_written,
        counted=counted,
        percent=percent,
        metrics_in_words=metrics_in_words,
    )
