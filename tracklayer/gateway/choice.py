"""Which server a request goes to, and which one next when that one does not take it."""

from __future__ import annotations

from tracklayer.gateway.backends import Backend
from tracklayer.gateway.live import LiveRoute, LiveVersion


class Choice:
    """The server that has a request, counted there from the first moment on: those of a route that
    changes now wait for it.

    :param pinned: the version that the caller named; None: by the shares.
    :param turn: whose turn it is, where that was found already.
    """

    __slots__ = ("_candidates", "_live", "_now", "_pinned", "_tried", "backend", "version")

    def __init__(
        self,
        live: LiveRoute,
        pinned: LiveVersion | None,
        now: float,
        turn: LiveVersion | None = None,
    ) -> None:
        self._live = live
        self._pinned = pinned
        self._now = now
        self._tried: list[LiveVersion] = []
        self.backend: Backend | None = None
        self._choose(pinned or turn or live.next())

    @property
    def on_trial(self) -> bool:
        """Is this a version that shall cost nobody a request, with the main one to ask instead?"""
        return self._pinned is None and not self._tried and self.version is not self._live.main

    @property
    def has_next(self) -> bool:
        """Has the version another server?"""
        return bool(self._candidates)

    def next(self) -> Backend:
        """The server to ask now; the version's best at first."""
        backend = self._candidates.pop(0)
        self._hold(backend)
        return backend

    def again(self) -> None:
        """Let the server at hand be asked once more, after the others."""
        if self.backend is not None:
            self._candidates.append(self.backend)

    def fall_back(self) -> None:
        """Go on with the main version."""
        self._tried.append(self.version)
        self._choose(self._live.main)

    def go_elsewhere(self) -> bool:
        """Go on with another version, when no server of this one takes the request: the main one,
        else any that has a share. False: there is none."""
        if self._pinned is None:
            self._tried.append(self.version)
            for version in (self._live.main, *self._live.sharing):
                if version not in self._tried:
                    self._choose(version)
                    return True
        return False

    def release(self) -> None:
        """The request is over."""
        self._hold(None)

    def _choose(self, version: LiveVersion) -> None:
        self.version = version
        self._candidates = version.candidates(self._now)
        self._hold(self._candidates[0])

    def _hold(self, backend: Backend | None) -> None:
        if self.backend is not None:
            self.backend.in_flight -= 1
        self.backend = backend
        if backend is not None:
            backend.in_flight += 1
