"""RR5: arguments reach the program as exactly that list."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.deploying import Deployment, Ended, deploying
from tests.testbed import Testbed

# Characters that shells, screen, Python, JSON or terminals take for something else, and bytes that are no UTF-8.
_ODD = ' \t\n\r\'"\\$`*?[]{}()<>|&;#!~^%=+-_.:,@/\x01\x02\x03\x1b\x7f\x9b\udc80\udcffaAx0nä€語𝄞\u202e\ufeff\ud800'
_ODD = ''.join(character for character in _ODD if character != '\ud800')  # no file system takes a lone surrogate
_WORDS = st.sampled_from(
    ['$HOME', '${HOME}', '$(id)', '`id`', '^x', '^Ax', '\\n', '%s', '%%', '*', '~', '~root', '--', '-c', '!!', "'", '"']
)
_TEXTS = st.text(st.sampled_from(_ODD), max_size=12) | _WORDS
_BYTES = st.binary(max_size=40).map(lambda some: os.fsdecode(some.replace(b'\0', b'')))
_LONG = st.builds(lambda text, times: text * times, st.text(st.sampled_from(_ODD), min_size=1), st.integers(1, 2000))
_ARGUMENT = _TEXTS | _BYTES | _LONG
_ARGUMENTS = st.lists(_ARGUMENT, max_size=8) | st.lists(_TEXTS, min_size=59, max_size=200)

# The kernel's own record of its argv, so that no language has a say. The program's path is cut off.
_DUMP = '#!/bin/sh\ncat "/proc/$$/cmdline" >argv\n'


def _dump(deployment: Deployment, lists: Sequence[Sequence[object]], *options: str) -> Ended:
    """Deploy a component for each list of arguments, whose program keeps what it got."""
    (deployment.folder / 'dump').write_text(_DUMP)
    (deployment.folder / 'dump').chmod(0o755)
    for number, arguments in enumerate(lists):
        base_dir = f'/tmp/{deployment.session}/{number}'
        deployment.add(f'c{number}', 'dump', arguments, base_dir=base_dir, files={'dump': 'dump'})
    return deployment.run(*options)


def _got(deployment: Deployment, number: int) -> list[bytes]:
    """The arguments that the program of this component got."""
    argv = deployment.host().path(f'/tmp/{deployment.session}/{number}/argv').read_bytes()
    words = argv.split(b'\0')
    assert words[0].endswith(b'sh')
    assert words[1].endswith(b'/dump')
    assert words[-1] == b''
    return words[2:-1]


def _check(deployment: Deployment, lists: Sequence[Sequence[str]]) -> None:
    ended = _dump(deployment, lists)
    assert ended.status == 0, ended.stderr
    for number, arguments in enumerate(lists):
        assert _got(deployment, number) == [os.fsencode(argument) for argument in arguments]


@settings(max_examples=5, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(lists=st.lists(_ARGUMENTS, min_size=16, max_size=16))
def test_any_arguments(bed: Testbed, tmp_path_factory: object, lists: list[list[str]]) -> None:
    folder: Path = tmp_path_factory.mktemp('arguments')  # type: ignore[attr-defined]
    with deploying(bed, folder) as deployment:
        _check(deployment, lists)


def test_arguments_known_to_be_hard(deployment: Deployment) -> None:
    _check(
        deployment,
        [
            [],
            [''],
            ['', '', ''],
            ['a b', ' ', '\t', '\n', 'a\nb\n'],
            ["it's", '"', "'\"'", '\\', '\\\\', "\\'", '`id`', '$(id)'],
            ['$HOME', '${HOME}', '$', '$$', '*', '?', '[a-z]', '{a,b}', '~', '~root'],
            ['^x', '^', '^^', '^A', '\x01', '%n', '%', '\x1b[31m', '\x7f', '\x9b'],
            ['#', '# comment', '!', '!!', ';', '&', '|', '<', '>', '--', '-', '-c', '=', '@file'],
            ['ä', 'e\u0301', '語', '𝄞', '\u202e', '\ufeff', '\x85', '\u2028'],
            [os.fsdecode(bytes(byte for byte in range(1, 256)))],
            ['\udcff\udcfe', 'ä'.encode('latin-1').decode(errors='surrogateescape')],
            ['x' * 701, 'y' * 5000],
            [str(number) for number in range(1000)],
            ['z' * 100_000],
            ['ä' * 60_000, '\n' * 100_000, "'" * 130_000],
            ['w' * 100_000] * 15,
        ],
    )


def test_arguments_reach_programs_on_this_machine(deployment: Deployment, tmp_path: Path) -> None:
    hard = ['', 'a b', "it's", '$HOME', '^x', '\n', '\udcff', '#', 'x' * 100_000]
    program = 'import os,sys; open("argv", "wb").write(b"\\0".join(os.fsencode(a) for a in sys.argv[1:]))'
    deployment.python('local', program, 'localhost', base_dir=str(tmp_path))
    deployment.components[0]['args'] += hard
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    assert (tmp_path / 'argv').read_bytes() == b'\0'.join(os.fsencode(argument) for argument in hard)


def test_numbers_paths_and_bytes_become_text(deployment: Deployment) -> None:
    ended = _dump(deployment, [[1, 2.5, -3, 1e100, b'\xff a']])
    assert ended.status == 0, ended.stderr
    assert _got(deployment, 0) == [b'1', b'2.5', b'-3', b'1e+100', b'\xff a']


def test_more_than_the_kernel_takes_is_an_error_of_that_component(deployment: Deployment) -> None:
    ended = _dump(deployment, [['x' * 131_072], ['fine']])
    assert ended.status == 1
    assert ended.names('component_started') == ['c1']
    assert 'arguments' in ended.failure('c0')
    assert 'too long' in ended.failure('c0')
    assert _got(deployment, 1) == [b'fine']
