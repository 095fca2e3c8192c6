"""Write a trained network as ONNX, for programs that know nothing of landweave, and check that it says the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from models.inference import prepare
from models.onnx import Raw, Session, Tile, difference, require, write_onnx
from pipeline.errors import RunError
from workflows.apply import load_bundle

if TYPE_CHECKING:
    from models.bundle import Bundle
    from workflows.console import Console

LIMIT = 1e-4
"""The largest difference between scores of the file and of torch."""
_LAYOUT = (
    "cube: float32 (batch, dates, bands, rows, columns), the imagery's units after scale and offset; valid: bool (batch, "
    "dates, rows, columns), where all bands hold data; time: float32 (batch, dates), days since the first day. Rows and "
    "columns are multiples of the stride; of the result only pixels at least a halo from the border are sound."
)


def export(folder: Path, path: Path | None, console: Console) -> list[tuple[str, Path]]:
    """Write the network of a bundle as an ONNX file, and compare the two on random tiles of two sizes.

    The file takes values as they are in the imagery and normalises them itself: forgotten or doubled normalisation is what
    goes wrong most often where a network is moved to another program.

    Parameters
    ----------
    folder : Path
        The bundle.
    path : Path or None
        The file; None: ``model.onnx`` in the bundle's folder.
    console : Console
        Where the user is spoken to.

    Raises
    ------
    ModelError
        If packages are missing, or the network cannot be translated.
    RunError
        If the file says something else than the network; it is removed.
    """
    require("landweave export --onnx")
    bundle = load_bundle(folder)
    path = path or folder / "model.onnx"
    console.stage(f"export: {folder}")
    network = prepare(bundle.network)
    raw = Raw(network, bundle.mean, bundle.std).eval()
    write_onnx(raw, path, output="scores" if bundle.classifies else "outputs", about=about(bundle))
    session, steps = Session(network, path), -(-16 // network.stride)
    for rows, columns in ((2, 3), (8, 5)):
        tile = _tile(bundle, rows * steps, columns * steps)
        found = difference(raw, session, [tile])
        shape = " x ".join(map(str, tile[0].shape))
        if not found <= LIMIT:
            path.unlink()
            raise RunError(
                f"{path}: on a random cube of {shape} scores of the ONNX file differ from those of torch by up to {found:.2g}, "
                f"allowed are {LIMIT:g}; the file was removed. Try another version of torch or onnxruntime"
            )
        console.note(f"a random cube of {shape}: scores differ from those of torch by {found:.1e} at most")
    return [("ONNX", path)]


def about(bundle: Bundle) -> dict[str, Any]:
    """Return what a program must know to use the file, by the names it has in the file's metadata."""
    network = bundle.network
    return {
        "layout": _LAYOUT,
        "network": network.name,
        "bands": bundle.bands,
        "mean": bundle.mean,
        "std": bundle.std,
        "dates": bundle.dates,
        "days": bundle.time,
        "classes": [{"name": c["name"], "code": c["code"], "color": c["color"]} for c in bundle.legend],
        "temperature": bundle.temperature,
        "task": bundle.task["name"],
        "halo": network.halo,
        "stride": network.stride,
        "checksum": bundle.checksum,
        "software": f"landweave {bundle.versions['landweave']}",
    }


def _tile(bundle: Bundle, rows: int, columns: int) -> Tile:
    """Return a batch of two random tiles of so many strides, a fifth of their pixels without data."""
    draw = torch.Generator().manual_seed(rows)
    stride, dates = bundle.network.stride, bundle.network.dates
    normal = torch.randn(2, dates, len(bundle.bands), rows * stride, columns * stride, generator=draw)
    cube = normal * torch.tensor(bundle.std)[:, None, None] + torch.tensor(bundle.mean)[:, None, None]
    valid = torch.rand(2, dates, *cube.shape[-2:], generator=draw) < 0.8
    return cube, valid, torch.tensor(bundle.time)[None].repeat(2, 1)
