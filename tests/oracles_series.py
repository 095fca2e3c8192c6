"""Networks over time, cell by cell and date by date, which the real ones are compared with."""

from __future__ import annotations

import numpy as np


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
