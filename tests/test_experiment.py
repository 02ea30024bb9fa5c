"""Experiments: a config with components and sweeps; these run when those are ready, and what was written comes home."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.commands import COMMAND, environment
from tests.deploying import is_alive
from tests.standing import sh
from tests.studies import Study, adding, clear
from tests.testbed import Testbed
from tests.testbed.process import wait_until

#: Answers what it is asked, some time after it was started; keeps who asked.
SERVER = """\
import socket, time
time.sleep(1)
with socket.create_server(('0.0.0.0', 7611)) as listening, open('asked.log', 'w', 1) as log:
    while True:
        connection, _ = listening.accept()
        with connection:
            question = connection.makefile().readline()
            log.write(question)
            connection.sendall(('answer to ' + question).encode())
"""
#: Asks it, from anywhere.
CLIENT = """\
#!/usr/bin/python3
import socket, sys
with socket.create_connection((sys.argv[1], 7611)) as connection:
    connection.sendall((sys.argv[2] + '\\n').encode())
    print(connection.makefile().readline(), end='')
"""
FETCHED = "fetch={'asked.log': '.'}, files={'server.py': 'server.py'}, ready=ready.tcp(7611)"


@pytest.fixture
def study(bed: Testbed, tmp_path: Path) -> Iterator[Study]:
    with Study(bed, tmp_path) as study:
        study.file('server.py', SERVER)
        study.file('client', CLIENT, 0o755)
        yield study


def server(name: str = 'server', raw: str = FETCHED, **more: object) -> str:
    return sh(name, 'h1', '', raw, executable='/usr/bin/python3', args=['server.py'], **more)


def asking(study: Study, command: str = '', **attributes: str) -> str:
    """A sweep that asks the server."""
    usual = {
        'command': repr(f'./client {study.bed["h1"].address} {{n}}' + command),
        'files': "{'client': 'client'}",
        'collect': "collect.csv('s.csv')",
        'hosts': "['2/h2', '2/h3']",
    }
    return adding(**{**usual, **attributes})


def fetched(study: Study, name: str) -> list[Path]:
    """Files of that name that came home."""
    return sorted((study.folder / 'results').rglob(name))


def all_is_over(study: Study) -> None:
    """Neither components nor tasks are left."""
    for host in study.bed.hosts:
        left = [process for process in host.processes() if {'server.py', './client', '100000'} & {*process.argv}]
        assert left == [], host


class TestAll:
    def test_servers_first_then_the_sweep_then_results(self, study: Study) -> None:
        study.write(server(), asking(study))
        done = study.deploy('-t')
        assert study.column('s.csv') == [f'answer to {n}' for n in range(4)]
        [log] = fetched(study, 'asked.log')
        assert sorted(log.read_text().split()) == ['0', '1', '2', '3']
        all_is_over(study)
        kinds = [event['event'] for event in done.objects]
        assert kinds.index('component_ready') < kinds.index('component_stopped')
        assert study.job()['state'] == 'done'

    def test_without_t_they_stay(self, study: Study) -> None:
        study.write(server(), asking(study))
        done = study.deploy()
        assert study.column('s.csv') == [f'answer to {n}' for n in range(4)]
        assert study.deployment.runs(int(done.event('component_started')['pid']))
        assert len(fetched(study, 'asked.log')) == 1

    def test_two_sweeps_one_after_the_other(self, study: Study) -> None:
        study.write(server(), asking(study, name="'one'"), asking(study, name="'two'", collect="collect.csv('t.csv')"))
        study.deploy('-t')
        assert study.column('s.csv') == study.column('t.csv') == [f'answer to {n}' for n in range(4)]
        assert [job['name'] for job in study.jobs('list', '--json').objects] == ['two', 'one']

    def test_what_has_wait_is_waited_for(self, study: Study) -> None:
        until = 'while [ ! -e /srv/over ]; do sleep 0.05; done; sleep 0.5; echo end >end.log'
        watcher = sh('watcher', 'h2', until, "wait=True, fetch={'end.log': '.'}")
        study.write(server(), watcher, asking(study, '; touch /srv/over'))
        try:
            done = study.deploy('-t')
        finally:
            for host in study.bed.hosts:
                clear(host, '/srv/over')
        assert [path.read_text() for path in fetched(study, 'end.log')] == ['end\n']
        assert done.event('component_exited', component='watcher')['status'] == 0
        assert len(fetched(study, 'asked.log')) == 1
        all_is_over(study)

    def test_with_json_nothing_else_is_on_stdout(self, study: Study) -> None:
        said = 'lambda parameters, results: print("mine") is None'
        study.write('print("mine")\n', server(), asking(study, validate=said, collect=said))
        done = study.deploy('-t')
        assert done.events('run_ended', exit_status=0)
        assert done.stderr.splitlines().count('mine') == 1 + 4 + 4

    def test_on_a_terminal(self, study: Study) -> None:
        """While the sweep runs the terminal shows it, before and after it the components."""
        study.write(server(), asking(study, '; sleep 0.5'))
        argv = [str(word) for word in [*COMMAND, *study.arguments('-t')]]
        env: Any = environment(study.home)
        with pexpect.spawn(argv[0], argv[1:], env=env, dimensions=(40, 120), timeout=60) as child:
            child.expect('1 of 1 component started')
            child.expect(r'[1-4] running on [12] of 2 hosts')
            child.expect('4 of 4 tasks done')
            child.expect('1 component: 1 stopped')
            child.expect(pexpect.EOF)
        assert child.wait() == 0


class TestFailures:
    def test_tasks(self, study: Study) -> None:
        study.write(server(), asking(study, '; [ {n} != 2 ]', retries='0'))
        done = study.deploy('-t', status=1)
        assert 'sweep s: not done: tasks have failed' in done.stderr
        assert study.column('s.csv') == [f'answer to {n}' for n in (0, 1, 3)]
        assert len(fetched(study, 'asked.log')) == 1
        all_is_over(study)
        assert [task['task'] for task in study.failed()] == [2]

    def test_the_second_sweep_is_run_all_the_same(self, study: Study) -> None:
        bad = asking(study, '; false', name="'bad'", retries='0', collect='None')
        study.write(server(), bad, asking(study, name="'good'"))
        assert 'sweep bad: not done: tasks have failed' in study.deploy('-t', status=1).stderr
        assert study.column('s.csv') == [f'answer to {n}' for n in range(4)]

    def test_no_host_of_the_sweep_can_be_had(self, study: Study) -> None:
        study.file('prog', mode=0o755)
        study.write(server(), adding(command="'./prog'", executables="{'linux-aarch64': 'prog'}"))
        done = study.deploy('-t', status=3)
        assert 'there is no executable for linux-x86_64' in done.stderr
        all_is_over(study)
        assert len(fetched(study, 'asked.log')) == 1

    def test_a_collector_that_fails(self, study: Study) -> None:
        study.write('def add(parameters, results):\n    1 / 0\n', server(), asking(study, collect='add'))
        done = study.deploy('-t', status=2)
        assert f'{study.config}, line 2: ZeroDivisionError' in done.stderr
        assert f'`remote_runner jobs export csv {study.job()["id"]}` brings them out again' in done.stderr
        all_is_over(study)

    def test_the_death_of_a_critical_component(self, study: Study) -> None:
        """It cancels the sweep; nothing of it is left, and nothing is begun any more."""
        other = sh('other', 'h2', 'echo here >other.log; exec sleep 100000', "fetch={'other.log': '.'}")
        slow = asking(study, '; exec sleep 100000')
        study.write(server(critical=True), other, slow, asking(study, name="'next'", collect='None'))
        with study.begin() as running:
            for host in ('h2', 'h3'):
                count = 3 if host == 'h2' else 2
                wait_until(lambda h=host, c=count: len(study.deployment.sleepers(host=h)) == c, f'tasks of {host}')
            study.bed['h1'].run(['pkill', '-9', '-f', 'server.py'])
            done = running.end()
        assert done.status == 1, done
        assert 'server@h1 has failed and is critical' in done.stderr
        all_is_over(study)
        assert not (study.folder / 's.csv').exists()
        [job] = study.jobs('list', '--json').objects
        assert (job['name'], job['done'], job['failed']) == ('s', 0, {'cancelled': 4})
        assert [path.read_text() for path in fetched(study, 'other.log')] == ['here\n']

    @pytest.mark.parametrize('moment', ['0.05', '0.1', '0.15', '0.2', '0.3'])
    def test_its_death_at_any_moment_of_the_beginning(self, study: Study, moment: str) -> None:
        server = sh('server', 'h1', f'touch ready; sleep {moment}; exit 3', "ready=ready.file('ready'), critical=True")
        study.write(server, adding(command="'exec sleep 100000'"))
        assert 'server@h1 has failed and is critical' in study.deploy(status=1).stderr
        all_is_over(study)

    def test_a_server_that_does_not_get_ready(self, study: Study) -> None:
        study.file('server.py', 'raise SystemExit("no")\n')
        study.write(server(), asking(study))
        study.deploy('-t', status=1)
        assert study.jobs('list').stdout == 'no job\n'

    def test_ctrl_c(self, study: Study) -> None:
        study.write(server(), asking(study, '; exec sleep 100000'))
        with study.begin() as running:
            for host in ('h2', 'h3'):
                wait_until(lambda h=host: len(study.deployment.sleepers(host=h)) == 2, f'tasks of {host}')
            pid = int(next(process.pid for process in study.deployment.processes('server.py')))
            running.signal(signal.SIGINT)
            done = running.end()
        assert done.status == 130
        for host in ('h2', 'h3'):
            assert study.deployment.sleepers(host=host) == []
        assert is_alive(study.bed['h1'], pid), 'what has started stays'
        assert 'remote_runner stop' in done.stderr

    def test_it_is_not_resumed_without_its_components(self, study: Study) -> None:
        study.write(server(), asking(study))
        study.deploy('-t')
        said = study.jobs('resume', status=2).stderr
        assert 'is a sweep of a config with components (run that again with `remote_runner -c`)' in said


class TestPlan:
    def test_both_are_shown(self, study: Study) -> None:
        study.write(server(), asking(study))
        said = study.run('plan', '-c', study.config).stdout
        assert 'server@h1  /usr/bin/python3 server.py' in said
        assert 'sweep s: 4 tasks of n on 2 hosts, 1 file' in said

    def test_only_leaves_sweeps_out(self, study: Study) -> None:
        study.write(server(), sh('other', 'h2', 'exec sleep 100000'), asking(study))
        done = study.deploy('--only', 'other')
        assert 'sweeps run with all components alone: they are left out' in done.stderr
        assert study.jobs('list').stdout == 'no job\n'
        assert [event['component'] for event in done.events('component_started')] == ['other']

    def test_sweeps_alone(self, study: Study) -> None:
        study.write(adding())
        said = study.deploy(status=2).stderr
        assert f'`remote_runner sweep {study.config}`' in said
