"""The truth of chips: class and roles of each pixel, packed into planes."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

ROUNDS_PER_PLANE = 8


def planes(rounds: int) -> int:
    """Return the number of uint16 planes that hold a pixel's class and its role in each round."""
    return 1 + -(-rounds // ROUNDS_PER_PLANE)


def packed(codes: Array, roles: list[Array]) -> Array:
    """Pack class (plus one, zero for none) and roles (two bits a round) into planes, (P, h, w) uint16."""
    stack = np.zeros((planes(len(roles)), *codes.shape), np.uint16)
    stack[0] = codes + 1
    for r, role in enumerate(roles):
        plane, place = divmod(r, ROUNDS_PER_PLANE)
        stack[1 + plane] |= role.astype(np.uint16) << np.uint16(2 * place)
    return stack


def roles_of(truth: Array, round_: int) -> Array:
    """Return roles (..., S, S) in a round of packed truth (..., P, S, S)."""
    plane, place = divmod(round_, ROUNDS_PER_PLANE)
    return np.asarray((truth[..., 1 + plane, :, :] >> np.uint16(2 * place)) & np.uint16(3))
