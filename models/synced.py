"""Batch normalisation over all ranks, on CPUs too, where torch has none: a step is that of the whole batch."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.plugins import LayerSync
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SyncedBatchNorm(LayerSync):
    """Lets Lightning put `_Synced` in the place of batch normalisation for the time of a training."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Change the layers of a model in place; weights and statistics stay the same tensors."""
        return _changed(model, _BatchNorm, lambda layer: _Synced(layer))

    def revert(self, model: nn.Module) -> nn.Module:
        """Put back what was there."""
        return _changed(model, _Synced, lambda layer: layer.kept())


def _changed(model: nn.Module, kind: type[nn.Module], change: Any) -> nn.Module:
    for name, child in model.named_children():
        model.add_module(name, change(child) if isinstance(child, kind) else _changed(child, kind, change))
    return model


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all ranks. Each rank's loss depends on what all have put in, so gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004 - autograd's signature
        total = x.detach().clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004 - autograd's signature
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


def _summed(x: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return total


class _Synced(nn.Module):
    """A layer of batch normalisation by the mean and variance over the batches of all ranks.

    Parameters
    ----------
    layer : Module
        Whose weights, statistics and options are used.
    """

    def __init__(self, layer: _BatchNorm) -> None:
        super().__init__()
        self._layer = [layer]  # in a list, or its weights would have another name
        for name, value in layer.named_parameters(recurse=False):
            self.register_parameter(name, value)
        for name, buffer in layer.named_buffers(recurse=False):
            self.register_buffer(name, buffer)

    def kept(self) -> nn.Module:
        """Return the layer."""
        return self._layer[0]

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, ...)."""
        layer = self._layer[0]
        if not self.training:
            return nn.functional.batch_norm(
                x, layer.running_mean, layer.running_var, layer.weight, layer.bias, False, 0.0, layer.eps
            )
        over = [0, *range(2, x.ndim)]
        values = x.float()
        own = torch.tensor([values.numel() / values.shape[1]], device=x.device)
        sums = _summed(torch.cat([own, values.sum(over)]))
        count = sums[0]
        mean = sums[1:] / count
        shape = [1, -1, *[1] * (x.ndim - 2)]
        off = values - mean.view(shape)
        variance = _summed(off.square().sum(over)) / count
        made: Tensor = off * (variance + layer.eps).rsqrt().view(shape)
        if layer.affine:
            made = made * layer.weight.view(shape) + layer.bias.view(shape)
        if layer.track_running_stats:
            self._remember(mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
        return made.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        layer = self._layer[0]
        assert layer.num_batches_tracked is not None
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.num_batches_tracked.add_(1)
        momentum = layer.momentum if layer.momentum is not None else 1 / float(layer.num_batches_tracked)
        layer.running_mean.lerp_(mean, momentum)
        layer.running_var.lerp_(variance, momentum)
