"""The processes that train together, and how the first of them leads the others.

Ranks above 0 do nothing by themselves: they wait until the first hands them a part of a training, take part in it, and wait
again. So whatever else a run does is done once, by the first.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
import torch
from torch import Tensor, distributed

from models.network import ModelError
from models.place import Environment, Place

_SECONDS = 0.1  # between two looks for work
_ERROR = "error"


class RankError(ModelError):
    """A process of a training on several devices failed, which ends the training; the request itself is not wrong."""

    exit_status = 1


@dataclass
class Company:
    """The processes that train together, as one of them sees it.

    Attributes
    ----------
    place : Place
        Where this process stands.
    launcher : str
        What started the processes.
    store : Store or None
        Where ranks leave each other notes; None of one that trains alone.
    """

    place: Place
    launcher: str
    store: Any = None
    _tasks: int = 0
    _children: list[Any] = field(default_factory=list)

    def lead(self, work: Callable[[Company], Any]) -> None:
        """Let all others do a work; this process is to do it at the same time."""
        if self.place.size == 1:
            return
        # By value: a network may hold functions that have no name.
        self.store.set(f"task/{self._tasks}", cloudpickle.dumps(work))
        self._tasks += 1

    def follow(self) -> None:
        """Do what the first rank hands out, until it says that there is no more."""
        while True:
            key = f"task/{self._tasks}"
            while not self.store.check([key]):
                time.sleep(_SECONDS)
            self._tasks += 1
            said = self.store.get(key)
            if not said:
                self.store.set(f"left/{self.place.rank}", b"")
                return
            cloudpickle.loads(said)(self)

    def dismiss(self, patience: datetime.timedelta) -> None:
        """Let all others go, and wait until they know: the store may end with this process."""
        with contextlib.suppress(distributed.DistError):  # they may have gone already
            self.store.set(f"task/{self._tasks}", b"")
            self.store.wait([f"left/{rank}" for rank in range(1, self.place.size)], patience)

    def complain(self, error: BaseException) -> None:
        """Leave word of what ends this process."""
        said = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        with contextlib.suppress(distributed.DistError):
            self.store.set(_ERROR, f"process {self.place.rank + 1} of {self.place.size}: {said}")

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """Name the rank that failed first where others fail because it is gone.

        Raises
        ------
        RankError
            If another rank has failed.
        """
        try:
            yield
        except (ModelError, torch.OutOfMemoryError):
            raise
        except RuntimeError as error:
            if self.place.size == 1:
                raise
            time.sleep(1)  # the one that failed may be about to say why
            said = self.store.get(_ERROR).decode() if self.store.check([_ERROR]) else ""
            lost = [str(i + 2) for i, child in enumerate(self._children) if child.exitcode]
            if not said and lost:
                said = f"process {', '.join(lost)} of {self.place.size} died: out of memory, or killed from outside"
            if not said:
                raise
            if torch.OutOfMemoryError.__name__ in said:
                raise torch.OutOfMemoryError(said) from error
            raise RankError(
                f"the training on {self.place.size} devices failed: {said}. What is done is kept"
            ) from error

    def environment(self) -> Environment:
        """Return what Lightning is told of the processes; of one that is alone too, or it would look for itself."""
        return Environment(self.place)

    def sum(self, *values: Tensor | float) -> list[float]:
        """Return the sums of some numbers over all processes."""
        if self.place.size == 1:
            return [float(v) for v in values]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        summed = torch.tensor([float(v) for v in values], dtype=torch.float64, device=device)
        distributed.all_reduce(summed)
        return [float(v) for v in summed.tolist()]
