"""What nobody else shall read: passwords, and values of env files. Plan, events and record show `***` for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

#: Characters of a secret that is masked wherever it stands in a text; shorter ones where they are the whole text.
LEAST_LENGTH = 4
MASK = '***'


class Secrets:
    """A set of secrets. Its repr does not show them.

    Args:
        secrets: empty ones and None do not count.
    """

    def __init__(self, secrets: Iterable[str | None] = ()) -> None:
        # The longest first: one may stand within another.
        known = {secret for secret in secrets if secret}
        self._secrets = tuple(sorted(known, key=lambda secret: (-len(secret), secret)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secrets) and self._secrets == other._secrets

    def __hash__(self) -> int:
        return hash(self._secrets)

    def __repr__(self) -> str:
        return f'Secrets({len(self._secrets)} of them)'

    def __bool__(self) -> bool:
        return bool(self._secrets)

    def __or__(self, other: Secrets) -> Secrets:
        return Secrets((*self._secrets, *other._secrets))

    def mask(self, text: str) -> str:
        """`text` without them."""
        for secret in self._secrets:
            if text == secret:
                return MASK
            if len(secret) >= LEAST_LENGTH:
                text = text.replace(secret, MASK)
        return text

    def mask_all(self, value: Any) -> Any:
        """A value for JSON, with all texts in it masked; the names of fields are not."""
        match value:
            case str():
                return self.mask(value)
            case dict():
                return {key: self.mask_all(item) for key, item in value.items()}
            case list() | tuple():
                return [self.mask_all(item) for item in value]
        return value
