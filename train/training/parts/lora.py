"""--lora_rank: low-rank adapters beside frozen weights (LoRA, 2106.09685), by peft.

An adapted weight W counts as W + alpha / rank · B A. A starts at random and B at zero, so that the first predictions
are the initial model's. peft's layers are in the model only while it is trained: whatever is kept or written is merged,
an ordinary model. Beside a checkpoint's merged weights lies what merging loses, so that a resumed run goes on exactly.

Try it: python -m train --init_from assets/models/ag_news --dataset mini_news --lora_rank 8
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from switch_model.layers.attention import Attention
from switch_model.layers.dense_mlp import DenseMLP
from switch_model.layers.experts import Experts
from switch_model.layers.sparse_attention import AttentionModules, ProjectionExperts
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.storage.whole_files import folder_written_aside
from train.arguments.groups import TrainArguments
from train.runs.trainer_files import ADAPTERS_FILE

# What peft adds to the names of weights: its own, and those that they are beside.
_ADAPTER, _BASE, _NAME = ".lora_", ".base_layer", "default"
# A classifier's head. Its classes may mean something else now, so it is trained even where its shape is the same.
_HEAD = ("classifier.", "hidden_layer.", "token_scores.")
# In a checkpoint: the model's weights, and their average's.
_OF_MODEL, _OF_AVERAGE = "model.", "average."


@dataclass
class Targets:
    """What gets adapters: linear layers, and stacked weights of experts, by name."""

    modules: list[str] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, model: SwitchPreTrainedModel, on: str, new: Sequence[str]) -> "Targets":
        """Those of attention, of experts (shared ones too) or of both; not what is `new`, which is trained whole."""
        found = cls()
        for path, module in model.named_modules():
            in_attention = isinstance(module, (Attention, ProjectionExperts, AttentionModules))
            in_experts = isinstance(module, Experts) or (
                isinstance(module, DenseMLP) and path.endswith(".shared_experts")
            )
            if not (in_attention and on != "experts") and not (in_experts and on != "attention"):
                continue
            found.parameters += [f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)]
            found.modules += [f"{path}.{name}" for name, part in module.named_children() if isinstance(part, nn.Linear)]
        found.modules = [name for name in found.modules if f"{name}.weight" not in new]
        found.parameters = [name for name in found.parameters if name not in new]
        return found


def check_lora(model: SwitchPreTrainedModel, settings: TrainArguments, new: Sequence[str]) -> None:
    """Raise ValueError where a model has nothing to adapt."""
    if settings.lora_rank:
        targets = Targets.of(model, settings.lora_on, new)
        if not targets.modules and not targets.parameters:
            raise ValueError(
                f"--lora_on {settings.lora_on} is not possible: the MLPs of this model have no experts. Take --lora_on "
                "attention."
            )


def add_adapters(model: SwitchPreTrainedModel, settings: TrainArguments, new: Sequence[str]) -> str:
    """Put adapters into a model, and leave all but them, a classifier's head and `new` weights out of training; returns
    what is trained, in words."""
    from peft import LoraConfig, inject_adapter_in_model

    total = sum(weight.numel() for weight in model.parameters())
    targets = Targets.of(model, settings.lora_on, new)
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=_alpha(settings),
        target_modules=targets.modules,
        target_parameters=targets.parameters or None,
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(settings.seed)  # The same in every process, whatever each has drawn so far.
        warnings.simplefilter("ignore")
        inject_adapter_in_model(config, model)
    adapters = others = 0
    for name, weight in model.named_parameters():
        is_other = name in new or name.startswith(_HEAD)
        weight.requires_grad_(_ADAPTER in name or is_other)
        adapters += weight.numel() if _ADAPTER in name else 0
        others += weight.numel() if is_other else 0
    names = targets.modules + targets.parameters
    where = [what for what, inside in (("attention", "attention."), ("experts", "experts.")) if _any(inside, names)]
    rest = f" and {others:,} of the head and new weights" if others else ""
    return (
        f"LoRA of rank {settings.lora_rank} on {' and '.join(where)}: trains {adapters:,} parameters of "
        f"adapters{rest}; the model has {total:,} ({(adapters + others) / total:.1%}). Routers "
        f"{'that are not new stay' if _any('.router.', new) else 'stay'} as they are."
    )


def _any(part: str, names: Sequence[str]) -> bool:
    return any(part in name for name in names)


def _alpha(settings: TrainArguments) -> float:
    return 2.0 * settings.lora_rank if settings.lora_alpha is None else settings.lora_alpha


# Merged


def has_adapters(model: nn.Module) -> bool:
    """Whether there are adapters in a model."""
    return any(_ADAPTER in name for name, _ in model.named_parameters())


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of the ordinary model: adapters added to the weights that they are beside."""
    state = model.state_dict()
    if not any(_ADAPTER in name for name in state):
        return state
    from peft.tuners.lora import LoraLayer

    merged = {_plain(name): tensor for name, tensor in state.items() if _ADAPTER not in name}
    for path, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            name = f"{_plain(path)}.{getattr(layer, 'parameter_name', 'weight')}"
            merged[name] = merged[name] + layer.get_delta_weight(_NAME)
    return merged


def merged_model(model: SwitchPreTrainedModel) -> SwitchPreTrainedModel:
    """The ordinary model; the model itself where it has no adapters."""
    if not has_adapters(model):
        return model
    with torch.device("meta"):
        whole = type(model)(model.config)
    whole.load_state_dict(merged_state(model), strict=True, assign=True)
    return whole.eval()


def _plain(name: str) -> str:
    return name.replace(_BASE, "")


# In a checkpoint


def save_adapters(folder: Path, model: nn.Module, average: AveragedModel | None) -> None:
    """Write what a checkpoint's merged weights do not have: adapters, and the weights that they are beside."""
    kept = {_OF_MODEL + name: tensor for name, tensor in _unmerged(model).items()}
    if average is not None:  # It has the same weights beside its adapters.
        adapters = {name: tensor for name, tensor in _unmerged(average.module).items() if _ADAPTER in name}
        kept |= {_OF_AVERAGE + name: tensor for name, tensor in adapters.items()}
    save_file({name: tensor.contiguous() for name, tensor in kept.items()}, folder / ADAPTERS_FILE)


def load_adapters(folder: Path, model: nn.Module, average: AveragedModel | None) -> None:
    """Load what `save_adapters` wrote."""
    kept = load_file(folder / ADAPTERS_FILE)
    model.load_state_dict(_of(kept, _OF_MODEL), strict=False)
    if average is not None:
        average.module.load_state_dict(_of(kept, _OF_MODEL) | _of(kept, _OF_AVERAGE), strict=False)


def _unmerged(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if _ADAPTER in name or _BASE in name}


def _of(kept: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in kept.items() if name.startswith(prefix)}


# For peft


def write_adapter(folder: Path, model: SwitchPreTrainedModel, base: str) -> None:
    """Write the adapters of a model, and what else is trained, as peft loads them beside the initial model.

    Args:
        base: what the initial model is called.
    """
    adapters: Any = model.peft_config[_NAME]
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    whole = sorted({name.rpartition(".")[0] for name in trained if _ADAPTER not in name})
    # peft takes these for ends of names, and wants the weights of all that end so: a router has a "classifier" too.
    weights = {
        f"base_model.model.{name.replace(f'.{_NAME}.', '.')}": weight.detach().cpu().contiguous()
        for name, weight in model.named_parameters()
        if _ADAPTER in name or name.rpartition(".")[0].endswith(tuple(whole))
    }
    config = type(adapters)(**{**adapters.to_dict(), "modules_to_save": whole or None})
    config.base_model_name_or_path, config.inference_mode = base, True
    with folder_written_aside(folder) as aside:
        config.save_pretrained(str(aside))
        save_file(weights, aside / "adapter_model.safetensors")
