"""Every mistake in a config that users can make, one file each in `cases/config`, and what they are told.

The first line of a case says what the message must hold, in order, separated by ` | `; `not ...` must not be in it.
`{file}` and `{dir}` stand for the case and its directory.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import remote_runner
from remote_runner.config.loader import load_noting
from remote_runner.config.settings import Settings
from remote_runner.deploy.plan import make_plan
from remote_runner.errors import ConfigError

CASES = Path(__file__).parent / 'cases' / 'config'
PACKAGE = str(Path(remote_runner.__file__).parent)


@pytest.mark.parametrize('name', sorted(path.stem for path in CASES.glob('*.config')))
def test_message(name: str) -> None:
    file = CASES / f'{name}.config'
    settings = Settings(config_file=str(file))
    with pytest.raises(ConfigError) as caught:
        plan(settings)
    message = str(caught.value)
    assert caught.value.exit_status == 2
    assert PACKAGE not in message
    head = file.read_text(encoding='utf-8').splitlines()[0]
    position = 0
    for expected in head.removeprefix('#= ').split(' | '):
        text = expected.replace('{file}', str(file)).replace('{dir}', str(CASES))
        if text.startswith('not '):
            assert text.removeprefix('not ') not in message
        else:
            assert text in message[position:]
            position = message.index(text, position) + len(text)
    if ': the config ended' in message or 'Error' in head:
        assert str(file) in message


def plan(settings: Settings) -> None:
    loaded = load_noting(settings)
    make_plan(loaded.config, settings.config_dir, 'runner', faults=loaded.faults)


def test_there_are_cases() -> None:
    assert len(list(CASES.glob('*.config'))) > 80
