"""Fast paths: a network in half precision, or run by ONNX Runtime. They change numbers: `workflows.gate` lets them pass."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from models.inference import Scoring
from models.network import Network

EngineName = Literal["torch", "torch-bf16", "torch-fp16", "onnx", "onnx-int8"]


@dataclass(frozen=True, slots=True)
class Engine:
    """What does the forward pass of a map.

    Attributes
    ----------
    name : str
        ``torch``: the exact path, single precision. ``torch-bf16``, ``torch-fp16``: half precision. ``onnx``, ``onnx-int8``:
        ONNX Runtime, in single precision or in whole numbers of eight bits.
    file : Path or None
        The ONNX file, made once for a map, whoever works on it.
    checksum : str
        SHA-256 of that file.
    """

    name: EngineName = "torch"
    file: Path | None = None
    checksum: str = ""


EXACT = Engine()


def native(name: EngineName, device: torch.device) -> bool:
    """Return whether a device has instructions for a half precision; without them it is emulated, many times slower."""
    if device.type == "cuda":
        return name == "torch-fp16" or torch.cuda.is_bf16_supported(including_emulation=False)
    # Processors with AMX have these instructions too.
    return name == "torch-bf16" and torch.cpu._is_avx512_bf16_supported()


def native_half(device: torch.device) -> EngineName | None:
    """Return the half precision in which a device computes faster than in single; None where it has none.

    bf16 before fp16: it has the range of single precision, so no score overflows.
    """
    halves: tuple[EngineName, ...] = ("torch-bf16", "torch-fp16")
    return next((name for name in halves if native(name, device)), None)


def ready(network: Network, engine: Engine) -> Scoring:
    """Return what scores tiles for an engine.

    Parameters
    ----------
    network : Network
        As `models.inference.prepare` returns it.
    engine : Engine
        Of ``onnx`` and ``onnx-int8`` the file must be there.
    """
    if engine.name == "torch":
        return network
    if engine.name in ("torch-bf16", "torch-fp16"):
        return halved(network, torch.bfloat16 if engine.name == "torch-bf16" else torch.float16)
    from models.onnx import Session

    assert engine.file is not None
    return Session(network, engine.file)


def halved(network: Network, dtype: torch.dtype) -> Network:
    """Return a copy whose layers compute in half precision; what goes in and what comes out stays single.

    Not autocast: that converts weights and activations again and again. Each layer of the library converts what it
    is given; what a network computes between them, such as the encoding of days, which half precision cannot tell apart,
    is left as it is.
    """
    half = copy.deepcopy(network)
    for module in half.modules():
        own = any(True for _ in module.parameters(recurse=False))
        if own and type(module).__module__.startswith("torch.nn."):
            module.to(dtype)
            module.register_forward_pre_hook(_Convert(dtype), with_kwargs=True)
    half.register_forward_hook(_single)
    return half


@dataclass(frozen=True, slots=True)
class _Convert:
    dtype: torch.dtype

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> Any:  # noqa: ARG002 - the signature of a hook
        return tree_map_only(Tensor, lambda x: x.to(self.dtype) if x.is_floating_point() else x, (args, kwargs))


def _single(module: nn.Module, args: Any, result: Tensor) -> Tensor:  # noqa: ARG001 - the signature of a hook
    return result.float()
