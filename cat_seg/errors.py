"""The one exception that entry points turn into a single line and a non-zero exit."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import wraps
from typing import NoReturn, ParamSpec, TypeVar

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

P = ParamSpec("P")
R = TypeVar("R")


class UserError(ValueError):
    """Bad input from the user: one line that names what was wrong, where, and what to do."""

    def __init__(self, message: str) -> None:
        """Take the message; file names in it may hold any bytes, see `printable`."""
        super().__init__(printable(message))


def printable(text: object) -> str:
    """Write a text that may hold a file name so that every stream and file takes it as one line.

    Bytes that are not UTF-8 and control characters become backslash escapes.
    """
    encoded = str(text).encode("utf-8", "backslashreplace").decode()
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], encoded)


def fail(message: str) -> NoReturn:
    """Print `error: message` on stderr and exit with status 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def one_line_errors(main: Callable[P, R]) -> Callable[P, R]:
    """Decorate an entry point so that a UserError ends it with one line and exit status 2."""

    @wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            fail(str(error))

    return wrapped
