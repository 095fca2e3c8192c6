"""A trained model on disk: weights in safetensors, everything needed to use them in JSON. Loading runs no code."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from models.network import ModelError, Network, build

FORMAT = 1
_META, _WEIGHTS = "bundle.json", "weights.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A trained network with what it must know of its imagery and its legend.

    Attributes
    ----------
    network : Network
        With trained weights.
    bands : list of str
        Names of the bands, in the order of the cube's axis.
    dates, time : list
        Dates (ISO form or None) and days since the first.
    mean, std : list of float
        Band statistics of the training fold, one each per band.
    legend : list of dict
        Classes in the order of the scores: name, code, color, values.
    temperature : float
        By which scores are divided before probabilities are taken.
    figures, training : dict
        What was measured, and how it was trained.
    imagery : dict
        Per band: scale, offset, nodata of the imagery that was trained on.
    created : str
        When it was trained, ISO form; no part of its checksum.
    """

    network: Network
    bands: list[str]
    dates: list[str | None]
    time: list[float]
    mean: list[float]
    std: list[float]
    legend: list[dict[str, Any]]
    temperature: float
    figures: dict[str, Any]
    training: dict[str, Any]
    imagery: dict[str, Any]
    created: str

    def save(self, folder: Path) -> None:
        """Write the bundle; `bundle.json` comes last and holds the checksum of the weights."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = self._weights()
        _replace(folder / _WEIGHTS, weights)
        meta = self._meta(hashlib.sha256(weights).hexdigest())
        text = json.dumps(meta | {"checksum": _checksum(meta), "created": self.created}, indent=2, ensure_ascii=False)
        _replace(folder / _META, (text + "\n").encode())

    @property
    def checksum(self) -> str:
        """SHA-256 over weights and description; the same training gives the same, whenever it took place."""
        return _checksum(self._meta(hashlib.sha256(self._weights()).hexdigest()))

    def _weights(self) -> bytes:
        state: dict[str, Tensor] = {k: v.contiguous() for k, v in self.network.state_dict().items()}
        return bytes(save(state))

    def _meta(self, weights: str) -> dict[str, Any]:
        own = {k: v for k, v in _fields(self).items() if k not in ("network", "created")}
        return {
            "format": FORMAT,
            "network": {"name": self.network.name, "settings": self.network.settings.model_dump(mode="json")},
            "halo": self.network.halo,
            "stride": self.network.stride,
            **own,
            "versions": {name: version(name) for name in ("landweave", "torch")},
            "weights_sha256": weights,
        }

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read a bundle.

        Raises
        ------
        ModelError
            If it is missing, of another format, or not as it was written.
        """
        for name in (_META, _WEIGHTS):
            if not (folder / name).is_file():
                raise ModelError(f"{folder} is no bundle: {name} is missing; a bundle is the folder model/ of a run's output")
        try:
            meta = json.loads((folder / _META).read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ModelError(f"{folder / _META} is not valid JSON: {error}") from error
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            found = meta.get("format") if isinstance(meta, dict) else None
            raise ModelError(f"{folder / _META}: this landweave reads bundles of format {FORMAT}, found {found!r}")
        created, checksum = meta.pop("created", ""), meta.pop("checksum", None)
        weights = (folder / _WEIGHTS).read_bytes()
        if checksum != _checksum(meta) or meta["weights_sha256"] != hashlib.sha256(weights).hexdigest():
            raise ModelError(f"{folder}: the bundle is not as it was written (its checksum differs); train or copy it again")
        kind = meta["network"]
        try:
            network = build(
                kind["name"],
                kind["settings"],
                bands=len(meta["bands"]),
                dates=len(meta["time"]),
                classes=len(meta["legend"]),
            )
            network.load_state_dict(load(weights))
        except (ValidationError, SafetensorError, RuntimeError) as error:
            raise ModelError(f"{folder}: the network '{kind['name']}' does not fit its weights: {error}") from error
        fields = ("bands", "dates", "time", "mean", "std", "legend", "temperature", "figures", "training", "imagery")
        return cls(network=network.eval(), created=created, **{name: meta[name] for name in fields})


def _fields(bundle: Bundle) -> dict[str, Any]:
    """Return the fields of a bundle; the network is not copied."""
    return {name: getattr(bundle, name) for name in bundle.__dataclass_fields__}


def _checksum(meta: dict[str, Any]) -> str:
    text = json.dumps({k: v for k, v in meta.items() if k != "versions"}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


