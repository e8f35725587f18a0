"""The ReLU MLPs of E experts, one expert after the other, forward and backward: for training on a CPU.

The inner activations, between `wi` and `wo`, are the largest tensor of a layer. Expert by expert, ReLU, dropout and the
backward mask are applied while they are still in the CPU's cache, instead of one pass through memory for each.
Legend: K rows grouped by expert, D d_model, F d_ff, E experts. Try it: ReluExperts.apply([2, 1], hidden, wi, wo, 0.0)
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from switch_model.layers.dropout import dropout_


class ReluExperts(torch.autograd.Function):
    """apply(lengths, hidden (K, D), wi (E, F, D), wo (E, D, F), dropout rate) -> (K, D)."""

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
