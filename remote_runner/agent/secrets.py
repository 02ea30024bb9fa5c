"""How what nobody else shall read is masked: the rules of the host and of the master are these.

It imports nothing, so that every process of ours can do without the rest.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, AnyStr, Dict, Iterable, Optional, Sequence, Tuple

#: Characters of a secret that is masked wherever it stands in a text; shorter ones where they are the whole text.
LEAST_LENGTH = 4
MASK = '***'


def in_order(secrets: "Iterable[Optional[str]]") -> "Tuple[str, ...]":
    """Secrets as `mask` takes them; empty ones and None do not count."""
    # The longest first: one may stand within another.
    return tuple(sorted({secret for secret in secrets if secret}, key=lambda secret: (-len(secret), secret)))


def of_spec(spec: "Dict[str, Any]") -> "Tuple[str, ...]":
    """The values of a component's secret variables, and what else of it is secret. Old specs name none."""
    names = [name.encode('utf-8', 'surrogateescape') for name in spec.get('secrets', ())]
    values = [spec['env'][name] for name in names] + list(spec.get('hidden', ()))
    # As output and names of files are decoded: bytes that are no UTF-8 stand there in two ways.
    return in_order(value.decode('utf-8', how) for value in values for how in ('replace', 'surrogateescape'))


def mask(text: str, secrets: "Iterable[str]") -> str:
    """`text` without the secrets, which come from `in_order`."""
    for secret in secrets:
        if text == secret:
            return MASK
        if len(secret) >= LEAST_LENGTH:
            text = text.replace(secret, MASK)
    return text


def mask_all(value: "Any", secrets: "Iterable[str]") -> "Any":
    """A value for JSON, with all texts in it masked; the names of fields are not."""
    if isinstance(value, str):
        return mask(value, secrets)
    if isinstance(value, dict):
        return {key: mask_all(value[key], secrets) for key in value}
    if isinstance(value, (list, tuple)):
        return [mask_all(item, secrets) for item in value]
    return value


def cut(text: "AnyStr", most: int, secrets: "Sequence[AnyStr]") -> "AnyStr":
    """The first `most` characters of a text, fewer where that would leave a part of a secret: nobody would mask it."""
    if len(text) <= most:
        return text
    while True:
        begins = [text.find(secret, max(0, most - len(secret) + 1), most + len(secret) - 1) for secret in secrets]
        split = [begin for begin in begins if begin >= 0]
        if not split:
            return text[:most]
        most = min(split)
