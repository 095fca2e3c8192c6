"""What this machine can do."""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import version
from pathlib import Path

from pipeline.engine import cores, memory_budget
from workflows.console import Console, quantity


def doctor(console: Console) -> None:
    """Print versions, cores, memory, disk and accelerators as landweave sees them."""
    import rasterio
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    packages = ("landweave", "torch", "lightning", "rasterio", "geopandas", "xarray", "dask", "shapely", "zarr")
    rows = [
        ("python", platform.python_version()),
        *((name, version(name)) for name in packages),
        ("GDAL", rasterio.__gdal_version__),
        ("cores", cores()),
        ("memory", f"{quantity(memory_budget())}B for this process (container limit, else the machine)"),
        ("disk", f"{quantity(shutil.disk_usage(Path.cwd()).free)}B free here"),
        ("GPUs", ", ".join(gpus) or "none: networks run on the cores"),
        ("bf16 on CPU", "yes" if torch.cpu._is_avx512_bf16_supported() else "no"),
    ]
    console.table("this machine", ("", ""), rows)
