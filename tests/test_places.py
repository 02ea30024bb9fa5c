"""Which folders a copy is about, and which of two hosts may be one."""

from __future__ import annotations

import pytest

from remote_runner.files.manifest import Entry, Manifest
from remote_runner.files.places import MOST, Meeting, Place, above, is_in, meet, tops_of


def place(folder: str, inodes: list[int], rest: str = '', system: str = '') -> Place:
    return Place('/as/it/is/called', folder, tuple(inodes), rest, system)


@pytest.mark.parametrize(
    ('there', 'here', 'expected'),
    [
        (place('/a', [7]), place('/b', [7]), Meeting('/a', '/b')),
        (place('/a', [7]), place('/b', [8]), None),
        (place('/a', [7], 'x/y'), place('/b', [7], 'x/y'), Meeting('/a/x/y', '/b')),
        (place('/a', [7], 'x/y'), place('/b', [7], 'x/z'), None),  # side by side
        (place('/a', [7], 'x/y'), place('/b', [7], 'x'), Meeting('/a/x', '/b')),
        (place('/a', [7], 'x'), place('/b', [7], 'x/y'), Meeting('/a/x/y', '/b')),
        (place('/a', [7], 'x'), place('/b', [7], 'xy'), None),
        # The one was made meanwhile.
        (place('/a', [7], 'x/y'), place('/b/x/y', [9, 8, 7]), Meeting('/a/x/y', '/b')),
        (place('/a/x/y', [9, 8, 7]), place('/b', [7], 'x/y'), Meeting('/a/x/y', '/b/x/y')),
        (place('/a', [7]), place('/b/x/y', [9, 8, 7], 'z'), Meeting('/a/x/y/z', '/b')),
        (place('/a/x', [8, 7], 'y'), place('/b', [7]), Meeting('/a', '/b/x')),
        (place('/a/x', [8, 7]), place('/b/y', [9, 7]), None),
        (place('/', [2], 'x'), place('/', [2], 'x'), Meeting('/x', '/')),
        (place('/', [2], 'x'), place('/x', [7, 2]), Meeting('/x', '/')),
        (place('/x', [7, 2]), place('/', [2]), Meeting('/', '/x')),
        (place('/a', [7], system='one'), place('/b', [7], system='one'), Meeting('/a', '/b')),
        (place('/a', [7], system='one'), place('/b', [7], system='other'), None),
        (place('/a', [7], system='one'), place('/b', [7]), None),
    ],
)
def test_meeting(there: Place, here: Place, expected: Meeting | None) -> None:
    assert meet(there, here) == expected


def files(*paths: str) -> tuple[Entry, ...]:
    return tuple(Entry('/here', path, 1, 0o644) for path in paths)


@pytest.mark.parametrize(
    ('manifest', 'expected'),
    [
        (Manifest(()), ()),
        (Manifest(files('/a/f')), ('/a',)),
        (Manifest(files('/f')), ('/',)),
        (Manifest(files('~/f', '~/a/f', '/a/f')), ('/a', '~')),
        (Manifest(files('/a/f', '/a/b/f', '/ab/f', '/a-b/f')), ('/a-b', '/a', '/ab')),
        (Manifest(files('/a/b/f', '/a/c/f')), ('/a/b', '/a/c')),
        (Manifest(files('/a/b/f', '/a/c/f'), tops=('/a',)), ('/a',)),
        (Manifest(files('/a/b/f'), tops=('/a', '/z')), ('/a/b',)),
        (Manifest(files('/a/b/f', '/etc/f'), tops=('/a', '/a/b')), ('/a/b', '/etc')),
        (Manifest(files('/a/x/../f', '/a/./b/f')), ('/a',)),
        (Manifest((), folders=(('/a/b', None),), links=(('/c/l', 'x'),), bits=(('/d', 0o700),)), ('/a/b', '/c', '/d')),
    ],
)
def test_tops(manifest: Manifest, expected: tuple[str, ...]) -> None:
    assert sorted(tops_of(manifest)) == sorted(expected)


def test_of_many_folders_those_above_are_tops() -> None:
    deep = [f'/data/{number}/x/f' for number in range(100)]
    manifest = Manifest(files(*deep, '/etc/f', '~/a/f'))
    tops = tops_of(manifest)
    assert tops == ('/data', '/etc', '~/a')
    many = Manifest(files(*[f'/{number}/{number}/f' for number in range(100)]))
    assert len(tops_of(many)) <= MOST
    assert all(any(is_in(entry.remote, top) for top in tops_of(many)) for entry in many.files)


def test_above() -> None:
    assert list(above('/a/b')) == ['/a/b', '/a', '/']
    assert list(above('~/a')) == ['~/a', '~']
    assert list(above('/')) == ['/']
