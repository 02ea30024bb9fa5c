"""JSON without spaces, by the accelerator of Python's `json` alone.

`json` itself imports the regular expressions and all that they need, a fifth of an agent's start. Where the accelerator
is missing, or is not what it was from Python 3.6 to 3.14, `json` does the work.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Tuple

    Dumps = Callable[[object], str]
    Loads = Callable[[str], Any]


class _Decoding:
    """What `json.JSONDecoder` tells the accelerator."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = {'NaN': float('nan'), 'Infinity': float('inf'), '-Infinity': -float('inf')}.__getitem__


def _accelerated() -> "Tuple[Dumps, Loads]":
    """Raises ImportError, AttributeError, TypeError or ValueError where this Python's accelerator is another one."""
    from _json import encode_basestring_ascii, make_encoder, make_scanner

    encode = make_encoder(None, _refuse, encode_basestring_ascii, None, ':', ',', False, False, True)
    scan = make_scanner(_Decoding())  # type: ignore[arg-type]  # typeshed names its own result here

    def dumps(value: object) -> str:
        return ''.join(encode(value, 0))

    def loads(text: str) -> "Any":
        try:
            value, end = scan(text, 0)
        except StopIteration:
            raise ValueError('no JSON value') from None
        except SystemError:  # its own way to say so where `json.decoder`, which has the error's class, is not imported
            raise ValueError('broken JSON') from None
        if text[end:].strip():
            raise ValueError('more than one JSON value')
        return value

    sample = {'a': [1, -2.5, None, True, '\u20ac\n"'], 'b': {}}
    if dumps(sample) != '{"a":[1,-2.5,null,true,"\\u20ac\\n\\""],"b":{}}' or loads(dumps(sample)) != sample:
        raise ValueError('another accelerator')
    return dumps, loads


def _refuse(value: object) -> object:
    raise TypeError('{!r} cannot be JSON'.format(value))


def _ordinary() -> "Tuple[Dumps, Loads]":
    import json

    return json.JSONEncoder(separators=(',', ':')).encode, json.loads


try:
    dumps, loads = _accelerated()
except (ImportError, AttributeError, TypeError, ValueError):
    dumps, loads = _ordinary()
