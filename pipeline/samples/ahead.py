"""A loader that makes the next batches while the last one is learnt from."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch.utils.data import DataLoader

# Batches that are made ahead: a second one evens out chips that take longer to be read; more would only take memory.
_AHEAD = 2


class AheadLoader(DataLoader[Any]):
    """As its base class in one process, but a thread makes batches ahead, one after the other and in the same order.

    Reading files, NumPy and torch all let go of the interpreter, so that a thread is enough; a process would have to be
    started each epoch, and every batch be copied between the two. Nothing of a batch may be drawn from torch's own
    generator, from which the training step draws at the same time.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches of an epoch; an error in making one is raised in its place."""
        batches = super().__iter__()
        thread = ThreadPoolExecutor(1, thread_name_prefix="loader")
        try:
            made = deque(thread.submit(next, batches, None) for _ in range(_AHEAD))
            while (batch := made.popleft().result()) is not None:
                made.append(thread.submit(next, batches, None))
                yield batch
        finally:
            # Whoever takes no more of them waits for the one that is being made, not for the others.
            thread.shutdown(cancel_futures=True)
