"""Whether a program that has ended is started again, and after which pause: `restart` and `max_restarts`."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

#: Seconds before the first restart; the pause doubles with each one that follows, up to the last.
FIRST_PAUSE, LAST_PAUSE = 0.5, 30.0
#: Seconds after which a program counts as well: what comes then is a first restart again.
WELL_AFTER = 60.0


class Policy:
    """Counts the restarts of one component.

    Args:
        spec: what the launcher was told.

    Attributes:
        count: restarts since the component was started.
    """

    def __init__(self, spec: "dict[str, Any]") -> None:
        self._when = spec['restart']
        self._most: "Optional[int]" = spec['max_restarts']
        self._in_a_row = 0
        self.count = 0

    def pause(self, is_failure: bool, lived: float) -> "Optional[float]":
        """Seconds until it is to be started again; None: it is not.

        Args:
            is_failure: whether it ended without success.
            lived: seconds for which it ran.
        """
        if self._when == 'no' or (self._when == 'on-failure' and not is_failure):
            return None
        if lived >= WELL_AFTER:
            self._in_a_row = 0
        if self._most is not None and self._in_a_row >= self._most:
            return None
        pause = min(FIRST_PAUSE * 2.0 ** min(self._in_a_row, 16), LAST_PAUSE)
        self._in_a_row += 1
        self.count += 1
        return pause
