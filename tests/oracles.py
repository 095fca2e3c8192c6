"""Naive implementations, slow and plain, that the real ones are compared with."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import numpy as np


def assembled(arrays, windows, shape, nodata):
    """Place the arrays (bands, h, w) of blocks on one array (bands, H, W); the rest is nodata."""
    first = next(iter(arrays.values()))
    result = np.full((first.shape[0], *shape), nodata, dtype=first.dtype)
    for index, array in arrays.items():
        window = windows[index]
        result[:, window.y : window.bottom, window.x : window.right] = array
    return result


def tiled_scores(network, cube, valid, time, size):  # type: ignore[no-untyped-def]
    """Score a scene tile by tile: read each core with the halo around it, keep the core, and glue."""
    import torch

    b, _, _, h, w = cube.shape
    halo = network.halo
    result = torch.full((b, network.outputs, h, w), torch.nan)
    for y in range(0, h, size):
        for x in range(0, w, size):
            tile = padded_window(cube, valid, y - halo, x - halo, size + 2 * halo)
            with torch.no_grad():
                found = network(*tile, time)[..., halo : halo + size, halo : halo + size]
            part = result[..., y : y + size, x : x + size]
            part[:] = found[..., : part.shape[-2], : part.shape[-1]]
    return result


def padded_window(cube, valid, y, x, size):  # type: ignore[no-untyped-def]
    """Read a square window pixel by pixel; outside the scene everything is zero and invalid."""
    import torch

    _, _, _, h, w = cube.shape
    values = torch.zeros(*cube.shape[:3], size, size)
    flags = torch.zeros(*valid.shape[:2], size, size, dtype=torch.bool)
    for i in range(max(0, -y), min(size, h - y)):
        for j in range(max(0, -x), min(size, w - x)):
            values[..., i, j] = cube[..., y + i, x + j]
            flags[..., i, j] = valid[..., y + i, x + j]
    return values, flags


def seen_from(network, phase_y, phase_x, side):  # type: ignore[no-untyped-def]
    """Return the outputs (side, side) that one input pixel reaches: NaN put there comes out wherever it is read."""
    import torch

    cube = torch.rand(1, network.dates, network.bands, side, side)
    y, x = side // 2 + phase_y, side // 2 + phase_x
    cube[..., y, x] = torch.nan
    valid = torch.ones(1, network.dates, side, side, dtype=torch.bool)
    with torch.no_grad():
        scores = network(cube, valid, torch.zeros(1, network.dates))
    return scores[0].isnan().any(0), y, x


def gradient_support(network, y, x, side, draws=8):  # type: ignore[no-untyped-def]
    """Return the inputs (side, side) that move the scores of output pixel (y, x), found by autograd.

    Weights are made positive, so nothing cancels; maxima pass the gradient to one input only, so several draws are united.
    """
    import copy

    import torch

    positive = copy.deepcopy(network).eval()
    with torch.no_grad():
        for p in positive.parameters():
            p.copy_(p.abs() + 0.01)
    support = torch.zeros(side, side, dtype=torch.bool)
    for _ in range(draws):
        cube = torch.rand(1, network.dates, network.bands, side, side, requires_grad=True)
        valid = torch.ones(1, network.dates, side, side, dtype=torch.bool)
        scores = positive(cube, valid, torch.zeros(1, network.dates))
        (found,) = torch.autograd.grad(scores[0, :, y, x].sum(), cube)
        support |= (found != 0).any(2).any(1)[0]
    return support


def nearest_distance(a: Any, b: Any) -> int:
    """Return the smallest Chebyshev distance between two sets of pixels (rows, columns), pair by pair."""
    rows, columns = (np.abs(np.subtract.outer(getattr(a, n), getattr(b, n)).astype(int)) for n in ("rows", "columns"))
    return int(np.maximum(rows, columns).min())


def naive_read(bands, nodata, scale, offset, y, x, height, width):
    """Read a window of stored bands (C, H, W) pixel by pixel; outside, nodata and non-finite values are zero and invalid."""
    count, rows, columns = bands.shape
    values = np.zeros((count, height, width), np.float32)
    valid = np.zeros((count, height, width), bool)
    for c in range(count):
        for i in range(height):
            for j in range(width):
                if 0 <= y + i < rows and 0 <= x + j < columns:
                    stored = bands[c, y + i, x + j]
                    same = np.isnan(stored) if nodata is not None and np.isnan(nodata) else stored == nodata
                    if not same and np.isfinite(stored):
                        valid[c, i, j] = True
                        values[c, i, j] = np.float32(np.float32(stored) * np.float32(scale)) + np.float32(offset)
    return values, valid


def bilinear_at(band, row, column):
    """Interpolate a band (H, W) at a place given in pixels, whose centres lie at 0.5."""
    r, c = row - 0.5, column - 0.5
    i, j = int(np.floor(r)), int(np.floor(c))
    a, b = r - i, c - j
    corners = [
        (weight, min(max(i + di, 0), band.shape[0] - 1), min(max(j + dj, 0), band.shape[1] - 1))
        for di, dj, weight in ((0, 0, (1 - a) * (1 - b)), (0, 1, (1 - a) * b), (1, 0, a * (1 - b)), (1, 1, a * b))
    ]
    return sum(weight * float(band[y, x]) for weight, y, x in corners)


def labelled_by_hand(shapes, classes, geobox, all_touched=False):
    """Label a grid pixel by pixel: the last feature in the file that covers the centre (of lines: any part) counts."""
    from shapely.geometry import Point, box

    height, width = int(geobox.shape.y), int(geobox.shape.x)
    codes = np.full((height, width), -1)
    t = geobox.affine
    for i in range(height):
        for j in range(width):
            square = box(t.c + t.a * j, t.f + t.e * (i + 1), t.c + t.a * (j + 1), t.f + t.e * i)
            centre = Point(t.c + t.a * (j + 0.5), t.f + t.e * (i + 0.5))
            for shape, index in zip(shapes, classes, strict=True):
                touched = all_touched or shape.geom_type in ("LineString", "Point")
                if (square if touched else centre).intersects(shape):
                    codes[i, j] = index
    return codes


def buffered_by_hand(role, buffer, train, val, test, kept=(), elsewhen=()):
    """Drop training labels with a validation or test label within ``buffer`` pixels, and validation ones near test ones.

    ``kept`` are places (row, column) whose labels stay all the same; ``elsewhen`` roles that labels of other periods have.
    """
    made = role.copy()
    for y, x in zip(*np.nonzero(role), strict=True):
        around = slice(max(0, y - buffer), y + buffer + 1), slice(max(0, x - buffer), x + buffer + 1)
        foes = {train: (val, test), val: (test,), test: ()}[int(role[y, x])]
        if (y, x) not in kept and any((r[around] == foe).any() for foe in foes for r in (role, *elsewhen)):
            made[y, x] = 0
    return made


def recurrent_by_hand(network, series, valid, time):  # type: ignore[no-untyped-def]
    """Score pixels (N, T, C) with a recurrent network cell by cell, one pixel after another, over its valid dates alone."""
    import torch
    from torch import nn

    kind = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}[network.name]

    def run(layer, x):  # type: ignore[no-untyped-def]
        cell = kind(layer.input_size, layer.hidden_size)
        cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
        state, states = None, []
        for value in x:
            state = cell(value[None], state)
            states.append((state[0] if isinstance(state, tuple) else state)[0])
        return torch.stack(states)

    hidden = network.settings.hidden
    found = []
    for x, flags, days in zip(series, valid, time, strict=True):
        angle = days[:, None] / 365 * 2 * torch.pi
        x = torch.cat([x, angle.sin(), angle.cos()], dim=1)[flags]
        if len(x) == 0:
            found.append(torch.zeros(network.head.in_features))
            continue
        for i, ahead in enumerate(network.forwards):
            states = run(ahead, x)
            if network.backwards:
                states = torch.cat([states, run(network.backwards[i], x.flip(0)).flip(0)], dim=1)
            x = states
        if network.settings.pooling == "attention":
            weights = network.pooling.weigh(x)[:, 0].exp()
            found.append((weights[:, None] * x).sum(0) / weights.sum())
        elif network.settings.pooling == "last":
            found.append(torch.cat([x[-1, :hidden], x[0, hidden:]]))
        else:
            found.append({"max": x.max(0).values, "mean": x.mean(0)}[network.settings.pooling])
    return network.head(network.normal(torch.stack(found)))


def tempcnn_by_hand(network, series, valid):  # type: ignore[no-untyped-def]
    """Score pixels (N, T, C) with a temporal convolutional network, every sum over dates written out."""
    import torch
    from torch import nn

    x = torch.cat([series, valid[..., None].float()], dim=2)
    for layer in network.layers:
        if isinstance(layer, nn.Conv1d):
            reach = layer.kernel_size[0] // 2
            made = layer.bias.repeat(*x.shape[:2], 1)
            for t in range(x.shape[1]):
                for k in range(-reach, reach + 1):
                    if 0 <= t + k < x.shape[1]:
                        made[:, t] += x[:, t + k] @ layer.weight[:, :, k + reach].T
            x = made
        elif isinstance(layer, nn.BatchNorm1d):
            x = (x - layer.running_mean) / (layer.running_var + layer.eps).sqrt() * layer.weight + layer.bias
        elif isinstance(layer, nn.Flatten):
            x = x.transpose(1, 2).reshape(len(x), -1)
        elif isinstance(layer, nn.Linear):
            x = x @ layer.weight.T + layer.bias
        elif isinstance(layer, nn.ReLU):
            x = x.clamp(min=0)
        elif type(layer).__name__ == "Maxout":
            half = x.shape[-1] // 2
            x = torch.stack([x[..., i].max(x[..., half + i]) for i in range(half)], dim=-1)
    return x


def naive_steps(values, valid, days, at, every=None, fill="none", composite="none"):
    """Bring observations (T, C, h, w) of each pixel to steps by plain loops, in float32 as the real one."""
    _, bands, height, width = values.shape
    result = np.zeros((len(at), bands, height, width), np.float32)
    good = np.zeros((len(at), height, width), bool)
    for y in range(height):
        for x in range(width):
            seen = [(day, values[t, :, y, x]) for t, day in enumerate(days) if valid[t, y, x]]
            reach = every or 0
            if composite != "none":
                grid = list(at) if fill == "none" else [at[0] - every, *at, at[-1] + every]
                made = [(day, _composite(seen, day, every, composite)) for day in grid]
                seen, reach = [(day, value) for day, value in made if value is not None], 0
            for s, day in enumerate(at):
                value = _on_step(seen, day, reach, fill)
                if value is not None:
                    result[s, :, y, x], good[s, y, x] = value, True
    return result, good


def _composite(seen, day, every, kind):
    inside = [(d, v) for d, v in seen if day <= d < day + every]
    if not inside:
        return None
    if kind == "best":
        middle = day + (every - 1) / 2
        return min(inside, key=lambda o: (abs(o[0] - middle), o[0]))[1]
    rows = np.sort(np.array([v for _, v in inside], np.float32), axis=0)
    half = np.float32(0.5)
    return rows[(len(rows) - 1) // 2] * half + rows[len(rows) // 2] * half


def _on_step(seen, day, reach, fill):
    if not seen:
        return None
    near = min(seen, key=lambda o: (abs(o[0] - day), o[0]))
    if fill == "nearest":
        return near[1]
    if fill == "none":
        return near[1] if 2 * abs(near[0] - day) <= reach else None
    before, after = [o for o in seen if o[0] <= day], [o for o in seen if o[0] >= day]
    if not before or not after or before[-1][0] == after[0][0]:
        return (before or after)[-1 if before else 0][1]
    (d0, v0), (d1, v1) = before[-1], after[0]
    weight = np.float32((day - d0) / (d1 - d0))
    return v0 * (np.float32(1) - weight) + v1 * weight


def day_encoding_by_hand(days, width):
    """Encode days (T,): sines and cosines whose wavelengths grow from 2 pi days to 2000 pi, one angle after another."""
    half = (width + 1) // 2
    found = np.zeros((len(days), 2 * half), np.float32)
    for t, day in enumerate(days):
        for i in range(half):
            angle = float(day) / 1000 ** (i / half)
            found[t, i], found[t, half + i] = np.sin(angle), np.cos(angle)
    return found[:, :width]


def transformer_by_hand(network, series, valid, time):  # type: ignore[no-untyped-def]
    """Score pixels (N, T, C) with a transformer, one pixel after another, over its valid dates alone, without any mask."""
    import torch
    from torch.nn import functional as F

    def normalised(x, norm):  # type: ignore[no-untyped-def]
        x = x - x.mean(1, keepdim=True)
        return x / (x.square().mean(1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias

    width, heads = network.settings.width, network.settings.heads
    found = []
    for x, flags, days in zip(series, valid, time, strict=True):
        x = network.embed(x) + torch.from_numpy(day_encoding_by_hand(days, width))
        x = x[flags]
        if len(x) == 0:
            found.append(torch.zeros(width))
            continue
        for layer in network.layers:
            attention, y = layer.self_attn, normalised(x, layer.norm1)
            q, k, v = (y @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, dim=1)
            mixed = torch.zeros_like(x)
            for group in torch.arange(width).chunk(heads):
                weights = torch.exp(q[:, group] @ k[:, group].T / len(group) ** 0.5)
                mixed[:, group] = weights / weights.sum(1, keepdim=True) @ v[:, group]
            x = x + attention.out_proj(mixed)
            x = x + layer.linear2(F.gelu(layer.linear1(normalised(x, layer.norm2))))
        x = normalised(x, network.norm)
        if network.settings.pooling == "attention":
            weights = network.pooling.weigh(x).exp()
            found.append((weights * x).sum(0) / weights.sum())
        else:
            found.append({"max": x.max(0).values, "mean": x.mean(0)}[network.settings.pooling])
    return network.head(torch.stack(found))


def light_attention_by_hand(module, series, valid, time):  # type: ignore[no-untyped-def]
    """Attend to the dates of series (N, T, C) head by head and pixel by pixel, with every key made.

    Returns what the heads saw, (N, width), before it is mixed.
    """
    import torch

    heads, keys = module.query.shape
    size = module.width // heads
    found = torch.zeros(len(series), module.width)
    for n, (x, flags, days) in enumerate(zip(series, valid, time, strict=True)):
        if not flags.any():
            continue
        x = module.embed(x) + torch.from_numpy(np.tile(day_encoding_by_hand(days, size), heads))
        for h in range(heads):
            logits = torch.stack([module.query[h] @ (module.key[h] @ date) / keys**0.5 for date in x[flags]])
            weights = logits.exp() / logits.exp().sum()
            group = slice(h * size, (h + 1) * size)
            found[n, group] = sum(w * date[group] for w, date in zip(weights, x[flags], strict=True))
    return found


def convlstm_by_hand(network, cube, valid, time):  # type: ignore[no-untyped-def]
    """Score a tile with a convolutional LSTM of one layer, pixel by pixel and date by date."""
    import torch

    (gate,) = network.gates
    n = network.settings.hidden
    b, dates, _, height, width = cube.shape
    state = torch.zeros(b, n, height, width)
    memory = torch.zeros(b, n, height, width)
    for t in range(dates):
        before = state.clone()
        for i in range(b):
            angle = 2 * torch.pi * time[i, t] / 365
            for y in range(height):
                for x in range(width):
                    if not valid[i, t, y, x]:
                        continue
                    total = gate.bias.clone()
                    for u in range(max(0, y - 1), min(height, y + 2)):
                        for v in range(max(0, x - 1), min(width, x + 2)):
                            flag = valid[i, t, u, v].float()
                            values = torch.where(flag > 0, cube[i, t, :, u, v], 0.0)
                            inputs = [values, flag[None], angle.sin()[None], angle.cos()[None], before[i, :, u, v]]
                            total += gate.weight[:, :, u - y + 1, v - x + 1] @ torch.cat(inputs)
                    enter, forget, cell, out = total.chunk(4)
                    memory[i, :, y, x] = forget.sigmoid() * memory[i, :, y, x] + enter.sigmoid() * cell.tanh()
                    state[i, :, y, x] = out.sigmoid() * memory[i, :, y, x].tanh()
    return torch.einsum("bnhw,kn->bkhw", state, network.head.weight[:, :, 0, 0]) + network.head.bias[:, None, None]


def reconstruction_loss_by_hand(reconstruction, cube, wanted):  # type: ignore[no-untyped-def]
    """Return the sum of squared errors of the wanted values (B, T, C, H, W), one after another, and their number."""
    total, count = 0.0, 0
    for place in np.ndindex(*cube.shape):
        if wanted[place]:
            total += (float(reconstruction[place]) - float(cube[place])) ** 2
            count += 1
    return total, count


def divergence_by_hand(means, log_variances):
    """Return KL(q || N(0, 1)) of independent normal distributions, by integrating q (log q - log p) along a line."""
    total = 0.0
    for mean, log_variance in zip(means, log_variances, strict=True):
        deviation = np.exp(0.5 * log_variance)
        x = np.linspace(mean - 12 * deviation, mean + 12 * deviation, 20001)
        log_q = -0.5 * ((x - mean) / deviation) ** 2 - np.log(deviation)  # both but for the same constant
        log_p = -0.5 * x**2
        density = np.exp(log_q) / np.sqrt(2 * np.pi)
        total += float(np.trapezoid(density * (log_q - log_p), x))
    return total


def every_patch(network, cube, valid, time):  # type: ignore[no-untyped-def]
    """Score every pixel of a scene by the patch around it, each by itself; beyond the scene is zero and invalid."""
    import torch

    h, w = cube.shape[-2:]
    reach = network.halo
    found = torch.empty(len(cube), network.classes, h, w)
    with torch.no_grad():
        for y in range(h):
            for x in range(w):
                patch = padded_window(cube, valid, y - reach, x - reach, 2 * reach + 1)
                found[:, :, y, x] = network.centre(*patch, time)
    return found


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


def focal_by_hand(scores, target, weights, smoothing, gamma):  # type: ignore[no-untyped-def]
    """Sum the focal loss pixel by pixel and class by class; gamma 0 is cross-entropy. Return sum and weight."""
    total = weight = 0.0
    k = len(weights)
    for z, y in zip(np.asarray(scores, np.float64), np.asarray(target), strict=True):
        p = np.exp(z) / np.exp(z).sum()
        for c in range(k):
            share = smoothing / k + (1 - smoothing) * (c == y)
            total -= float(weights[y]) * share * (1 - p[c]) ** gamma * np.log(p[c])
        weight += float(weights[y])
    return total, weight


def dice_by_hand(scores, target, weights):  # type: ignore[no-untyped-def]
    """Return one minus the weighted mean overlap of the classes that are there."""
    p = np.exp(np.asarray(scores, np.float64))
    p /= p.sum(1, keepdims=True)
    up = down = 0.0
    for c in sorted(set(np.asarray(target).tolist())):
        both = sum(p[i, c] for i in range(len(p)) if target[i] == c)
        either = sum(p[i, c] + (target[i] == c) for i in range(len(p)))
        up += float(weights[c]) * 2 * both / float(either)
        down += float(weights[c])
    return 1 - up / down


def zoomed_by_hand(cube, valid, labels, factor):  # type: ignore[no-untyped-def]
    """Show one chip (T, C, S, S) larger or smaller about its centre, pixel by pixel."""
    side = cube.shape[-1]
    centre = (side - 1) / 2
    made, seen, known = np.zeros_like(cube), np.zeros_like(valid), np.full_like(labels, -1)
    for y in range(side):
        for x in range(side):
            v, u = centre + (y - centre) / factor, centre + (x - centre) / factor
            i, j = int(np.floor(v + 0.5)), int(np.floor(u + 0.5))
            if not (0 <= i < side and 0 <= j < side):
                continue
            known[y, x] = labels[i, j]
            for t in range(len(cube)):
                if not valid[t, i, j]:
                    continue
                seen[t, y, x] = True
                total, weight = np.zeros(cube.shape[1]), 0.0
                for a in (int(np.floor(v)), int(np.floor(v)) + 1):
                    for b in (int(np.floor(u)), int(np.floor(u)) + 1):
                        if 0 <= a < side and 0 <= b < side and valid[t, a, b]:
                            share = (1 - abs(v - a)) * (1 - abs(u - b))
                            total += share * cube[t, :, a, b]
                            weight += share
                made[t, :, y, x] = total / weight
    return made, seen, known


def adversarial_loss_by_hand(real, made):
    """Return -log p(not made up) of real and -log p(made up) of other patches, of a softmax over K + 1 classes.

    The score of the last class, made up, is 0.
    """
    terms = []
    for rows, is_real in ((real, True), (made, False)):
        costs = []
        for row in rows:
            exponentials = np.exp(np.append(np.asarray(row, np.float64), 0.0))
            probabilities = exponentials / exponentials.sum()
            costs.append(-np.log(probabilities[:-1].sum() if is_real else probabilities[-1]))
        terms.append(np.mean(costs))
    return sum(terms)


def patches_by_flood(rows: np.ndarray[Any, Any], columns: np.ndarray[Any, Any]) -> list[set[tuple[int, int]]]:
    """Return the patches of touching pixels, found by walking from neighbour to neighbour."""
    left = set(zip(rows.tolist(), columns.tolist(), strict=True))
    found = []
    while left:
        waiting, patch = [left.pop()], set()
        while waiting:
            y, x = waiting.pop()
            patch.add((y, x))
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            waiting += near
        found.append(patch)
    return found


def jackknife_of_f1(
    reference: np.ndarray[Any, Any], one: np.ndarray[Any, Any], other: np.ndarray[Any, Any], patch: np.ndarray[Any, Any]
) -> float:
    """Return the standard error of a difference in macro-F1, a patch left out at a time, with scikit-learn's F1."""
    from sklearn.metrics import f1_score

    differences = []
    for left in np.unique(patch):
        kept = patch != left
        a, b = (f1_score(reference[kept], p[kept], average="macro") for p in (one, other))
        differences.append(a - b)
    n = len(differences)
    mean = sum(differences) / n
    return float(np.sqrt((n - 1) / n * sum((d - mean) ** 2 for d in differences)))


def centre_by_hand(values: Any, radius: int) -> Any:
    """Return the pixels (C, S, S) around the pixel at half height and half width of a chip (C, H, W), one by one."""
    bands, height, width = values.shape
    found = np.empty((bands, 2 * radius + 1, 2 * radius + 1), values.dtype)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            y, x = height // 2 + dy, width // 2 + dx
            if not (0 <= y < height and 0 <= x < width):
                raise IndexError(f"({y}, {x}) lies outside a chip of {height} x {width}")
            found[:, dy + radius, dx + radius] = values[:, y, x]
    return found


def naive_dates(seen: list[datetime.date], to_come: list[datetime.date]) -> list[datetime.date]:
    """Return the date of the naive forecast of each date: a whole number of years before, as few as there need be."""
    found = []
    step = (seen[-1] - seen[0]).days / max(1, len(seen) - 1)
    for day in to_come:
        before = [day - datetime.timedelta(365 * years) for years in range(1, 30)]
        same = next(d for d in before if d <= seen[-1])
        if (seen[0] - same).days > step / 2:
            found.append(seen[-1])
        else:
            found.append(min(seen, key=lambda d: abs((d - same).days)))
    return found


def nearest_centre(embedding: np.ndarray[Any, Any], centres: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the number of the nearest centre (k, E) of each pixel (E, h, w), one by one."""
    _, height, width = embedding.shape
    found = np.empty((height, width), int)
    for y in range(height):
        for x in range(width):
            found[y, x] = np.argmin([np.linalg.norm(embedding[:, y, x] - c) for c in centres])
    return found


def goodness_by_hand(truth: np.ndarray[Any, Any], found: np.ndarray[Any, Any], inputs: int) -> dict[str, float]:
    """Return the figures of a regression, by their definitions."""
    n = len(truth)
    errors = [float(f - t) for t, f in zip(truth, found, strict=True)]
    mean = sum(truth) / n
    r2 = 1 - sum(e * e for e in errors) / sum((t - mean) ** 2 for t in truth)
    return {
        "rmse": (sum(e * e for e in errors) / n) ** 0.5,
        "mae": sum(abs(e) for e in errors) / n,
        "bias": sum(errors) / n,
        "r2": r2,
        "adjusted_r2": 1 - (1 - r2) * (n - 1) / (n - inputs - 1),
    }


def shares_by_hand(
    values: np.ndarray[Any, Any], codes: np.ndarray[Any, Any], code: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any], int]:
    """Return mean, 10th and 90th percentile of the shares, mean value, and number of pixels of a class, one by one.

    Values are (n, h, w) with NaN where there is nothing, codes (h, w). A share is a size over the sum of sizes at a pixel.
    """
    parts, signed = [], []
    for y, x in np.argwhere(codes == code):
        at = values[:, y, x].astype(float)
        total = sum(abs(v) for v in at)
        if np.isnan(at).any() or total == 0:
            continue
        parts.append([abs(v) / total for v in at])
        signed.append(at)
    table = np.sort(np.array(parts), axis=0)

    def percentile(q: float) -> np.ndarray[Any, Any]:
        place = q * (len(table) - 1)
        low, share = int(place), place - int(place)
        return table[low] * (1 - share) + table[min(low + 1, len(table) - 1)] * share

    return table.mean(0), percentile(0.1), percentile(0.9), np.mean(signed, axis=0), len(parts)


def patch_occlusion_by_hand(network, cube, valid, time, where, target, baseline, origin, patch, step):  # type: ignore[no-untyped-def]
    """Take away patch after patch of one tile, one forward pass each: the mean fall of those that lie on a pixel, (H, W)."""
    import torch

    def amount(values):  # type: ignore[no-untyped-def]
        with torch.no_grad():
            return (weights * target.amounts(network(values, valid, time))).sum(dtype=torch.float64)

    with torch.no_grad():
        weights = target.weights(network(cube, valid, time)) * where
    h, w = cube.shape[-2:]
    before = amount(cube)
    falls: dict[tuple[int, int], list[float]] = {(y, x): [] for y in range(h) for x in range(w)}
    for top in range(-60 * step, 60 * step, step):
        for left in range(-60 * step, 60 * step, step):
            on_it = [
                (y - origin[0], x - origin[1])
                for y in range(max(top, origin[0]), min(top + patch, origin[0] + h))
                for x in range(max(left, origin[1]), min(left + patch, origin[1] + w))
            ]
            if on_it:
                changed = cube.clone()
                for y, x in on_it:
                    changed[0, :, :, y, x] = baseline
                fall = float(before - amount(changed))
                for pixel in on_it:
                    falls[pixel].append(fall)
    return torch.tensor([[np.mean(falls[y, x]) for x in range(w)] for y in range(h)])


def removal_by_hand(
    score: Callable[[np.ndarray[Any, Any]], float], values: np.ndarray[Any, Any], order: list[int], blank: float
) -> list[float]:
    """Return what is left of a score of values (n,) as they are replaced one after another, in an order."""
    left = values.copy()
    found = [score(left)]
    for i in order:
        left[i] = blank
        found.append(score(left))
    return found


def own_shares_by_hand(attribution: np.ndarray[Any, Any], axis: str) -> list[list[float]]:
    """Return of attributions (N, T, C, H, W) the share of each band, or date, of each place, by loops over sizes."""
    n, dates, bands, _, _ = attribution.shape
    found = []
    for i in range(n):
        sizes = [0.0] * (bands if axis == "band" else dates)
        for t in range(dates):
            for c in range(bands):
                sizes[c if axis == "band" else t] += float(np.abs(attribution[i, t, c]).sum())
        found.append([s / sum(sizes) for s in sizes])
    return found
