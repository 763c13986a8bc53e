"""From a list of requirements to a lock, and from the lock to a virtual environment."""

from __future__ import annotations

from tracklayer.packages.environments import Environment, prepare

__all__ = ["Environment", "prepare"]
