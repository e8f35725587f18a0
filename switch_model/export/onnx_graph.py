"""A classifier or masked model -> an ONNX file for any number of texts of any length, checked against the model.

Legend: B texts, T tokens.
Try it: write_onnx(load_checkpoint("assets/models/ag_news", "cpu")[0], Path("model.onnx"))
"""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from switch_model.models.masked_lm import SwitchForMaskedLM
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.models.sequence_classification import SwitchForSequenceClassification

INPUTS = ("input_ids", "attention_mask")
# What one forward pass of the encoder answers completely.
EXPORTABLE = (SwitchForSequenceClassification, SwitchForMaskedLM)
# Largest difference of logits from the model's, relative where logits exceed 1.
TOLERANCE = 1e-4
# Weights of a file above this size (protobuf's limit is 2 GiB) are written beside it, as model.onnx.data.
ONE_FILE = 1_500_000_000
# (texts, tokens) of the batches that the file is checked with.
CHECKED = ((1, 1), (1, 2), (3, 9), (4, 32), (1, 64), (2, 128))


@dataclass(frozen=True)
class Agreement:
    """A graph's outputs beside the model's.

    Attributes:
        batches: number of batches compared.
        difference: largest difference of two logits.
        choices: number of experts chosen by the model for real tokens; 0 for a graph without routing.
        others: how many of them the graph chose otherwise.
    """

    batches: int
    difference: float
    choices: int
    others: int


class _Outputs(nn.Module):
    """The model with tensors in and a tuple of tensors out."""

    def __init__(self, model: SwitchPreTrainedModel, with_routing: bool):
        super().__init__()
        self.model, self.with_routing = model, with_routing

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        output = self.model(input_ids, attention_mask, output_routing=self.with_routing)
        if not self.with_routing:
            return (output.logits,)
        return output.logits, *(tensor for record in output.routing for tensor in (record.expert, record.gate))


def output_names(model: SwitchPreTrainedModel, with_routing: bool) -> list[str]:
    """`logits`, then `<layer>.expert` and `<layer>.gate` of each sparse layer, with its name in the records."""
    if not with_routing:
        return ["logits"]
    with torch.no_grad():
        records = model(_ids(model, 1, 1), output_routing=True).routing
    return ["logits", *(f"{record.name}.{what}" for record in records for what in ("expert", "gate"))]


def write_onnx(model: SwitchPreTrainedModel, path: Path, with_routing: bool = False) -> None:
    """Write the model in evaluation mode, on the CPU, as an ONNX file; both its inputs are (B, T) int64.

    Args:
        with_routing: also give the expert chosen for each token and its gate, (B, T) each, for each sparse layer; a
            model's CLS token comes first. At padding they mean nothing.
    """
    outputs = _Outputs(model.eval(), with_routing)
    # At least two texts of two tokens: torch takes a 1 for a constant.
    ids = _ids(model, 2, 5)
    anything = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    with torch.no_grad(), _quiet():
        program = torch.export.export(outputs, (ids, torch.ones_like(ids)), dynamic_shapes=(anything, anything))
        torch.onnx.export(
            program,
            f=path,
            dynamo=True,
            verbose=False,
            input_names=list(INPUTS),
            output_names=output_names(model, with_routing),
            external_data=size > ONE_FILE,
        )
    _tidy(path)


def _tidy(path: Path) -> None:
    """Name the dimensions, and remove the notes of torch's exporter: they name folders of this machine."""
    import onnx

    file = onnx.load(path, load_external_data=False)
    graph = file.graph
    for noted in (file, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del noted.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
    del graph.value_info[:]  # Shapes in between, which a runtime infers.
    own = [size.dim_param for size in graph.input[0].type.tensor_type.shape.dim]
    for value in (*graph.input, *graph.output):
        for size in value.type.tensor_type.shape.dim:
            for name, readable in zip(own, ("texts", "tokens"), strict=True):
                size.dim_param = re.sub(rf"\b{name}\b", readable, size.dim_param) if size.dim_param else ""
    path.write_bytes(file.SerializeToString())


@torch.no_grad()
def compare(
    model: SwitchPreTrainedModel, path: Path, with_routing: bool = False, tolerance: float | None = TOLERANCE
) -> Agreement:
    """Run an ONNX file and its model on random ids, padded on either side. Raises ValueError where their logits differ
    by more than the tolerance; None = they may."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = _Outputs(model.eval(), with_routing)
    batches, difference, choices, others = 0, 0.0, 0, 0
    longest = _longest(model)
    for texts, length in CHECKED:
        for side in ("left", "right"):
            ids, mask = _padded(model, texts, min(length, longest), side)
            expected = outputs(ids, mask)
            found = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
            logits = torch.from_numpy(found[0])
            apart = (logits - expected[0]).abs()
            # A text without a token has no logits that mean something; here each has one.
            if tolerance is not None and not (apart <= tolerance * expected[0].abs().clamp(min=1)).all():
                raise ValueError(
                    f"The ONNX file's logits differ from the model's by {apart.max():.1g} ({texts} texts of "
                    f"{ids.shape[1]} tokens): nothing was written."
                )
            batches, difference = batches + 1, max(difference, float(apart.max()))
            for one, other in zip(expected[1::2], found[1::2], strict=True):
                real = mask.bool()
                if one.shape[1] > real.shape[1]:  # The model's CLS token.
                    real = torch.cat([torch.ones_like(real[:, :1]), real], dim=1)
                choices += int(real.sum())
                others += int((one != torch.from_numpy(other))[real].sum())
    return Agreement(batches, difference, choices, others)


def _longest(model: SwitchPreTrainedModel) -> int:
    config, longest = model.config, max(length for _, length in CHECKED)
    return min(longest, config.max_positions - int(config.cls_token)) if config.position == "learned" else longest


def _ids(model: SwitchPreTrainedModel, texts: int, length: int) -> Tensor:
    return torch.randint(model.config.vocab_size, (texts, length), generator=torch.Generator().manual_seed(length))


def _padded(model: SwitchPreTrainedModel, texts: int, length: int, side: str) -> tuple[Tensor, Tensor]:
    """Ids and mask; every text with more padding than the one before."""
    places, gaps = torch.arange(length), (torch.arange(texts) * 3 % length).unsqueeze(1)
    mask = (places >= gaps) if side == "left" else (places < length - gaps)
    ids = _ids(model, texts, length)
    return torch.where(mask, ids, model.config.pad_token_id), mask.long()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's own remarks on a package that it does not need here (torchvision) and on its old names."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
