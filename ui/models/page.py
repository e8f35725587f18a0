"""One model's page: its facts, its card, its configuration.

Try it: model_page(ModelShelf.find(), "ag_news").facts
"""

import json
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerFast

from switch_model import CheckpointError, SwitchConfig
from switch_model.adapters.model import AdaptedModel
from switch_model.commands import command
from switch_model.storage.tokenizer_io import target_of
from train.definitions import header, is_defined
from train.evaluation.reliance import known, sentences
from train.formatting import counted
from ui.catalog.kinds import CLASSIFIER
from ui.catalog.models import LoadedModel, ModelShelf, size_of
from ui.look.html import notice, render

# Names of classes that a page lists.
MAX_LABELS = 12


class ModelPage(NamedTuple):
    """Facts as HTML, the card as Markdown, the configuration as JSON."""

    facts: Any
    card: Any = ""
    config: Any = ""


def model_page(shelf: ModelShelf, key: str | None) -> ModelPage:
    """A model's page; where it can't be opened, why."""
    try:
        loaded = shelf.load(key)
    except CheckpointError as error:
        return ModelPage(notice(str(error)))
    rows = [(header(name), value) for name, value in _rows(loaded).items()]
    return ModelPage(
        render("models/facts.html", rows=rows, reliance=_reliance(loaded, shelf.evaluation(key))),
        with_headers(shelf.card(key)),
        json.dumps(_configuration(loaded), indent=2, default=str),
    )


def with_headers(card: str) -> str:
    """A card's Markdown, in whose tables the columns tell what they mean."""
    lines = card.split("\n")
    for index, line in enumerate(lines[1:]):
        if line.startswith("|---"):
            cells = (cell.strip() for cell in lines[index].split("|"))
            lines[index] = "|".join(header(cell) if is_defined(cell) else cell for cell in cells)
    return "\n".join(lines)


def _configuration(loaded: LoadedModel) -> dict[str, Any]:
    model = loaded.pipeline.model
    return (model.library if isinstance(model, AdaptedModel) else model).config.to_dict()


def _rows(loaded: LoadedModel) -> dict[str, str]:
    """Size, layers, routing, classes and tokenizer."""
    if isinstance(loaded.pipeline.model, AdaptedModel):
        return _rows_of_adapted(loaded)
    config, reader = loaded.config, loaded.pipeline.tokenizer
    writer = target_of(reader)
    capacity = f"{config.eval_capacity_factor:g} × an even share" if config.eval_capacity_factor else "no limit"
    capacity = f"{config.expert_capacity} slots" if config.expert_capacity else capacity
    by_experts = config.router == "expert_choice"
    return {
        "size": size_of(loaded.pipeline),
        "sparse layers": ", ".join(config.sparse_layers) or "none",
        "widths": f"hidden {config.d_model}, expert {config.expert_width}, {config.num_heads} heads of {config.d_kv}",
        **_router(config),
        **({} if by_experts else {"capacity in evaluation": f"{capacity}, counted per {config.capacity_group}"}),
        **_answers(loaded),
        "tokenizer": f"{_vocabulary(reader)}, reads {reader.model_max_length:,} of a text",
        **({} if writer is reader else {"target tokenizer": _vocabulary(writer)}),
    }


def _router(config: SwitchConfig) -> dict[str, str]:
    """How tokens get their experts, where it is not one each."""
    if config.router == "switch" or not config.sparse_layers:
        return {}
    chosen = (
        f"{config.num_experts_per_tok} on average, chosen by the experts"
        if config.router == "expert_choice"
        else config.num_experts_per_tok
    )
    shared = {"shared experts": str(config.num_shared_experts)} if config.num_shared_experts else {}
    return {"router": config.router, "experts for each token": str(chosen), **shared}


def _rows_of_adapted(loaded: LoadedModel) -> dict[str, str]:
    """The same of a model of transformers."""
    config, reader = loaded.config, loaded.pipeline.tokenizer
    shared = counted(len(config.shared_experts), "module") if config.shared_experts else "none"
    return {
        "size": size_of(loaded.pipeline),
        "family": f"{config.model_type}, a model of transformers",
        "sparse layers": ", ".join(config.sparse_layers),
        "experts for each token": str(config.num_choices),
        "shared experts": shared,
        **_answers(loaded),
        "tokenizer": _vocabulary(reader),
    }


def _answers(loaded: LoadedModel) -> dict[str, str]:
    """Its classes, or what else it does."""
    if loaded.kind is not CLASSIFIER:
        return {"kind": f"it {loaded.kind.does}"}
    labels = loaded.config.labels
    more = f" and {len(labels) - MAX_LABELS} more" if len(labels) > MAX_LABELS else ""
    return {"classes": ", ".join(labels[:MAX_LABELS]) + more}


def _reliance(loaded: LoadedModel, evaluation: dict[str, Any]) -> str:
    """What the model's evaluation found of how much it relies on its experts; the table stands in its card."""
    if not loaded.config.sparse_layers:
        return "This model has no experts."
    if (found := known(evaluation)) is not None:
        rows = f"{evaluation.get('dataset', 'its data')}, {evaluation.get('split', 'all rows')}"
        return " ".join([*sentences(found), f"({counted(found.rows, 'row', 'rows')} of {rows})"])
    where = "The Analyse tab measures it, and so does" if loaded.kind is CLASSIFIER else "It is measured by"
    return f"It has not been measured yet. {where} “{command('evaluate')}”."


def _vocabulary(tokenizer: PreTrainedTokenizerFast) -> str:
    return f"{type(tokenizer.backend_tokenizer.model).__name__}, {len(tokenizer):,} tokens"
