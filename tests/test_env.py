"""The environment of components: `env`, `env_file`, and that what stands in that is read by nobody else."""

from __future__ import annotations

import json
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_runner.config.env_file import read_variables
from remote_runner.config.reading import BadValueError
from remote_runner.deploy.secrets import MASK, Secrets
from tests.deploying import Deployment

SECRET = 'correct horse battery'


@pytest.fixture
def env_file(deployment: Deployment) -> Path:
    """A file of variables beside the config."""
    path = deployment.folder / 'secret.env'
    path.write_text(f'# of the test\n\nexport TOKEN="{SECRET}"\nFROM=file\nBOTH=file\nEMPTY=\nHOME=/tmp\n')
    return path


def test_what_a_program_finds_in_its_environment(deployment: Deployment, env_file: Path) -> None:
    """`env` wins over `env_file`, that over the login, and what the docs promise over all."""
    env = {'BOTH': 'env', 'ODD': "a 'b' $HOME\n*", 'NUMBER': 7, 'RR_HOST': 'mine', 'PATH': '/nowhere', 'ä': 'ö'}
    deployment.add('it', '/bin/cp', ['/proc/self/environ', '/tmp/env'], env=env, env_file=env_file.name, wait=True)
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    found = dict(word.split('=', 1) for word in deployment.text('/tmp/env').split('\0') if word)
    wanted = {'TOKEN': SECRET, 'FROM': 'file', 'BOTH': 'env', 'EMPTY': '', 'HOME': '/tmp', 'ODD': env['ODD']}
    assert {name: found[name] for name in wanted} == wanted
    assert (found['NUMBER'], found['RR_HOST'], found['PATH'], found['ä']) == ('7', 'h1', '/nowhere', 'ö')
    assert found['USER'] == 'root'


def test_it_has_its_environment_in_every_life(deployment: Deployment, env_file: Path) -> None:
    script = 'echo "$TOKEN" >>/tmp/tokens; test $(wc -l </tmp/tokens) = 2'
    deployment.sh('it', script, env_file=str(env_file), restart='on-failure', wait=True, start_grace=0)
    assert deployment.run().status == 0
    assert deployment.text('/tmp/tokens') == f'{SECRET}\n' * 2


def test_secrets_are_masked_wherever_the_plan_is_shown(deployment: Deployment, env_file: Path) -> None:
    deployment.sleep('it', env={'A': f'={SECRET}=', 'P': 'hunter2'}, env_file=str(env_file))
    deployment.components[-1]['args'] = ['--token', SECRET, f'--also={SECRET}', 'hunter2', 'other']
    plan = json.loads(preview(deployment, '--json', '-p', 'hunter2'))
    [component] = plan['indexes'][0]['components']
    assert component['args'] == ['--token', MASK, f'--also={MASK}', MASK, 'other']
    assert component['env'] == {
        'TOKEN': MASK, 'FROM': MASK, 'BOTH': MASK, 'EMPTY': MASK, 'HOME': MASK, 'A': f'={MASK}=', 'P': MASK
    }  # fmt: skip
    assert component['env_file'] == str(env_file)
    for shown in (json.dumps(plan), preview(deployment, '-p', 'hunter2')):
        assert SECRET not in shown
        assert 'hunter2' not in shown


def preview(deployment: Deployment, *options: str) -> str:
    """What the command `plan` prints."""
    command = deployment.command(*options)
    command.insert(command.index('remote_runner') + 1, 'plan')
    return deployment.shell(' '.join(f"'{word}'" for word in command))


@pytest.mark.parametrize('options', [['--json'], [], ['-l', 'DEBUG']], ids=' '.join)
def test_secrets_are_masked_in_all_that_a_run_says(deployment: Deployment, env_file: Path, options: list[str]) -> None:
    script = 'echo "with $TOKEN and $1"; systemd-notify --status="has $TOKEN" ERRNO=5; exit 3'
    deployment.sh('it', script, env_file=str(env_file), start_grace=30, wait=True)
    deployment.components[-1]['args'] += ['sh', 'hunter2']
    deployment.sh('said', 'systemd-notify --status="has $TOKEN" --ready; exit 0', env_file=str(env_file), watchdog=9)
    ended = deployment.begin_plain('-p', 'hunter2', *options).finish()
    assert ended.status == 1
    assert f'with {MASK} and {MASK}' in ended.stderr
    assert f'has {MASK}' in ended.stderr
    for text in (ended.stdout, ended.stderr):
        assert SECRET not in text
        assert 'hunter2' not in text
    assert SECRET in deployment.output_log('it').read_text()  # on the host nothing is changed


def test_on_the_host_only_its_user_can_read_secrets(deployment: Deployment, env_file: Path) -> None:
    deployment.sleep('it', env_file=str(env_file))
    assert deployment.run().status == 0
    folder = deployment.output_log('it').parent
    holding = [path for path in folder.iterdir() if SECRET.encode() in path.read_bytes()]
    assert [path.name for path in holding] == ['spec']
    assert stat.S_IMODE(holding[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for process in deployment.host().processes():
        assert SECRET not in ' '.join(process.argv)


# Faults


@pytest.mark.parametrize(
    ('content', 'fault'),
    [
        (b'A=1\nhunter2 alone\n', 'line 2: is no NAME=value'),
        (b'hunter2 x=1\n', 'line 1: is no NAME=value'),
        (b'=hunter2\n', 'line 1: is no NAME=value'),
        (b'hunter2/hunter2==\n', 'line 1: is no NAME=value'),
        (b'\n\nA=hunter2\0x\n', 'line 3: its value holds a NUL byte'),
        (b'hunter2\0=x\n', 'line 1: is no NAME=value'),
        (None, 'cannot be read: No such file or directory'),
    ],
)
def test_faults_do_not_show_what_stands_in_the_file(deployment: Deployment, content: bytes | None, fault: str) -> None:
    path = deployment.folder / 'bad.env'
    if content is not None:
        path.write_bytes(content)
    deployment.sleep('it', env_file='bad.env')
    ended = deployment.run()
    assert ended.status == 2
    assert f'it@h1: env_file {path}' in ended.stderr
    assert fault in ended.stderr
    assert 'hunter2' not in ended.stderr


@pytest.mark.parametrize(
    ('attributes', 'fault'),
    [
        ({'env': ['A=1']}, "env must be a dict of variables, is ['A=1']"),
        ({'env': {'A=B': '1'}}, "env['A=B'] is no name of a variable"),
        ({'env': {'': '1'}}, "env[''] is no name of a variable"),
        ({'env': {'A': None}}, "env['A'] is None"),
        ({'env': {'A': 'a\0b'}}, 'holds a NUL byte'),
        ({'env_file': 7}, 'env_file must be a path, is 7'),
        ({'env_file': '.'}, 'cannot be read: Is a directory'),
    ],
)
def test_faults_of_the_attributes(deployment: Deployment, attributes: dict[str, object], fault: str) -> None:
    deployment.sleep('it', **attributes)
    ended = deployment.run()
    assert ended.status == 2
    assert fault in ended.stderr


# Rules

_names = st.from_regex(r'[A-Za-z_][A-Za-z0-9_]{0,8}', fullmatch=True)
#: Text that stands in a line as it is: no newline, no spaces around it, no pair of quotes around it.
_values = st.text(st.characters(exclude_characters='\n\0', exclude_categories=['Cs']), max_size=20).filter(
    lambda text: text == text.strip() and text[:1] not in ('"', "'")
)


@given(st.dictionaries(_names, _values, max_size=6), st.sampled_from(['\n', '\r\n', '\n\n# note\n']), st.booleans())
def test_what_is_written_is_read(variables: dict[str, str], end: str, has_export: bool) -> None:
    prefix = 'export ' if has_export else ''
    text = ''.join(f'{prefix}{name} = {value}{end}' for name, value in variables.items())
    assert read_text(text.encode()) == variables


@given(_names, st.text(st.characters(exclude_characters='\n\0', exclude_categories=['Cs'])), st.sampled_from('\'"'))
def test_quotes_keep_spaces(name: str, value: str, quote: str) -> None:
    assert read_text(f'{name}={quote}{value}{quote}'.encode()) == {name: value}


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_a_fault_that_does_not_show_them(data: bytes) -> None:
    fault, variables = '', {}
    try:
        variables = read_text(b'hunter2' + data)
    except BadValueError as bad:
        fault = str(bad)
    assert 'hunter2' not in fault
    assert all(name.isidentifier() and name.isascii() and '\0' not in value for name, value in variables.items())


def read_text(data: bytes) -> dict[str, str]:
    """The variables of a file with this content."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return read_variables(file.name)


_secrets = st.lists(st.text('abc*\n', max_size=8) | st.none(), max_size=4)


@given(_secrets, st.text('abc*\n', max_size=40))
def test_no_secret_is_left(secrets: list[str | None], text: str) -> None:
    masked = Secrets(secrets).mask(text)
    for secret in secrets:
        if secret and len(secret) >= 4 and '*' not in secret:
            assert secret not in masked
        if secret == text and text:
            assert masked == MASK
    if not any(secret and secret in text for secret in secrets):
        assert masked == text


_plain = st.text('abc', max_size=9) | st.integers() | st.none() | st.booleans()
_json = st.recursive(_plain, lambda inner: st.lists(inner) | st.dictionaries(st.text('abc'), inner))


@given(_secrets, _secrets, _json)
def test_masking_values_masks_their_texts(first: list[str], second: list[str], value: object) -> None:
    secrets = Secrets(first) | Secrets(second)
    assert secrets == Secrets([*second, *first])
    assert hash(secrets) == hash(Secrets([*second, *first]))
    masked = secrets.mask_all(value)
    assert json.loads(json.dumps(masked)) == masked
    assert shape(masked) == shape(value)
    if isinstance(value, str):
        assert masked == secrets.mask(value)


def shape(value: object) -> object:
    """A value without its texts."""
    match value:
        case str():
            return ''
        case dict():
            return {key: shape(item) for key, item in value.items()}
        case list():
            return [shape(item) for item in value]
    return value


def test_secrets_do_not_show_themselves() -> None:
    assert SECRET not in repr(Secrets([SECRET]))
