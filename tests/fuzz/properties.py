"""The property that every reader has, and how thoroughly it is tested."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.contents import CONTENTS
from tests.fuzz.mutation import damaged
from tests.fuzz.seeds import seeds
from tests.fuzz.session import Outcome, Session

KINDS = ("image", "label", "classes", "config", "checkpoint")

_COMMON = {
    "deadline": None,  # Session has a limit that also ends what hangs
    "database": None,
    "report_multiple_bugs": False,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.large_base_example],
    "phases": [Phase.explicit, Phase.generate, Phase.shrink],
}
QUICK = "quick"
settings.register_profile(QUICK, max_examples=150, derandomize=True, **_COMMON)
settings.register_profile("long", max_examples=500, **_COMMON)


class FaultError(AssertionError):
    """A damaged file that was neither answered nor refused."""

    def __init__(self, kind: str, name: str, content: bytes, outcome: Outcome) -> None:
        super().__init__(f"{kind} file {name} {outcome.kind}: {outcome.told}\n{content[:2000]!r}")
        self.name, self.content, self.outcome = name, content, outcome


def damaged_files_are_answered_or_refused(
    kind: str, session: Session, profile: str
) -> Callable[[], None]:
    """A hypothesis test: a reader answers or raises a UserError of one line, whatever it reads."""

    files = damaged(seeds()[kind])
    if kind in CONTENTS:
        files = st.one_of(files, CONTENTS[kind]())

    @settings(settings.get_profile(profile))
    @given(files)
    def test(file: tuple[str, bytes]) -> None:
        outcome = session.read(kind, *file)
        if outcome.is_fault:
            raise FaultError(kind, *file, outcome)

    return test
