"""What stands in folders, as it goes over the wire: many entries in one part, the names in its body.

Layout: the part is a list of [folder, [row, ...]]; the name of each row stands in the body, in their order, joined by
NUL.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Iterator, List, Tuple

    #: A folder, and the name and values of what is in it.
    Group = Tuple[str, List[Tuple[str, List[Any]]]]


def pack(groups: "Iterable[Group]") -> "Tuple[List[Any], bytes]":
    """Part and body."""
    part = []
    names = []
    for folder, entries in groups:
        part.append([folder, [values for _, values in entries]])
        names += [name for name, _ in entries]
    return part, '\0'.join(names).encode('utf-8', 'surrogateescape')


def unpack(part: "List[Any]", body: bytes) -> "Iterator[Group]":
    """The groups again."""
    names = iter(body.decode('utf-8', 'surrogateescape').split('\0'))
    for folder, rows in part:
        yield folder, [(next(names), values) for values in rows]
