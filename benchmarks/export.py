"""Export every network to ONNX, and print how far ONNX Runtime is from torch on random tiles of two sizes, gaps in them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from models.inference import prepare
from models.network import ModelError
from models.onnx import Session, difference, write_onnx
from models.table import NETWORKS, build, network_class

BANDS, SEASON, CLASSES = 4, 6, 5


def main() -> None:
    """Export and print."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for name in NETWORKS:
        dates = SEASON if network_class(name).temporal else 1
        network = prepare(build(name, {}, bands=BANDS, dates=dates, classes=CLASSES))
        tiles = []
        for batch, steps in ((1, 3), (2, 5)):
            side = steps * max(network.stride, 4)
            valid = torch.rand(batch, dates, side, side) < 0.7
            days = 16.0 * torch.arange(dates)[None].repeat(batch, 1)
            tiles.append((torch.randn(batch, dates, BANDS, side, side), valid, days))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.onnx"
            try:
                write_onnx(network, path)
                found = difference(network, Session(network, path), tiles)
                print(f"{name:12} differs by {found:.1e} at most, {path.stat().st_size / 1024:.0f} KiB", flush=True)
            except ModelError as error:
                print(f"{name:12} {error}", flush=True)


if __name__ == "__main__":
    main()
