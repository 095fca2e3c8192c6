"""The bundle: a trained network on disk, with everything needed to use it. Loading one runs no code from it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from models.cost import parameters
from models.files import whole
from models.network import ModelError, Network
from models.table import build

FORMAT = 3
"""Version of the layout of bundle.json; a reader refuses any other."""

_DESCRIPTION = "bundle.json"
_WEIGHTS = "weights.safetensors"
_NETWORK = ("name", "settings", "bands", "dates", "classes", "halo", "stride", "parameters")


def versions() -> dict[str, str]:
    """Return the versions of what makes the numbers."""
    found = {}
    for name in ("landweave", "torch", "lightning", "numpy", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Bundle:
    """A trained network with what it needs to be used.

    Attributes
    ----------
    network : Network
        The network with its weights.
    bands : list of str
        Names of the bands, in the order of the axis C.
    dates : list of str or None
        Dates of the axis T (ISO 8601), None where undated.
    time : list of float
        Days since the first date; (T,).
    mean, std : list of float
        Band statistics of the training fold; (C,), in the imagery's units after scale and offset.
    task : dict
        What the outputs of the network mean: ``name`` (classification, regression, reconstruction, forecast) and what is
        needed to read them; JSON values.
    legend : list of dict
        The classes, in the order of the axis K; empty where outputs are no scores of classes.
    temperature : float
        Scores are divided by this before they are taken for probabilities.
    figures, training, imagery : dict
        Accuracy, how it was trained, and what new imagery must share with the old; JSON values.
    created : str
        When it was trained (ISO 8601). Not part of the checksum.
    versions : dict
        Versions of what made the numbers.
    """

    network: Network
    bands: list[str]
    dates: list[str | None]
    time: list[float]
    mean: list[float]
    std: list[float]
    task: dict[str, Any]
    legend: list[dict[str, Any]]
    temperature: float
    figures: dict[str, Any]
    training: dict[str, Any]
    imagery: dict[str, Any]
    created: str
    versions: dict[str, str] = field(default_factory=versions)

    def __post_init__(self) -> None:
        network = self.network
        for what, found, expected in (
            ("bands", len(self.bands), network.bands),
            ("means", len(self.mean), network.bands),
            ("standard deviations", len(self.std), network.bands),
            ("dates", len(self.dates), network.dates),
            ("days", len(self.time), network.dates),
            ("classes in the legend", len(self.legend), network.classes if self.classifies else len(self.legend)),
        ):
            if found != expected:
                raise ModelError(f"a bundle of this network needs {expected} {what}, got {found}")
        if not self.temperature > 0:
            raise ModelError(f"the temperature must be above 0, got {self.temperature}")

    @property
    def classifies(self) -> bool:
        """Whether the outputs are scores of classes."""
        return bool(self.task["name"] == "classification")

    @property
    def checksum(self) -> str:
        """SHA-256 over the weights and the description, without the date: the same model has the same checksum."""
        return _checksum(self._describe(self._weights()))

    def _weights(self) -> bytes:
        state = {k: v.detach().cpu().contiguous() for k, v in self.network.state_dict().items()}
        return save(state)

    def _describe(self, weights: bytes) -> dict[str, Any]:
        network = self.network
        described: dict[str, Any] = {
            "format": FORMAT,
            "network": {
                "name": network.name,
                "settings": network.settings.model_dump(mode="json"),
                "bands": network.bands,
                "dates": network.dates,
                "classes": network.classes,
                "halo": network.halo,
                "stride": network.stride,
                "parameters": parameters(network),
            },
        }
        for f in dataclasses.fields(self):
            if f.name != "network":
                described[f.name] = getattr(self, f.name)
        described["weights"] = {"file": _WEIGHTS, "size": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
        return described

    def save(self, folder: Path) -> None:
        """Write weights.safetensors, then bundle.json, which holds the checksum of both; each whole or not at all.

        Raises
        ------
        ModelError
            If a figure is NaN or infinite, or no JSON value.
        """
        weights = self._weights()
        described = self._describe(weights)
        try:
            described["checksum"] = _checksum(described)
            text = json.dumps(described, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise ModelError(f"the bundle cannot be written as JSON: {error}") from error
        # A description without its weights would be refused when loaded; old weights under a new one as well.
        with whole(folder / _WEIGHTS) as temporary:
            temporary.write_bytes(weights)
        with whole(folder / _DESCRIPTION) as temporary:
            temporary.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read and verify a bundle.

        Raises
        ------
        ModelError
            If files are missing, were changed or damaged, or were written in another format.
        """
        described = _read(folder)
        weights = _read_weights(folder, described["weights"])
        made = described["network"]
        network = build(
            made["name"], made["settings"], bands=made["bands"], dates=made["dates"], classes=made["classes"]
        )
        try:
            network.load_state_dict(load(weights))
        except (SafetensorError, RuntimeError) as error:
            raise ModelError(
                f"{folder / _WEIGHTS} does not fit the network '{made['name']}' described in {_DESCRIPTION}: "
                f"{' '.join(str(error).split())}"
            ) from error
        if (network.halo, network.stride) != (made["halo"], made["stride"]):
            raise ModelError(
                f"{folder / _DESCRIPTION}: the network '{made['name']}' was trained with halo {made['halo']} and "
                f"stride {made['stride']}, here it has {network.halo} and {network.stride}; it needs the version "
                f"that made it, landweave {described['versions'].get('landweave')}"
            )
        rest = {f.name: described[f.name] for f in dataclasses.fields(cls) if f.name != "network"}
        return cls(network=network.eval(), **rest)


def _checksum(described: dict[str, Any]) -> str:
    kept = {k: v for k, v in described.items() if k not in ("checksum", "created")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _read(folder: Path) -> dict[str, Any]:
    path = folder / _DESCRIPTION
    if not path.is_file():
        raise ModelError(f"{folder} holds no {_DESCRIPTION}: it is not a trained model")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(described, dict) or "format" not in described:
        raise ModelError(f"{path} is not the description of a trained model")
    if described["format"] != FORMAT:
        raise ModelError(
            f"{path} has format {described['format']!r}, this version of landweave reads format {FORMAT}; it was "
            f"made by landweave {described.get('versions', {}).get('landweave', '(not stated)')}"
        )
    wanted = {f.name for f in dataclasses.fields(Bundle)} | {"weights", "checksum"}
    if missing := sorted(wanted - set(described)):
        raise ModelError(f"{path} lacks {', '.join(missing)}")
    if lacking := [k for k in _NETWORK if k not in described["network"]]:
        raise ModelError(f"{path}: the description of the network lacks {', '.join(lacking)}")
    if _checksum(described) != described["checksum"]:
        raise ModelError(f"{path} was changed after it was written (its checksum differs); use the original")
    return described


def _read_weights(folder: Path, described: dict[str, Any]) -> bytes:
    path = folder / _WEIGHTS
    if not path.is_file():
        raise ModelError(f"{folder} holds no {_WEIGHTS}, which {_DESCRIPTION} describes; copy the whole folder")
    weights = path.read_bytes()
    found = hashlib.sha256(weights).hexdigest()
    if found != described["sha256"]:
        raise ModelError(
            f"{path} is damaged or belongs to another model: {len(weights)} bytes with SHA-256 {found}, expected "
            f"{described['size']} bytes with {described['sha256']}"
        )
    return weights
