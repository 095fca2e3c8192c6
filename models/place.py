"""Where a process stands among those that train together, and what Lightning is told of it."""

from __future__ import annotations

from dataclasses import dataclass

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a process stands among those that train together.

    Attributes
    ----------
    rank, size : int
        Its number, from 0, and how many there are.
    local, per_node : int
        The same on its node.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    per_node: int = 1

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return self.size // self.per_node


ALONE = Place()


class Environment(ClusterEnvironment):
    """Tells Lightning that all processes run and are connected."""

    creates_processes_externally = True
    # Processes are connected before Lightning would do it.
    main_address, main_port = "", 0

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place

    @staticmethod
    def detect() -> bool:
        """Never be found by chance."""
        return False

    def world_size(self) -> int:
        """Return the number of processes."""
        return self.place.size

    def global_rank(self) -> int:
        """Return the number of this process."""
        return self.place.rank

    def local_rank(self) -> int:
        """Return the number of this process on its node."""
        return self.place.local

    def node_rank(self) -> int:
        """Return the number of the node."""
        return self.place.rank // self.place.per_node

    def set_world_size(self, size: int) -> None:
        """Keep what is known."""

    def set_global_rank(self, rank: int) -> None:
        """Keep what is known."""
