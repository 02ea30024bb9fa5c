"""Commands that read no config and so know no `env_file`: hosts mask its values before they tell what programs said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_runner.agent import folders, secrets
from tests.commands import Done, Running, component
from tests.standing import Standing, sh
from tests.testbed import Testbed
from tests.testbed.process import wait_until

SECRET = 'correct horse battery'
MASK = '***'
#: Shorter than what is masked within a text.
SHORT = 'xyz'
_TALKS = """\
trap 'systemd-notify --status="bye $TOKEN"; exit 0' TERM
echo "with $TOKEN of $OWN, $PIN"
systemd-notify --ready --status="has $TOKEN"
while [ -e /tmp/goes ]; do sleep 0.05; done
exit 3
"""
_REFUSES = """\
[ ! -e /tmp/goes ] || exec systemd-notify --ready --status="$PIN"
systemd-notify --status="no $TOKEN" ERRNO=5
exec sleep 1000
"""
_SAYS_MUCH = 'systemd-notify --ready --status="$(printf %4090s | tr " " -)$TOKEN"; exec sleep 1000'
_SPEAKS = """\
systemd-notify --ready
while [ -e /tmp/goes ]; do n=$((n + 1)); systemd-notify --status="$n $TOKEN"; sleep 0.1; done
echo "with $TOKEN"
exit 3
"""
Begin = Callable[..., Running]
Command = Callable[..., Done]


@pytest.fixture
def site(bed: Testbed, tmp_path: Path) -> Iterator[Standing]:
    """What talks of its secrets, and fails as soon as /tmp/goes is not there."""
    host = bed['h1']
    with Standing(bed, tmp_path) as site:
        site.file('secrets', f'TOKEN={SECRET}\nOWN=of the file\nPIN={SHORT}\nRR_HOST=of the file\n')
        values = {'env_file': 'secrets', 'env': {'OWN': 'its own'}, 'start_grace': 5}
        site.write(
            sh('talks', 'h1', _TALKS, 'ready=ready.notify()', **values),
            sh('refuses', 'h1', _REFUSES, 'ready=ready.notify()', **values),
            component('named', 'h1', f'/tmp/{SECRET}', ['0'], env_file='secrets'),
        )
        host.path('/tmp/goes').touch()
        host.path(f'/tmp/{SECRET}').symlink_to('/bin/sleep')
        site.deploy()
        yield site
        host.path('/tmp/goes').unlink(missing_ok=True)
        host.path(f'/tmp/{SECRET}').unlink(missing_ok=True)


@pytest.fixture(params=['record', 'hosts'])
def begin(request: pytest.FixtureRequest, site: Standing) -> Begin:
    """Starts a command on the session with `--json`, which finds that by the record or by its hosts."""
    if request.param == 'record':
        return lambda name, *words: site.begin_later(name, '--json', *words)
    return lambda name, *words: site.from_elsewhere().start(name, *words, '--json', *site.elsewhere('h1'))


@pytest.fixture
def command(begin: Begin) -> Command:
    """The same, to its end."""

    def run(*words: str, status: int = 0) -> Done:
        with begin(*words) as running:
            done = masked(running.end())
        assert done.status == status, done
        return done

    return run


def masked(done: Done) -> Done:
    assert SECRET not in done.stdout + done.stderr
    return done


def fails_now(site: Standing, program: str = '/tmp/goes') -> None:
    site.deployment.host().path(program).unlink()


def test_what_it_says_while_it_runs_and_as_it_is_stopped(site: Standing, command: Command) -> None:
    [shown] = command('status').objects
    assert {seen['name']: seen.get('said') for seen in shown['components']} == {
        'talks': f'has {MASK}',
        'refuses': MASK,
        'named': None,
    }
    assert f'bye {MASK}' in {event['text'] for event in command('stop', 'talks').events('component_said')}
    assert f'bye {MASK}' in command('status', 'talks').stdout
    assert SECRET in site.deployment.output_log('talks').with_name('status.json').read_text()


def test_last_lines_of_what_is_started_again(site: Standing, command: Command) -> None:
    fails_now(site)
    done = command('restart', 'talks', status=1)
    assert done.event('component_failed')['output'] == f'with {MASK} of its own, {SHORT}\r\n'
    assert f'has {MASK}' in {event['text'] for event in done.events('component_said')}
    assert f'with {MASK} of its own' in done.stderr
    assert SECRET in site.later('logs', 'talks').stdout  # it shows what was printed


def test_why_it_did_not_start(site: Standing, command: Command) -> None:
    fails_now(site)
    fails_now(site, f'/tmp/{SECRET}')
    for name, reason in (('refuses', f'it refused to start: no {MASK}'), ('named', f'there is no file /tmp/{MASK}')):
        assert command('restart', name, status=1).event('component_failed')['reason'] == reason
        [shown] = command('status', name, status=1).objects
        assert [seen['reason'] for seen in shown['components']] == [reason]


def test_what_is_waited_for(site: Standing, begin: Begin) -> None:
    site.write(sh('speaks', 'h1', _SPEAKS, 'ready=ready.notify()', env_file='secrets'))
    site.deploy()
    with begin('wait', 'speaks') as running:
        wait_until(lambda: b'component_said' in running.out, 'its words')
        fails_now(site)
        done = masked(running.end())
    assert done.status == 1
    assert all(event['text'].endswith(f' {MASK}') for event in done.events('component_said'))
    assert done.event('component_failed')['output'] == f'with {MASK}\r\n'


def test_what_the_record_starts_again(site: Standing) -> None:
    fails_now(site)
    site.comes_to('talks@h1', 'exited')
    done = masked(site.later('run', 'talks', '--json', status=1))
    assert done.event('component_failed')['output'] == f'with {MASK} of its own, {SHORT}\r\n'


def test_what_people_see(site: Standing) -> None:
    assert f'has {MASK}' in masked(site.later('status')).stdout
    fails_now(site)
    assert f'with {MASK}' in masked(site.later('restart', 'talks', status=1)).stderr


def test_the_password_of_this_command(site: Standing, command: Command) -> None:
    fails_now(site)
    done = command('restart', 'talks', '-p', 'of its own', status=1)
    assert done.event('component_failed')['output'] == f'with {MASK} {MASK}, {SHORT}\r\n'
    assert 'of its own' not in done.stdout + done.stderr


@pytest.mark.parametrize('way', ['record', 'hosts'])
def test_the_password_that_a_config_passes_on(site: Standing, way: str) -> None:
    """Whoever deploys names it; commands that come later know of none."""
    script = 'systemd-notify --status="to $1 with $PASS"; echo "from $1"; exit 3'
    line = sh('logs-in', 'h1', '', 'ready=ready.notify()', env={'PASS': 0}, args=['-c', script, 'x', 'url?pw=0'])
    line = line.replace("{'PASS': 0}", "{'PASS': options.ssh_pass}")
    site.write(line.replace("'url?pw=0'", "'url?pw=' + options.ssh_pass"))
    deployed = site.deploy('-p', SECRET, status=1)
    assert deployed.event('component_failed')['output'] == f'from url?pw={MASK}\r\n'
    options = [] if way == 'record' else ['-F', site.ssh_config, '-H', 'h1']
    done = masked(site.later('restart', 'logs-in', '--json', *options, status=1))
    assert done.event('component_said')['text'] == f'to url?pw={MASK} with {MASK}'
    assert done.event('component_failed')['output'] == f'from url?pw={MASK}\r\n'
    masked(site.later('status', '--json', *options, status=1))


def test_half_a_secret_is_none(site: Standing) -> None:
    site.write(
        sh('long', 'h1', _SAYS_MUCH, 'ready=ready.notify()', env_file='secrets'),
        sh('line', 'h1', f'printf "%s%{folders.TAIL - 9}s" "$TOKEN" end; exit 3', env_file='secrets', start_grace=5),
    )
    site.deploy(status=1)
    done = site.later('status', '--json', 'long')
    assert done.objects[0]['components'][0]['said'] == '-' * 4090
    output = site.later('restart', '--json', 'line', status=1).event('component_failed')['output']
    assert output.split() == ['end']


# ---- rules ---------------------------------------------------------------------------------------------------------

_secrets = st.lists(st.text('ab', min_size=4, max_size=8), max_size=3)


@given(st.text('ab-', max_size=40), st.integers(0, 40), _secrets)
def test_what_is_cut_holds_no_part_of_what_was_cut(text: str, most: int, known: list[str]) -> None:
    cut = secrets.cut(text, most, known)
    assert text.startswith(cut)
    assert len(cut) <= most
    for secret in known:
        begins = [at for at in range(len(text)) if text.startswith(secret, at)]
        assert not [at for at in begins if at < len(cut) < at + len(secret)]
    if len(text) <= most or not any(secret in text for secret in known):
        assert cut == text[:most]


@pytest.mark.parametrize('before', range(30))
def test_a_tail_begins_with_no_part_of_a_secret(tmp_path: Path, before: int) -> None:
    data = SECRET.encode() + b'y' * (folders.TAIL - before)
    (tmp_path / 'output.log').write_bytes(b'-' * 100 + data)
    shown = folders.tail(str(tmp_path), [SECRET])
    assert set(shown) <= set('*y-')
    assert shown.endswith('y' * (folders.TAIL - 30))
    assert (MASK in shown) == (len(data) <= folders.TAIL)


def test_a_secret_that_is_no_text() -> None:
    spec = {'env': {b'TOKEN': b'se\xffcret', b'EMPTY': b'', b'OTHER': b'other'}, 'secrets': ['TOKEN', 'EMPTY']}
    known = secrets.of_spec(spec)
    for how in ('replace', 'surrogateescape'):
        assert secrets.mask(b'a se\xffcret, other'.decode('utf-8', how), known) == 'a ***, other'
