"""Convolutional networks, every sum written out in float64, which the real ones are compared with."""

from __future__ import annotations

import numpy as np


def patch_by_hand(network, cube, valid):  # type: ignore[no-untyped-def]
    """Score the centre of one patch (T, C, S, S) with a classifier of patches, square by square in float64."""
    from torch import nn

    x = np.concatenate([np.where(valid[:, None], cube, 0).reshape(-1, *cube.shape[2:]), valid]).astype(np.float64)

    def squares(x, size, step):  # type: ignore[no-untyped-def]
        side = (x.shape[1] - size) // step + 1
        for i in range(side):
            for j in range(side):
                yield x[:, i * step : i * step + size, j * step : j * step + size]

    def joined(values):  # type: ignore[no-untyped-def]
        side = int(len(values) ** 0.5)
        return np.stack(values, axis=-1).reshape(-1, side, side)

    for layer in network.layers:
        if isinstance(layer, nn.Conv2d):
            weight, bias = layer.weight.detach().numpy(), 0 if layer.bias is None else layer.bias.detach().numpy()
            x = joined([(weight * s).sum((1, 2, 3)) + bias for s in squares(x, layer.kernel_size[0], layer.stride[0])])
        elif isinstance(layer, nn.BatchNorm2d):
            mean, var, scale, shift = (
                v.detach().numpy()[:, None, None]
                for v in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
            )
            x = (x - mean) / np.sqrt(var + layer.eps) * scale + shift
        elif isinstance(layer, nn.ReLU):
            x = np.maximum(x, 0)
        elif not isinstance(layer, nn.Dropout2d):
            join = {"max": lambda s: s.max((1, 2)), "average": lambda s: s.mean((1, 2))}.get(
                layer.kind, lambda s: np.sqrt((s**2).sum((1, 2)))
            )
            x = joined([join(s) for s in squares(x, layer.size, layer.size)])
    return x[:, 0, 0]


def convolved_by_hand(x, weight, dilation=1):
    """Convolve x (F, H, W) by weight (G, F, k, k) at the same size: shifted copies, weighed and added."""
    reach = weight.shape[2] // 2
    height, width = x.shape[1:]
    made = np.zeros((len(weight), height, width))
    for y in range(height):
        for x_ in range(width):
            for i in range(-reach, reach + 1):
                for j in range(-reach, reach + 1):
                    u, v = y + i * dilation, x_ + j * dilation
                    if 0 <= u < height and 0 <= v < width:
                        made[:, y, x_] += weight[:, :, i + reach, j + reach] @ x[:, u, v]
    return made


def _arrays(*tensors):
    return [None if t is None else t.detach().double().numpy() for t in tensors]


def _biased(x, layer, norm=None):
    """Add the bias of a convolution to x (G, ...), or normalise by the batch normalisation behind it."""
    down = (-1,) + (1,) * (x.ndim - 1)
    if norm is None:
        return x + _arrays(layer.bias)[0].reshape(down)
    mean, var, scale, shift = (
        v.reshape(down) for v in _arrays(norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / np.sqrt(var + norm.eps) * scale + shift


def _flat_inputs(cube, valid):
    return np.concatenate([np.where(valid[:, None], cube, 0).reshape(-1, *cube.shape[2:]), valid]).astype(np.float64)


def resnet_by_hand(network, cube, valid):  # type: ignore[no-untyped-def]
    """Score a tile (T, C, H, W) with a dilated residual network of ReLUs and batch normalisation."""
    conv, norm = network.stem[:2]
    x = np.maximum(_biased(convolved_by_hand(_flat_inputs(cube, valid), *_arrays(conv.weight)), conv, norm), 0)
    for block, dilation in zip(network.blocks, network.settings.dilations, strict=True):
        first, second = block[:2], block[-2:]
        made = _biased(convolved_by_hand(x, *_arrays(first[0].weight), dilation), *first)
        made = convolved_by_hand(np.maximum(made, 0), *_arrays(second[0].weight))
        x = x + _biased(made, *second)
    return _biased(np.tensordot(_arrays(network.head.weight)[0][:, :, 0, 0], x, 1), network.head)


def spectral_by_hand(network, cube, valid):  # type: ignore[no-untyped-def]
    """Score a tile (T, C, H, W) with a spectral network of ReLUs and batch normalisation, band by band."""
    from torch import nn

    x = np.where(valid[:, None], cube, 0).astype(np.float64)
    if network.components:
        x = np.stack([np.tensordot(_arrays(network.projection)[0], date, 1) for date in x])
    x = x.reshape(1, -1, *cube.shape[2:])  # (F, bands, H, W)
    layers = list(network.cubic)
    for conv, norm in zip(layers[::3], layers[1::3], strict=True):
        (weight,) = _arrays(conv.weight)
        bands, reach = x.shape[1], weight.shape[4] // 2
        made = []
        for centre in range(0, bands, network.settings.stride):
            near = [k for k in range(-reach, reach + 1) if 0 <= centre + k < bands]
            made.append(sum(convolved_by_hand(x[:, centre + k], weight[..., k + reach]) for k in near))
        x = np.maximum(_biased(np.stack(made, axis=1), conv, norm), 0)
    x = np.concatenate([x.reshape(-1, *x.shape[2:]), valid])
    layers = list(network.flat)
    for i, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            norm = layers[i + 1] if i + 1 < len(layers) else None
            x = _biased(convolved_by_hand(x, *_arrays(layer.weight)), layer, norm)
            x = x if norm is None else np.maximum(x, 0)
    return x
