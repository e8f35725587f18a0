"""Whose answer counts where somebody chooses twice: of a visitor's choices of data the latest, with the preset that was
chosen while it was being read.

Try it: turns = Turns(); turns.open("me"); turns.meanwhile("me", "tiny"); turns.begin("me").close()
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass

# Visitors remembered; the first one to come goes first.
MAX_VISITORS = 1000


@dataclass
class _Visitor:
    """The number of the latest choice, whether its answer is still to come, the preset chosen since, the preset
    whose arguments are still to come, and the preset that an answer put into the form last."""

    latest: int = 0
    waits: bool = False
    preset: str | None = None
    sized: str | None = None
    filled: str | None = None


@dataclass(frozen=True)
class Turn:
    """One choice of data that is being answered."""

    visitor: _Visitor
    number: int

    def close(self) -> None:
        """The data are read, or can't be."""
        if self.is_latest:
            self.visitor.waits = False

    def fill(self, usual: str) -> str:
        """The data are read: the preset for the form, which is the one chosen meanwhile, or else the usual one."""
        self.close()
        self.visitor.filled = self.visitor.preset or usual
        return self.visitor.filled

    @property
    def is_latest(self) -> bool:
        """Whether its visitor has not chosen again since."""
        return self.number == self.visitor.latest


class Turns:
    """The choices of all visitors."""

    def __init__(self) -> None:
        self._visitors: OrderedDict[str | None, _Visitor] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, visitor: str | None) -> None:
        """Data were chosen, and will be read."""
        with self._lock:
            known = self._known(visitor)
            known.latest, known.waits, known.preset = known.latest + 1, True, None

    def begin(self, visitor: str | None) -> Turn:
        """Data are being read."""
        with self._lock:
            known = self._known(visitor)
            known.latest, known.waits = known.latest + 1, True
            return Turn(known, known.latest)

    def waits(self, visitor: str | None) -> bool:
        """Whether an answer is still to come, of data or of a preset."""
        with self._lock:
            known = self._known(visitor)
            return known.waits or known.sized is not None

    def size(self, visitor: str | None, preset: str) -> None:
        """A preset was chosen, and will be asked for."""
        with self._lock:
            self._known(visitor).sized = preset

    def meanwhile(self, visitor: str | None, preset: str) -> tuple[str, bool]:
        """A preset is asked for: (the one that was chosen, whether the answer that is still to come brings its
        arguments)."""
        with self._lock:
            known = self._known(visitor)
            # An answer was on its way when the preset was chosen, and put its own in the form.
            if known.sized is not None and preset == known.filled:
                preset = known.sized
            if known.waits:
                known.preset = preset
            else:
                known.filled = preset
            if known.sized == preset:
                known.sized = None
            return preset, known.waits

    def _known(self, visitor: str | None) -> _Visitor:
        if visitor not in self._visitors:
            self._visitors[visitor] = _Visitor()
            if len(self._visitors) > MAX_VISITORS:
                self._visitors.popitem(last=False)
        return self._visitors[visitor]
