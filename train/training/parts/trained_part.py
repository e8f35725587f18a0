"""--train_only, --freeze_router, --lora_rank: which of a model's weights a run trains.

Fine-tuning may leave out the routers, so that tokens keep their experts, or train nothing else; or train only the
experts that the data use most (Expert-Specialized Fine-Tuning, 2407.01906: the fewest that take a given share of a
layer's tokens). Weights that are new in a model made from another (a head, the routers of --upcycle) are always
trained.

Legend: E experts.
Try it: python -m train --init_from assets/models/ag_news --dataset mini_news --train_only hot_experts
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from switch_model.analysis.statistics import RoutingTotals
from switch_model.layers.experts import Experts
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.storage.whole_files import write_atomically
from train.arguments.groups import TrainArguments
from train.formatting import counted
from train.training.parts.lora import add_adapters, check_lora

# Rows on which the experts' loads are counted.
COUNTED_ROWS, ROWS_AT_ONCE = 1024, 32
HOT = "hot_experts"
# Of a batch, what a model takes.
_INPUTS = ("input_ids", "attention_mask", "labels", "decoder_input_ids")


@dataclass(frozen=True)
class TrainedPart:
    """What a run trains, as it is kept in the run's folder: a resumed run must train the same.

    Attributes:
        new: names of weights that the initial model did not have.
        experts: by sparse layer, the experts that are trained; empty = all or none of them.
    """

    new: list[str] = field(default_factory=list)
    experts: dict[str, list[int]] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        write_atomically(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> "TrainedPart":
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def trains_all(settings: TrainArguments) -> bool:
    """Whether nothing is frozen."""
    return settings.train_only == "all" and not settings.freeze_router and not settings.lora_rank


def check_part(model: SwitchPreTrainedModel, settings: TrainArguments, new: Sequence[str]) -> None:
    """Raise ValueError where a model has not the part that is to be trained."""
    if settings.train_only != "all" and not any(isinstance(module, Experts) for module in model.modules()):
        raise ValueError(f"--train_only {settings.train_only} is not possible: the MLPs of this model have no experts.")
    check_lora(model, settings, new)


def trained_part(
    path: Path, settings: TrainArguments, model: SwitchPreTrainedModel, new: Sequence[str], rows: Any, collate: Callable
) -> TrainedPart:
    """What the run trains: as its file says, or decided now and kept there.

    Args:
        path: the file.
        new: names of weights that are new in the model.
        rows, collate: training rows and their collator, for the experts' loads.
    """
    if path.exists():
        return TrainedPart.read(path)
    hot = hot_experts(model, rows, collate, settings.hot_share) if settings.train_only == HOT else {}
    part = TrainedPart(list(new), hot)
    part.save(path)
    return part


@torch.inference_mode()
def hot_experts(model: SwitchPreTrainedModel, rows: Any, collate: Callable, share: float) -> dict[str, list[int]]:
    """By sparse layer, the fewest experts that take at least `share` of its tokens, over evenly spaced rows."""
    chosen = [rows[index] for index in range(0, len(rows), max(len(rows) // COUNTED_ROWS, 1))][:COUNTED_ROWS]
    totals, was_training = RoutingTotals(), model.training
    model.eval()
    for begin in range(0, len(chosen), ROWS_AT_ONCE):
        inputs = collate(chosen[begin : begin + ROWS_AT_ONCE])
        inputs = {name: tensor.to(model.device) for name, tensor in inputs.items() if name in _INPUTS}
        totals.add(model(**inputs, output_routing=True).routing or ())
    model.train(was_training)
    loads = {layer["layer"]: torch.tensor(layer["load"]) for layer in totals.summary()}
    return {name: _fewest(load_E, share) for name, load_E in loads.items() if not name.endswith(".attention")}


def _fewest(load_E: Tensor, share: float) -> list[int]:
    order = load_E.argsort(descending=True, stable=True)
    before = load_E[order].cumsum(0) - load_E[order]
    return sorted(order[before < share - 1e-9].tolist())


def choose(model: SwitchPreTrainedModel, settings: TrainArguments, part: TrainedPart) -> str:
    """Leave out of training what the settings leave out, with LoRA all but its adapters; returns what is trained, for
    the log."""
    if settings.lora_rank:
        return add_adapters(model, settings, part.new)
    _freeze(model, settings, part)
    return _part_in_words(model, part)


def _freeze(model: SwitchPreTrainedModel, settings: TrainArguments, part: TrainedPart) -> None:
    """Leave out of training what the settings leave out."""
    layers = {id(module): name for name, module in model.named_modules() if isinstance(module, Experts)}
    owners = {
        id(weight): module for module in model.modules() if isinstance(module, Experts) for weight in module.weights
    }
    for name, weight in model.named_parameters():
        is_router, experts = ".router." in name, owners.get(id(weight))
        kinds = {"all": True, "router": is_router, "experts": experts is not None, HOT: experts is not None}
        trained = (kinds[settings.train_only] or name in part.new) and not (settings.freeze_router and is_router)
        weight.requires_grad_(trained)
        if trained and experts is not None and part.experts and name not in part.new:
            _train_rows(weight, part.experts[_record_name(layers[id(experts)])])


def _record_name(module: str) -> str:
    """encoder.blocks.0.mlp.experts -> encoder.0, as in Routing.name."""
    stack, _, layer, *_ = module.split(".")
    return f"{stack}.{layer}"


def _train_rows(weight_EXX: torch.nn.Parameter, experts: Sequence[int]) -> None:
    """Let gradients reach the weights of some experts alone: without one, and without decay, an optimizer changes
    nothing."""
    mask = torch.zeros(len(weight_EXX), 1, 1, dtype=torch.bool)
    mask[list(experts)] = True
    weight_EXX.register_hook(lambda gradient: gradient * mask.to(gradient.device))


def _part_in_words(model: SwitchPreTrainedModel, part: TrainedPart) -> str:
    """How much of the model is trained, for the log."""
    total = sum(weight.numel() for weight in model.parameters())
    trained = 0
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        layer = _record_name(name) if ".mlp.experts." in name and name not in part.new else None
        rows = len(part.experts[layer]) / len(weight) if layer in part.experts else 1.0
        trained += round(weight.numel() * rows)
    words = f"Trains {trained:,} of {total:,} parameters."
    if part.experts:
        each = ", ".join(f"{name}: {' '.join(map(str, experts))}" for name, experts in part.experts.items())
        words += f" Experts of {counted(len(part.experts), 'layer')} (most tokens): {each}."
    return words
