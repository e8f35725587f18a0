"""Matrices of a model in 8 bits by torchao, whose products quantize their inputs token by token; saved, opened again.

Legend: N = B·T tokens, D d_model.
torchao quantizes linear layers. It can hold stacked experts in 8 bits, but has none of the products that they are used
in here: so each expert becomes linear layers of its own. Embedding tables are in 8 bits too, row by row; torchao's
look-up would restore the whole table, so that the rows are taken first here. In float32 stay routers (a rounded score
sends a token elsewhere), the few biases of relative positions, norms and biases.
Try it: quantize(model), save(model, folder) beside config.json and tokenizer, open_quantized(folder)("Oil prices")
"""

from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from switch_model.checkpoint import CheckpointError, read_config
from switch_model.commands import command
from switch_model.inference.factory import PIPELINES, Pipeline
from switch_model.layers.attention import RelativePositionBias
from switch_model.layers.experts import Experts
from switch_model.layers.router import RouterLinear
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.routing import Routing
from switch_model.storage.tokenizer_io import TARGET, read_tokenizer, with_target

FORMAT, WEIGHTS = "torchao-int8", "model-int8.safetensors"
# Before every name in the file: torchao reads no name without a dot, such as that of a masked model's bias.
PREFIX = "model."


class LinearExperts(nn.Module):
    """The experts of one layer as linear layers of their own, for inference."""

    def __init__(self, experts: Experts):
        super().__init__()
        self.activation, self.gated = experts.activation, experts.gated
        # One list of experts for each of the stacked weights, in their order.
        self.layers = nn.ModuleList(nn.ModuleList(map(_linear, weight.unbind(0))) for weight in experts.weights)

    def forward(self, hidden: Tensor, routing: Routing, positions: object) -> Tensor:
        """As `Experts.forward`."""
        hidden_ND = hidden.flatten(0, 1)
        output_ND = torch.zeros_like(hidden_ND)
        expert_N = torch.where(routing.kept, routing.expert, -1).flatten()
        for expert in expert_N.unique().tolist():
            if expert < 0:
                continue
            own_N = (expert_N == expert).nonzero().squeeze(-1)
            output_ND[own_N] = self._one(expert, hidden_ND[own_N])
        return output_ND

    def _one(self, expert: int, own: Tensor) -> Tensor:
        *inner, outer = (cast(nn.ModuleList, layers)[expert] for layers in self.layers)
        inside = self.activation(inner[0](own))
        return outer(inside * inner[1](own) if self.gated else inside)


def _linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    return layer


class Rows(nn.Embedding):
    """An embedding table in 8 bits that restores the rows it looks up, and not the whole table."""

    def forward(self, input: Tensor) -> Tensor:
        rows = cast(Any, self.weight[input.flatten()])
        return rows.dequantize().unflatten(0, input.shape)


def prepare(model: SwitchPreTrainedModel) -> None:
    """Unstack the experts of every layer, and let tables restore rows alone, in place."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Experts):
                setattr(module, name, LinearExperts(child))
            elif isinstance(child, nn.Embedding) and not isinstance(module, RelativePositionBias):
                setattr(module, name, Rows.from_pretrained(child.weight.detach()))


def quantize(model: SwitchPreTrainedModel) -> list[str]:
    """Quantize a model in place; returns the names of the matrices that stay in float32."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_

    prepare(model.eval())
    quantize_(model, Int8DynamicActivationInt8WeightConfig(), filter_fn=_is_product)
    quantize_(model, Int8WeightOnlyConfig(), filter_fn=lambda module, name: isinstance(module, Rows))
    whole = (name for name, weight in model.named_parameters() if type(weight) is nn.Parameter and weight.dim() > 1)
    return [name.removesuffix(".weight") for name in whole]


def _is_product(module: nn.Module, name: str) -> bool:
    return isinstance(module, nn.Linear) and not isinstance(module, RouterLinear)


def save(model: SwitchPreTrainedModel, folder: Path) -> Path:
    """Write a quantized model's weights beside its config.json and tokenizer."""
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict

    tensors, metadata = flatten_tensor_state_dict(model.state_dict(prefix=PREFIX))
    path = folder / WEIGHTS
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    return path


def open_quantized(folder: str | Path) -> Pipeline:
    """The pipeline of an exported folder. Raises CheckpointError where its files or torchao are missing."""
    folder = Path(folder)
    try:
        from torchao.prototype.safetensors.safetensors_support import unflatten_tensor_state_dict
    except ImportError as error:
        raise CheckpointError("Models in 8 bits need torchao: pip install torchao") from error
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(
            f"There is no {WEIGHTS} in {folder.name}: {command('export')} --format {FORMAT} writes it."
        )
    config, model_class = read_config(folder / "config.json")
    with torch.device("meta"):
        model = model_class(config)
        prepare(model)
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        names, metadata = file.keys(), file.metadata()
        state, left = unflatten_tensor_state_dict({name: file.get_tensor(name) for name in names}, metadata)
    found = {name.removeprefix(PREFIX): tensor for name, tensor in {**state, **left}.items()}
    model.load_state_dict(found, strict=True, assign=True)
    tokenizer = read_tokenizer(folder, config.vocab_size, config.pad_token_id)
    if config.decoder_vocab_size is not None:
        with_target(tokenizer, read_tokenizer(folder, config.decoder_vocab_size, config.pad_token_id, TARGET))
    return PIPELINES[model_class](model.eval(), tokenizer)
