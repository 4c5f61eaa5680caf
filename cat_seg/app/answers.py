"""Computed answers, kept for a while so that threshold and opacity need no second forward pass."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict

from cat_seg.errors import UserError
from cat_seg.inference import Result


class Answers:
    """The latest results under unguessable keys, up to a total size.

    All methods may be called from several threads.
    """

    def __init__(self, most_bytes: int = 2 * 2**30) -> None:
        """Keep results of up to `most_bytes`, but always the latest one."""
        self._most_bytes = most_bytes
        self._results: OrderedDict[str, Result] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, result: Result) -> str:
        """Keep a result, at the expense of those not used for longest, and return its key."""
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._results[key] = result
            while len(self._results) > 1 and self._bytes() > self._most_bytes:
                self._results.popitem(last=False)
        return key

    def get(self, key: str) -> Result:
        """Return the result of a key.

        Raises:
            UserError: it is no longer kept, or never was.
        """
        with self._lock:
            if key not in self._results:
                raise UserError("this answer is no longer kept; press Segment again")
            self._results.move_to_end(key)
            return self._results[key]

    def _bytes(self) -> int:
        return sum(map(_size, self._results.values()))


def _size(result: Result) -> int:
    maps = (result.labels, result.confidence, result.margin, result.entropy, result.image)
    return sum(values.nbytes for values in maps)
