"""Grouped linear layer: E weight matrices, each applied to its own rows; and whole ReLU MLPs, for training on a CPU.

Legend: K rows grouped by expert, N rows in any order, D width in, F width out, E experts.
Try it: ReluExperts.apply([2, 1], hidden, wi, wo, 0.0)
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from switch_model.layers.dropout import dropout_


def grouped_linear(hidden_KD: Tensor, weight_EFD: Tensor, ends: Tensor) -> Tensor:
    """(K, D) rows and (E, F, D) weights -> (K, F). Expert e has the rows from ends[e - 1] to ends[e] (int32); no shape
    depends on them."""
    if torch.compiler.is_compiling() and hidden_KD.dtype != torch.bfloat16:
        # torch can compile grouped_mm for bfloat16 only.
        return _linear_each(hidden_KD, weight_EFD, ends)
    return nn.functional.grouped_mm(hidden_KD, weight_EFD.transpose(1, 2), offs=ends)


def each_expert(
    hidden_ND: Tensor, expert_N: Tensor, weights: Sequence[Tensor], compute: Callable[..., Tensor]
) -> Tensor:
    """Each expert on its own rows, in standard operators only, for exported graphs.

    Args:
        hidden_ND: (N, D) rows in any order.
        expert_N: each row's expert; -1 gives a row of zeros.
        weights: each (E, out, in).
        compute: (an expert's rows (K, D), its weights, each (in, out)) -> (K, F).

    Returns:
        (N, F).
    """
    # Split all weights at once: otherwise a runtime that pre-packs weights copies all of them once per expert.
    per_expert = zip(*(weight.flatten(0, 1).t().split(weight.shape[1], dim=1) for weight in weights), strict=True)
    rows, outputs = [], []
    for expert, own in enumerate(per_expert):
        rows.append((expert_N == expert).nonzero().flatten())
        outputs.append(compute(hidden_ND.index_select(0, rows[-1]), *own))
    output_KF = torch.cat(outputs)
    return output_KF.new_zeros(hidden_ND.shape[0], output_KF.shape[1]).index_copy(0, torch.cat(rows), output_KF)


class LinearEach(torch.autograd.Function):
    """One product per expert, written in place in forward and backward: apply(lengths, (K, D), (E, F, D)) -> (K, F).

    Plain autograd would concatenate E outputs, and stack E gradients into one the size of all experts: with 64 experts
    those copies are most of the work.
    """

    @staticmethod
    def product(hidden_KD: Tensor, weight_EFD: Tensor, lengths: list[int]) -> Tensor:
        output_KF = hidden_KD.new_empty(len(hidden_KD), weight_EFD.shape[1])
        for rows, weight_FD, output in zip(
            hidden_KD.split(lengths), weight_EFD.unbind(0), output_KF.split(lengths), strict=True
        ):
            torch.mm(rows, weight_FD.t(), out=output)
        return output_KF

    @staticmethod
    def weight_gradient(gradient_KF: Tensor, hidden_KD: Tensor, lengths: list[int]) -> Tensor:
        gradient_EFD = hidden_KD.new_empty(len(lengths), gradient_KF.shape[1], hidden_KD.shape[1])
        for rows, gradient, own in zip(
            hidden_KD.split(lengths), gradient_KF.split(lengths), gradient_EFD.unbind(0), strict=True
        ):
            torch.mm(gradient.t(), rows, out=own)
        return gradient_EFD

    @staticmethod
    def forward(ctx, lengths: list[int], hidden_KD: Tensor, weight_EFD: Tensor) -> Tensor:
        ctx.save_for_backward(hidden_KD, weight_EFD)
        ctx.lengths = lengths
        return LinearEach.product(hidden_KD, weight_EFD, lengths)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient_KF: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        hidden_KD, weight_EFD = ctx.saved_tensors
        gradient_KF = gradient_KF.contiguous()
        hidden_gradient = weight_gradient = None
        if ctx.needs_input_grad[1]:
            hidden_gradient = LinearEach.product(gradient_KF, weight_EFD.transpose(1, 2), ctx.lengths)
        if ctx.needs_input_grad[2]:
            weight_gradient = LinearEach.weight_gradient(gradient_KF, hidden_KD, ctx.lengths)
        return None, hidden_gradient, weight_gradient


class ReluExperts(torch.autograd.Function):
    """The ReLU MLPs of E experts: apply(lengths, hidden (K, D), wi (E, F, D), wo (E, D, F), dropout rate) -> (K, D).

    The inner activations, between `wi` and `wo`, are the largest tensor of a layer. Expert by expert, ReLU, dropout and
    the backward mask are applied while they are still in the CPU's cache, instead of one pass through memory for each.
    """

    @staticmethod
    def forward(ctx, lengths: list[int], hidden_KD: Tensor, wi_EFD: Tensor, wo_EDF: Tensor, rate: float) -> Tensor:
        inner_KF = hidden_KD.new_empty(len(hidden_KD), wi_EFD.shape[1])
        output_KD = torch.empty_like(hidden_KD)
        rows = (tensor.split(lengths) for tensor in (hidden_KD, inner_KF, output_KD))
        for hidden, inner, output, wi_FD, wo_DF in zip(*rows, wi_EFD.unbind(0), wo_EDF.unbind(0), strict=True):
            torch.mm(hidden, wi_FD.t(), out=inner)
            dropout_(inner.relu_(), rate)
            torch.mm(inner, wo_DF.t(), out=output)
        ctx.save_for_backward(hidden_KD, inner_KF, wi_EFD, wo_EDF)
        ctx.lengths, ctx.scale = lengths, 1 / (1 - rate)
        return output_KD

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient_KD: Tensor) -> tuple[Tensor | None, ...]:
        hidden_KD, inner_KF, wi_EFD, wo_EDF = ctx.saved_tensors
        gradient_KD = gradient_KD.contiguous()
        hidden_gradient, wi_gradient, wo_gradient = map(torch.empty_like, (hidden_KD, wi_EFD, wo_EDF))
        buffer_KF = inner_KF.new_empty(max(ctx.lengths), inner_KF.shape[1])
        rows = (tensor.split(ctx.lengths) for tensor in (hidden_KD, inner_KF, gradient_KD, hidden_gradient))
        weights = (tensor.unbind(0) for tensor in (wi_EFD, wo_EDF, wi_gradient, wo_gradient))
        for hidden, inner, gradient, to_hidden, wi_FD, wo_DF, to_wi, to_wo in zip(*rows, *weights, strict=True):
            torch.mm(gradient.t(), inner, out=to_wo)
            to_inner = torch.mm(gradient, wo_DF, out=buffer_KF[: len(gradient)])
            # The gradient is zero wherever ReLU or dropout left a zero: one mask for both.
            torch.ops.aten.threshold_backward.grad_input(to_inner, inner, 0, grad_input=to_inner)
            if ctx.scale != 1:
                to_inner.mul_(ctx.scale)
            torch.mm(to_inner.t(), hidden, out=to_wi)
            torch.mm(to_inner, wi_FD, out=to_hidden)
        return None, hidden_gradient, wi_gradient, wo_gradient, None


# LinearEach as one opaque operator: a compiler can't trace a loop whose lengths depend on the routing.


def _lengths(ends: Tensor) -> list[int]:
    return ends.diff(prepend=ends.new_zeros(1)).tolist()


@torch.library.custom_op("switch_model::linear_each", mutates_args=())
def _linear_each(hidden: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    return LinearEach.product(hidden.contiguous(), weight, _lengths(ends))


@_linear_each.register_fake
def _(hidden, weight, ends):
    return hidden.new_empty(hidden.shape[0], weight.shape[1])


@torch.library.custom_op("switch_model::linear_each_backward", mutates_args=())
def _linear_each_backward(gradient: Tensor, hidden: Tensor, weight: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    lengths, gradient = _lengths(ends), gradient.contiguous()
    hidden_gradient = LinearEach.product(gradient, weight.transpose(1, 2), lengths)
    return hidden_gradient, LinearEach.weight_gradient(gradient, hidden.contiguous(), lengths)


@_linear_each_backward.register_fake
def _(gradient, hidden, weight, ends):
    return torch.empty_like(hidden), torch.empty_like(weight)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, gradient):
    hidden_gradient, weight_gradient = _linear_each_backward(gradient, *ctx.saved_tensors)
    return hidden_gradient, weight_gradient, None


_linear_each.register_autograd(_backward, setup_context=_save)
