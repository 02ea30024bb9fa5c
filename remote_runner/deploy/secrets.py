"""What nobody else shall read: passwords, and values of env files. Plan, events and record show `***` for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from remote_runner.agent import secrets as rules

MASK = rules.MASK


class Secrets:
    """A set of secrets. Its repr does not show them.

    Args:
        secrets: empty ones and None do not count.
    """

    def __init__(self, secrets: Iterable[str | None] = ()) -> None:
        self._secrets = rules.in_order(secrets)

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
        return rules.mask(text, self._secrets)

    def within(self, value: Any) -> list[str]:
        """Those that would be masked in a value for JSON."""
        plain = rules.mask_all(value, ())
        return [secret for secret in self._secrets if rules.mask_all(value, (secret,)) != plain]

    def mask_all(self, value: Any) -> Any:
        """A value for JSON, with all texts in it masked; the names of fields are not."""
        return rules.mask_all(value, self._secrets)


NO_SECRETS = Secrets()
