"""Networks as ONNX: written by torch's exporter, run and quantised by ONNX Runtime. Its packages are an extra."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from models.files import whole
from models.network import ModelError, Network

if TYPE_CHECKING:
    from models.inference import Scoring

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
INPUTS = ("cube", "valid", "time")
# Layers that ONNX Runtime does in whole numbers.
_QUANTISED = ("Conv", "MatMul", "Gemm")
_RECURRENT = {"LSTM", "GRU", "RNN"}

Tile = tuple[Tensor, Tensor, Tensor]
"""What a network takes: cube, valid and time."""


def require(what: str) -> None:
    """Refuse to go on where a package is missing.

    Raises
    ------
    ModelError
        With what needs it.
    """
    if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        raise ModelError(
            f"{what} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed here; "
            "`pip install 'landweave[onnx]'` installs what is missing"
        )


def write_onnx(
    network: Network | Raw, path: Path, *, output: str = "scores", about: Mapping[str, Any] | None = None
) -> None:
    """Write a network as an ONNX file with the inputs cube, valid and time.

    Batch, height and width are free (height and width in multiples of the stride); dates and bands are those of the network.

    Parameters
    ----------
    network : Network
        As `models.inference.prepare` returns it, or a module that takes and gives the same (`Raw`).
    path : Path
        The file.
    output : str
        Name of what it gives.
    about : mapping, optional
        Metadata of the file (``metadata_props``): text as it is, other values as JSON.

    Raises
    ------
    ModelError
        If the exporter cannot translate the network.
    """
    import onnx

    stride = network.stride
    side = 4 * max(stride, 8)
    cube = torch.zeros(2, network.dates, network.bands, side, side + 2 * stride)
    flags = torch.ones(2, network.dates, *cube.shape[-2:], dtype=torch.bool)
    batch, rows, columns = (torch.export.Dim(name) for name in ("batch", "rows", "columns"))
    high, wide = (rows, columns) if stride == 1 else (stride * rows, stride * columns)
    shapes = ({0: batch, 3: high, 4: wide}, {0: batch, 2: high, 3: wide}, {0: batch})
    with _silence():
        try:
            program = torch.onnx.export(
                network,
                (cube, flags, torch.zeros(2, network.dates)),
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=list(INPUTS),
                output_names=[output],
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ModelError(
                f"torch {torch.__version__} cannot translate the network '{network.name}' to ONNX: {_reason(error)}"
            ) from error
    assert program is not None
    proto = program.model_proto
    known = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in (about or {}).items()}
    # The exporter leaves the path of each line of source in the file.
    for node in (*proto.graph.node, *(n for f in proto.functions for n in f.node)):
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    onnx.helper.set_model_props(proto, known)
    with whole(path) as temporary:
        temporary.write_bytes(proto.SerializeToString(deterministic=True))


class Raw(nn.Module):
    """A network that takes imagery as it is: it normalises by itself.

    Parameters
    ----------
    network : Network
        As `models.inference.prepare` returns it.
    mean, std : sequence of float
        Band statistics; (C,).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        self.name, self.stride, self.dates, self.bands = network.name, network.stride, network.dates, network.bands

    def forward(self, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:
        """Return what the network says of values (B, T, C, H, W) in the imagery's units."""
        normal = ((cube - self.mean) / self.std).masked_fill(~valid[:, :, None], 0.0)
        found: Tensor = self.network(normal, valid, time)
        return found


class Session:
    """A network that ONNX Runtime runs on one thread; threads may share it.

    Parameters
    ----------
    network : Network
        The network that the file was made of.
    path : Path
        The file.
    """

    def __init__(self, network: Network, path: Path) -> None:
        require("predict.engine: onnx")
        import onnxruntime

        self.pixelwise, self.slab, self.outputs = network.pixelwise, network.slab, network.outputs
        options = onnxruntime.SessionOptions()
        # Blocks are what runs in parallel. An arena per session would keep the most that any block has ever needed.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._taken = {node.name for node in self._session.get_inputs()}

    def __call__(self, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:
        """Return scores (B, K, H, W) float32 on the device of the cube."""
        given = {name: x.cpu().numpy() for name, x in zip(INPUTS, (cube, valid, time), strict=True)}
        found = self._session.run(
            None, {name: np.ascontiguousarray(x) for name, x in given.items() if name in self._taken}
        )
        return torch.from_numpy(found[0]).to(cube.device)


def quantise(source: Path, target: Path, tiles: Sequence[Tile], name: str) -> None:
    """Write an ONNX file whose convolutions and products are in whole numbers of eight bits.

    Static quantisation with a scale per channel of the weights; those of activations are the smallest and largest values that
    the tiles bring forth (Jacob et al. 2018). Weights keep to seven bits, or sums of products would overflow on processors
    without VNNI.

    Parameters
    ----------
    source, target : Path
        The file in single precision, and the one to be written.
    tiles : sequence of (cube, valid, time)
        Typical land, as the network takes it.
    name : str
        The network's name, for messages.

    Raises
    ------
    ModelError
        If the network is recurrent, or nothing in it can be quantised.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    graph = onnx.load(str(source)).graph
    kinds = {node.op_type for node in graph.node}
    if kinds & _RECURRENT:
        raise ModelError(f"ONNX Runtime has no static eight-bit form of recurrent layers, which '{name}' is made of")
    taken = {node.name for node in graph.input}

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            named = (dict(zip(INPUTS, (x.cpu().numpy() for x in tile), strict=True)) for tile in tiles)
            self.left = iter([{k: v for k, v in tile.items() if k in taken} for tile in named])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

    with tempfile.TemporaryDirectory() as folder, whole(target) as temporary, _silence():
        before = Path(folder) / "before.onnx"
        # Height and width are free, which its symbolic shapes cannot follow; those of the graph say enough.
        quant_pre_process(str(source), str(before), skip_symbolic_shape=True)
        quantize_static(
            str(before),
            str(temporary),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_QUANTISED),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def difference(network: Callable[..., Tensor], other: Scoring, tiles: Sequence[Tile]) -> float:
    """Return the largest difference between the outputs of two networks, over all tiles."""
    most = 0.0
    with torch.inference_mode():
        for tile in tiles:
            most = max(most, float((network(*tile) - other(*tile)).abs().max()))
    return most


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep what exporter and quantiser say to their own developers from the user."""
    # They log below these, and to the root.
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """Return the innermost cause of what the exporter raised, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300]
