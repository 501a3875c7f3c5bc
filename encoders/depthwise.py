"""Convolutions of each channel alone, which train faster on a CPU than PyTorch's.

Shapes: N images, C channels, h x w cells of a feature map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DepthwiseConv(nn.Conv2d):
    """A convolution of each channel alone. On a CPU, its gradients use the fastest number format."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            return _Depthwise.apply(x.to(dtype), self.weight.to(dtype), self.stride, self.padding)
        return super().forward(x)


class _Depthwise(torch.autograd.Function):
    """oneDNN computes two of the gradients 3 to 30 times slower in bfloat16 than in float32."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        slow = (ctx.stride[0] > 1, weight.shape[-1] > 3)  # gradients of the input and of the kernels

        def take(mask: tuple[bool, bool]) -> tuple[Tensor, Tensor]:
            """The masked gradients, in float32 where bfloat16 is slow."""
            dtype = torch.float32 if any(m and s for m, s in zip(mask, slow)) else x.dtype
            parts = (values.to(dtype) for values in (grad, x, weight))
            shape = (None, ctx.stride, ctx.padding, (1, 1), False, (0, 0), len(weight))
            return torch.ops.aten.convolution_backward(*parts, *shape, (*mask, False))[:2]

        return take((True, False))[0].to(x.dtype), take((False, True))[1].to(weight.dtype), None, None


def use_in(network: nn.Module) -> None:
    """Make the convolutions of each channel alone that a network has (without bias) `DepthwiseConv`s."""
    for conv in network.modules():
        if type(conv) is nn.Conv2d and conv.groups == conv.in_channels == conv.out_channels and conv.bias is None:
            conv.__class__ = DepthwiseConv  # it has the same attributes
