"""The one exception that entry points turn into a single line and a non-zero exit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class UserError(ValueError):
    """Bad input from the user: one line that names what was wrong, where, and what to do."""


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
