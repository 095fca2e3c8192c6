"""The output folder of a run: where things lie, who holds it, and from what each stage was made."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import BusyError, RunError, StaleError
from pipeline.files import sweep, write_json

# A difference may have many lines when a whole list changed; these suffice to see what happened.
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Output:
    """Paths of a run's output (the contract of the layout).

    Attributes
    ----------
    folder : Path
        The output folder.
    period : str
        Where several periods are mapped: the name of the one whose map this is about.
    """

    folder: Path
    period: str = ""

    @property
    def job(self) -> Path:
        """The job as resolved."""
        return self.folder / "job.yaml"

    @property
    def chips(self) -> Path:
        """The chip store."""
        return self.folder / "chips.zarr"

    @property
    def unlabelled(self) -> Path:
        """Chips without labels, for networks that learn from both."""
        return self.folder / "unlabelled.zarr"

    @property
    def model(self) -> Path:
        """The bundle."""
        return self.folder / "model"

    @property
    def maps(self) -> Path:
        """The layers; of several periods, those of this one."""
        return self.folder / "maps" / self.period

    @property
    def report(self) -> Path:
        """The report and its tables."""
        return self.folder / "report"

    @property
    def run(self) -> Path:
        """Versions, inputs, times, failures."""
        return self.folder / "run.json"

    @property
    def work(self) -> Path:
        """What only resuming needs: parts of maps, checkpoints, keys."""
        return self.folder / ".landweave"

    @property
    def rounds(self) -> Path:
        """Trainings in work: checkpoints and the networks of the folds."""
        return self.work / "training"

    def parts(self, stage: str) -> Path:
        """Return where parts of what a stage makes lie while it is in work."""
        return self.work / self._named("parts" if stage == "predict" else f"{stage}-parts")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this process.

        The lock is the kernel's (``flock``): it ends with its process, however that dies, so no lock is ever stale.

        Raises
        ------
        BusyError
            If another process holds it; names that process.
        RunError
            If the folder cannot be written.
        """
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            stream = (self.work / "lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise RunError(
                f"output folder {self.folder} cannot be written: {error.strerror}; give another `output`"
            ) from error
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                stream.seek(0)
                raise BusyError(
                    f"output folder {self.folder} is in use by another run ({stream.read().strip() or 'unknown'}); "
                    "wait for it, stop it, or give another `output`"
                ) from error
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()} since {now()}")
            stream.flush()
            for folder in (self.folder, self.work, self.maps, *self.maps.glob("*/"), self.model, self.report):
                sweep(folder)
            yield

    def fresh(self, stage: str, key: dict[str, Any], *, overwrite: bool) -> bool:
        """Return whether ``stage`` is done and was made from the same inputs.

        Parameters
        ----------
        stage : str
            ``"prepare"``, ``"train"``, ...
        key : dict
            Everything the stage's result depends on, as plain values.
        overwrite : bool
            Take a result from other inputs as not there.

        Raises
        ------
        StaleError
            If it is done, or begun, from other inputs, and ``overwrite`` is not set; says what differs.
        """
        state = self.state(stage)
        if state is None:
            return False
        if state["key"] == plain(key):
            return bool(state["done"])
        if overwrite:
            return False
        shown = differences(state["key"], plain(key))
        more = f"\n  and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        raise StaleError(
            f"output folder {self.folder}: the results of '{stage}' were made from other inputs:\n  "
            + "\n  ".join(shown[:_SHOWN])
            + more
            + "\nGive --overwrite to make again what depends on them, or another `output`."
        )

    def state(self, stage: str) -> dict[str, Any] | None:
        """Return what is known of a stage: its key, whether it is done, and what it left; None if never begun."""
        path = self._state(stage)
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def begin(self, stage: str, key: dict[str, Any], **settled: Any) -> None:
        """Record that a stage is in work, with what was settled for all of it."""
        write_json(self._state(stage), {"key": key, "done": False} | settled)

    def finish(self, stage: str, key: dict[str, Any], **left: Any) -> None:
        """Record that a stage is done, with what it left for later ones."""
        write_json(self._state(stage), {"key": key, "done": True, "left": left})

    def forget(self, stage: str) -> None:
        """Forget that a stage was ever done."""
        self._state(stage).unlink(missing_ok=True)

    def _state(self, stage: str) -> Path:
        return self.work / f"{self._named(stage)}.json"

    def engine(self, suffix: str) -> Path:
        """Return where the file of the engine that makes a map lies while it is in work."""
        return self.work / f"{self._named('engine')}{suffix}"

    def _named(self, what: str) -> str:
        return f"{what}-{self.period}" if self.period else what

    def log(self, **entries: Any) -> None:
        """Add entries to run.json; a mapping is merged into the one that is there."""
        record = json.loads(self.run.read_text(encoding="utf-8")) if self.run.is_file() else {}
        for name, value in entries.items():
            record[name] = record.get(name, {}) | value if isinstance(value, dict) else value
        write_json(self.run, record)


def now() -> str:
    """Return the time in UTC, ISO form."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def plain(value: Any) -> Any:
    """Return nested values as they come back from a file: tuples as lists."""
    return json.loads(json.dumps(value))


def differences(old: Any, new: Any, place: str = "") -> list[str]:
    """Return a line for each value in which two nested plain values differ: ``training.epochs: 40 -> 5``."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in [*old, *(k for k in new if k not in old)]:
            lines += differences(old.get(key), new.get(key), f"{place}.{key}".lstrip("."))
        return lines
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            line for i, (a, b) in enumerate(zip(old, new, strict=True)) for line in differences(a, b, f"{place}.{i}")
        ]
    return [] if old == new else [f"{place}: {_short(old)} -> {_short(new)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
