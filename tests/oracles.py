"""Naive implementations, slow and plain, that the real ones are compared with."""

from __future__ import annotations
