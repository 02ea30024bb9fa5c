"""Commands and inputs of sweeps: templates, what is wrong with them, and what arrives of the values (SP2)."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from remote_runner.config import util
from remote_runner.config.sweep import tasks
from remote_runner.config.template import innermost_quote, parse_command, quoted
from tests.sweeping import commands, faults_of, sweep

BRACES = ' (a brace itself is written {{ or }})'
QUOTED = 'leave them out, it is quoted anyway, or write {rate:raw}'
OF_SHELL = 'for a variable of the shell'

#: Text as users' data has it, and what a program can get: all but NUL and half characters.
TEXT = st.text(st.characters(exclude_characters='\0', exclude_categories=['Cs']))
NASTY = [
    '', ' ', 'a b', '  a  ', "it's", '"', "'", '\'"\'', '\\', '\\n', 'a\nb', '\n', '\t', '$HOME', '${HOME}',
    '$(id)', '`id`', '{}', '{rate}', '{{', '}}', '{0}', '|', 'a|b', '||', '&', ';', '; id', '>x', '<x', '2>&1',
    '*', '?', '[a]', '~', '~root', '#', '# x', '!', '!!', '-', '--', '-n', '-e', '=', 'A=b', 'PATH=', '%', '%s',
    '%d%%', '\r', '\x01', '\x1b[31m', '\x7f', 'ünï', '日本語', '🜚', '\u2028', '\ufeff', '\udcff', 'if', 'done',
    '{', '}', 'a', '0', '1', '2', '007', '1e9', 'a' * 5000,
]  # fmt: skip


def words(command: str) -> list[bytes]:
    """What a program gets that `sh` starts; the command calls it `show`."""
    show = 'show() { [ $# -eq 0 ] || /usr/bin/printf "%s\\0" "$@"; }; '
    done = subprocess.run(['/bin/sh', '-c', (show + command).encode('utf-8', 'surrogateescape')], capture_output=True)
    assert done.stderr == b''
    return done.stdout.split(b'\0')[:-1]


def as_bytes(text: str) -> bytes:
    return text.encode('utf-8', 'surrogateescape')


class TestCommand:
    def test_values_are_quoted_where_they_must_be(self) -> None:
        assert commands(parameters=util.product(rate=[1, 'a b', "it's", 0.5])) == [
            'echo 1',
            "echo 'a b'",
            "echo 'it'\"'\"'s'",
            'echo 0.5',
        ]

    def test_raw_ones_are_not(self) -> None:
        assert commands(command='{rate:raw} {rate}', parameters=[{'rate': 'a b'}]) == ["a b 'a b'"]

    def test_braces(self) -> None:
        assert commands(command="awk '{{print ${rate:raw}}}' ${{HOME}} {{rate}}") == [
            "awk '{print $1}' ${HOME} {rate}",
            "awk '{print $10}' ${HOME} {rate}",
        ]

    def test_a_list_is_that_list(self) -> None:
        command = ['a b', '{rate}', '{rate:raw}', '-x={rate}.{{}}', '$HOME', 3, b'\xff', Path('p q')]
        assert commands(command=command, parameters=[{'rate': 'a b'}]) == [
            "'a b' 'a b' 'a b' '-x=a b.{}' '$HOME' 3 '\udcff' 'p q'"
        ]

    @pytest.mark.parametrize('first', ['if', '{', '!', 'time', 'A=b', 'while'])
    def test_the_first_word_of_a_list_is_a_program(self, first: str, tmp_path: Path) -> None:
        (tmp_path / first).write_text('#!/bin/sh\nprintf "%s," "$0" "$@"\n')
        (tmp_path / first).chmod(0o755)
        [command] = commands(command=['{first}', '{rate}'], parameters=[{'first': first, 'rate': 'x y'}])
        env = {'PATH': f'{tmp_path}:{os.environ["PATH"]}'}
        done = subprocess.run(['/bin/sh', '-c', command], env=env, capture_output=True, text=True)
        assert done.stdout == f'{tmp_path}/{first},x y,', done.stderr

    def test_a_number_before_a_redirection_stays_an_argument(self, tmp_path: Path) -> None:
        [command] = commands(command=f'printf %s {{rate}}>{tmp_path}/out', parameters=[{'rate': 2}])
        subprocess.run(['/bin/sh', '-c', command], check=True)
        assert (tmp_path / 'out').read_text() == '2'

    @pytest.mark.parametrize('command', ['show {a} {b}', 'show x"$(echo)"{a}\'y\' {b}', ['show', '{a}', '{b}']])
    def test_two_hundred_sets_arrive_exactly(self, command: object) -> None:
        pairs = list(itertools.islice(zip(NASTY * 4, NASTY[7:] * 4, strict=False), 200))
        sets = util.zip(a=[a for a, _ in pairs], b=[b for _, b in pairs])
        around = (b'x', b'y') if isinstance(command, str) and 'echo' in command else (b'', b'')
        made = [task.command for task in tasks(sweep(parameters=sets, command=command))]
        assert len(made) == 200
        for (a, b), text in zip(pairs, made, strict=True):
            assert words(text) == [around[0] + as_bytes(a) + around[1], as_bytes(b)]

    @given(TEXT, TEXT, st.binary().filter(lambda data: 0 not in data))
    def test_whatever_values_are(self, a: str, b: str, c: bytes) -> None:
        for command in ('show {a} -{b}{c}. "{{}}"', ['show', '{a}', '-{b}{c}.', '{{}}']):
            [made] = commands(command=command, parameters=[{'a': a, 'b': b, 'c': c}])
            assert words(made) == [as_bytes(a), b'-' + as_bytes(b) + c + b'.', b'{}']

    @given(st.lists(TEXT, max_size=4))
    def test_whatever_the_words_of_a_list_are(self, given: list[str]) -> None:
        escaped = [word.replace('{', '{{').replace('}', '}}') for word in given]
        [made] = commands(command=['show', *escaped], parameters=[{'rate': 1}])
        assert words(made) == [as_bytes(word) for word in given]

    @given(TEXT)
    def test_quoting_is_what_sh_reads_back(self, text: str) -> None:
        assert words(f'show {quoted(text)} {quoted(text, must_quote=True)}') == [as_bytes(text)] * 2

    @pytest.mark.parametrize(
        ('command', 'said'),
        [
            ('', 'command is empty'),
            ([], 'command is empty'),
            ([''], 'command is empty'),
            (3, 'command must be text for the shell or a list of words, is 3'),
            (b'x', "command must be text for the shell or a list of words, is b'x'"),
            (['a', None], 'command[1] is None'),
            ('a\0', "command 'a\\x00' holds a NUL byte, which no path or argument can"),
            ('echo {rate', "command has a single { after 'echo '; write {{"),
            ('echo }', "command has a single } after 'echo '; write }}"),
            ('echo {}', 'command has {}, which names no parameter; for braces write {{ and }}'),
            ('echo {rate:row}', 'command has {rate:row}: after the colon comes `raw` or nothing'),
            (['a', '{'], "command[1] has a single { after ''; write {{"),
            ('{rat}', 'command names {rat}, which is no parameter; the nearest is {rate}' + BRACES),
            (['x', '{rat}'], 'command[1] names {rat}, which is no parameter; the nearest is {rate}' + BRACES),
            ('echo "{rate}"', 'command has {rate} within quotes: ' + QUOTED),
            ("echo 'a{rate}'", 'command has {rate} within quotes: ' + QUOTED),
            ('echo ${rate}', 'command has ${rate}: write {rate} for the parameter, ${{rate}} ' + OF_SHELL),
            (
                'echo "${rate:raw}"',
                'command has ${rate:raw}: write {rate:raw} for the parameter, ${{rate}} ' + OF_SHELL,
            ),
        ],
    )
    def test_what_is_wrong_with_it(self, command: object, said: str) -> None:
        assert faults_of(command=command) == [said]

    def test_several_at_once(self) -> None:
        assert len(faults_of(command='"{rate}" {} } {rate:x}')) == 3
        assert len(faults_of(command='{a} {b:raw} {a}')) == 2

    @pytest.mark.parametrize(
        'before',
        [
            'show ',
            "show 'a'",
            'show "a"',
            "show \\'",
            'show \\"',
            'show "\\""',
            "show '\\'",
            'show "it\'s" ',
            "show '\"' ",
            'show "`echo ',
            "show $(echo 'x' ",
            "show # it's\nshow ",
            'show a#"b" ',
            "show '#' ",
            'show "#" ',
            'show "# " ',
            'show "$(echo "a" ',
            'show $((1 + 2)) ',
            "show \\\\'' ",
        ],
    )
    def test_what_looks_like_quotes_and_is_none(self, before: str) -> None:
        assert parse_command(f'{before}{{rate}}')

    @pytest.mark.parametrize(
        'before',
        ["'", '"', '"$(echo) ', '"`echo` ', "$(echo '", '$(echo "', "\\\\'", '"\\" ', "'\\", '"# ', "# x'\n'", "a#'"],
    )
    def test_quotes(self, before: str) -> None:
        assert any('within quotes' in fault for fault in faults_of(command=f'{before}{{rate}}'))
        assert not any('within quotes' in fault for fault in faults_of(command=f'{before}{{rate:raw}}'))

    @settings(max_examples=300)
    @given(st.lists(st.sampled_from(["'", '"', '\\"', "\\'", '$(', ')', ' ', 'a', '#', '\n', 'x=']), max_size=9))
    def test_the_shell_sees_the_same_quotes(self, tokens: list[str]) -> None:
        beginning = 'a ' + ''.join(tokens)
        said = subprocess.run(['dash', '-n', '-c', beginning], capture_output=True, text=True).stderr
        is_quoted = 'Unterminated quoted string' in said
        assume(is_quoted or not said or 'end of file' in said)  # else it is wrong already before it ends
        assert bool(innermost_quote(beginning)) == is_quoted

    def test_behind_a_here_document_no_quotes_are_known_of(self) -> None:
        assert faults_of(command="cat <<END; echo {rate}\nit's {rate:raw}\nEND\necho {rate}") == []


class TestProgram:
    """A command that begins with a program of the working folder, which starts empty."""

    @pytest.mark.parametrize('command', ['./client {rate}', ['./client', '{rate}'], 'bin/../client; ls', '././client'])
    def test_that_nothing_brings(self, command: object) -> None:
        assert [fault for fault in faults_of(command=command) if "bring 'client'" in fault]

    @pytest.mark.parametrize(
        'brought',
        [
            {'files': {'bin/client': 'client'}},
            {'files': {'bin/client': './client'}},
            {'inputs': {'client': '#!/bin/sh\n'}},
            {'executables': {'linux-x86_64': 'build/client', 'linux-aarch64': 'build/client.arm'}},
        ],
    )
    def test_that_is_brought(self, brought: dict[str, Any]) -> None:
        assert faults_of(command='./client {rate}', **brought) == []

    @pytest.mark.parametrize(
        'command',
        [
            'client',
            '/opt/client',
            '~/client',
            '$X/client',
            'X=1 ./client',
            'cd x && ./client',
            './client{rate}',
            '"./c"',
            ['./{rate}'],
            '{rate:raw}/client',
            '{rate:raw}',
        ],
    )
    def test_that_may_be_anywhere(self, command: object) -> None:
        assert faults_of(command=command) == []


class TestInputs:
    def test_values_stand_there_as_they_are(self) -> None:
        inputs = {'in.dat': 'rate={rate}\n{{}} "{rate:raw}"', 'stdin': b'\xff{rate}\0', 'a/b': ''}
        [task] = tasks(sweep(inputs=inputs, parameters=[{'rate': b"it's \xfe"}]))
        assert task.inputs == {
            'in.dat': b'rate=it\'s \xfe\n{} "it\'s \xfe"',
            'stdin': b"\xffit's \xfe\0",
            'a/b': b'',
        }

    @given(TEXT, st.binary())
    def test_whatever_is_in_them(self, value: str, content: bytes) -> None:
        escaped = content.replace(b'{', b'{{').replace(b'}', b'}}')
        [task] = tasks(sweep(inputs={'x': escaped + b'{rate}'}, parameters=[{'rate': value}]))
        assert task.inputs == {'x': content + as_bytes(value)}

    @pytest.mark.parametrize(
        ('inputs', 'said'),
        [
            ('x', "inputs must be a dict of file to content, is 'x'"),
            ({'x': 3}, "inputs['x'] must be text or bytes, is 3"),
            ({'x': '{rat}'}, "inputs['x'] names {rat}, which is no parameter; the nearest is {rate}" + BRACES),
            ({'x': b'{'}, "inputs['x'] has a single { after ''; write {{"),
            ({'x': '\ud800'}, "inputs['x'] '\\ud800' holds '\\ud800', which is no character"),
            ({'/x': ''}, "inputs['/x']: the path must be below the working folder, is '/x'"),
            ({'a/../../x': ''}, "inputs['a/../../x']: the path leads out of the working folder: 'a/../../x'"),
            ({'x/': ''}, "inputs['x/']: the path must be a file, is a folder: 'x/'"),
            ({'.': ''}, "inputs['.']: the path must be a file, is a folder: '.'"),
            ({'{rate}': ''}, "inputs['{rate}']: the path takes no parameters, has braces: '{rate}'"),
            ({3: ''}, 'inputs[3]: the path must be a path, is 3'),
            ({'x': '', './x': ''}, "inputs['./x'] is there twice"),
            ({'x': '', 'x/y': ''}, "inputs['x'] must be a folder as well"),
            (
                {'x' * 300: ''},
                f"inputs['{'x' * 56}...]: the path has a name of 300 bytes, hosts allow 255: '{'x' * 56}...",
            ),
        ],
    )
    def test_what_is_wrong_with_them(self, inputs: object, said: str) -> None:
        assert faults_of(inputs=inputs) == [said]

    def test_a_path_that_files_bring_too(self) -> None:
        assert faults_of(inputs={'x': ''}, files={'a': './x'}) == ["inputs and files both bring 'x'"]
