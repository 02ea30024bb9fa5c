"""`remote_runner sweep` on hosts (SP1 to SP6, SP8): every attribute has its effect, and users see it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.studies import BROUGHT, Study, adding, brought, clear, hosts_of, statistics, working_folders
from tests.testbed import Testbed, TestHost
from tests.testbed.process import wait_until

Beds = Callable[..., Testbed]

#: Prints its arguments and its stdin, each with its length, so that nothing can be taken for something else.
TELL = """\
#!/usr/bin/python3
import os, sys
out = sys.stdout.buffer
for word in [*map(os.fsencode, sys.argv[1:]), sys.stdin.buffer.read()]:
    out.write(b'%d:%s,' % (len(word), word))
"""
NASTY = [
    '', ' ', 'a b', "it's", '"', '\'"\'', '\\', '\\n', 'a\nb', '\n', '\n\n', '\t', '$HOME', '${HOME}', '$(id)', '`id`',
    '{}', '{n}', '{{', '}}', '{', '}', '|', 'a|b', '&', ';', '>x', '<x', '*', '?', '~', '#', '!', '-', '--', '-n', '=',
    'A=b', '%s', '\r', '\x01', '\x1b[31m', '\x7f', 'ünï', '日本語', '🜚', '\u2028', '\ufeff', '\udcff', 'if', 'done',
    'ü' * 999,
]  # fmt: skip


@pytest.fixture
def study(bed: Testbed, tmp_path: Path) -> Iterator[Study]:
    with Study(bed, tmp_path) as study:
        yield study


def netstrings(*words: str) -> bytes:
    """What TELL says of these words."""
    encoded = [word.encode('utf-8', 'surrogateescape') for word in words]
    return b''.join(b'%d:%s,' % (len(word), word) for word in encoded)


class TestWhatArrives:
    @pytest.mark.parametrize('command', ["['./tell', '{a}', 'x{b}', '{{}}']", "'./tell {a} x{b} \"{{}}\"'"])
    def test_two_hundred_sets(self, study: Study, command: str) -> None:
        pairs = list(zip(NASTY * 4, (NASTY[11:] + NASTY[:11]) * 4, strict=True))[:200]
        assert len(pairs) == 200
        study.file('tell', TELL, 0o755)
        study.file('pairs.json', json.dumps(pairs))
        study.write(
            'import json\n'
            f'pairs = json.load(open({str(study.folder / "pairs.json")!r}))\n'
            'got = []\n'
            'class Keep:\n'
            '    def begin(self, folder, names): pass\n'
            "    def add(self, parameters, results): got.append([parameters['a'], results['stdout'].hex()])\n"
            f'    def end(self): json.dump(got, open({str(study.folder / "got.json")!r}, "w"))\n',
            adding(
                parameters='util.zip(a=[a for a, b in pairs], b=[b for a, b in pairs])',
                command=command,
                inputs="{'stdin': '{b}|{a}{{'}",
                files="{'tell': 'tell'}",
                collect='Keep()',
            ),
        )
        study.sweep()
        got = json.loads((study.folder / 'got.json').read_text())
        assert [a for a, _ in got] == [a for a, _ in pairs]
        wrong = [
            pair
            for pair, (_, data) in zip(pairs, got, strict=True)
            if bytes.fromhex(data) != netstrings(pair[0], f'x{pair[1]}', '{}', f'{pair[1]}|{pair[0]}{{')
        ]
        assert wrong == []

    def test_inputs(self, study: Study) -> None:
        study.add(
            command="'cat in.dat deep/er/x; printf . ; cat; ls -A deep'",
            inputs="{'in.dat': 'n={n}\\n', 'deep/er/x': b'\\xff{n}', 'stdin': 'also {n}'}",
            collect="collect.blocks('s.txt')",
        )
        study.sweep()
        blocks = [b'# n=%d\nn=%d\n\xff%d.also %der\n' % (n, n, n, n) for n in range(4)]
        assert (study.folder / 's.txt').read_bytes() == b'\n\n'.join(blocks)

    def test_results_of_all_kinds(self, study: Study) -> None:
        study.add(
            command="'echo out {n}; echo err {n} >&2; mkdir -p a/b; head -c 300000 /dev/zero >a/b/file'",
            results="{'o': 'stdout', 'e': 'stderr', 'f': './a/b/file'}",
            collect='lambda parameters, results: print(parameters["n"], {k: (len(v), v[:9]) for k, v in '
            'results.items()})',
        )
        assert study.sweep().stdout.splitlines() == [
            f"{n} {{'o': (6, b'out {n}\\n'), 'e': (6, b'err {n}\\n'), 'f': (300000, {bytes(9)!r})}}" for n in range(4)
        ]

    def test_a_result_that_is_not_there_is_a_failure(self, study: Study) -> None:
        study.add(command="'[ {n} = 2 ] || echo >out'", results="{'o': 'out'}", retries='0')
        assert 'out' in study.sweep(status=1).stderr
        [failed] = study.failed()
        assert failed['task'] == 2
        assert 'out' in failed['why']

    def test_the_environment_of_an_attempt(self, study: Study) -> None:
        study.add(command="'echo $RR_TASK $RR_ATTEMPT $RR_HOST $RR_SLOT; [ $RR_ATTEMPT = 2 ]'")
        for position, task in enumerate(study.tasks()):
            assert re.fullmatch(rf'{position} 2 {task["host"]} [12]\n', task['stdout'])


class TestWhatIsBrought:
    def test_files(self, study: Study) -> None:
        study.file('a')
        study.file('data/x', 'x\n')
        study.file('data/deep/y', 'y\n')
        study.add(
            hosts="['2/h1']",
            command="'cat sub/a data/x data/deep/y /srv/study/abs ~/study/own; ls data; pwd'",
            files="{**util.recursive_files_dict('data', 'data'), 'a': 'sub/a', str('data/x'): 'data/x'} | "
            "{'b': '/srv/study/abs', 'c': '~/study/own'}",
        )
        study.file('b', 'b\n')
        study.file('c', 'c\n')
        try:
            tasks = study.tasks()
            said = [task['stdout'].split('\n') for task in tasks]
            assert [words[:-2] for words in said] == [['content', 'x', 'y', 'b', 'c', 'deep', 'x']] * 4
            assert not any(study.bed['h1'].path(words[-2]).exists() for words in said), 'what succeeded leaves nothing'
            assert brought(study.bed['h1']) == ['data/deep/y', 'data/x', 'sub/a']
            assert brought(study.bed['h3']) == []
        finally:
            for host in study.bed.hosts:
                clear(host, '/srv/study', '/root/study')

    def test_they_are_not_sent_twice_and_what_has_changed_is(self, study: Study) -> None:
        study.file('a', 'one\n')
        study.file('b')
        study.add(command="'cat a'", files="{'a': 'a', 'b': 'b'}", hosts="['h1']")
        study.sweep()
        [folder] = study.bed['h1'].path(BROUGHT).iterdir()
        before = (folder / 'b').stat()
        study.file('a', 'other\n')
        assert {task['stdout'] for task in study.tasks()} == {'other\n'}
        assert (folder / 'b').stat() == before
        assert list(study.bed['h1'].path(BROUGHT).iterdir()) == [folder]

    @pytest.mark.parametrize('ending', ['done', 'failed', 'interrupted'])
    def test_they_are_removed_at_the_end(self, study: Study, ending: str) -> None:
        study.file('tell', '#!/bin/sh\necho $1 >>/srv/told; shift; exec $*\n', 0o755)
        study.file('a')
        script = {'done': 'true', 'failed': 'false', 'interrupted': 'sleep 100000'}[ending]
        study.add(
            command=f"'./tell {ending} {script}'",
            executables="{'linux-x86_64': 'tell'}",
            files="{'a': 'deep/a', 'tell': '/srv/stays'}",
            retries='0',
            keep_files='False',
        )
        try:
            if ending == 'interrupted':
                with study.begin_sweep() as running:
                    for host in study.bed.hosts[:2]:
                        study.wait_for_lines(host, '/srv/told', 2)
                        assert brought(host) == ['deep/a', 'linux-x86_64/tell']
                    running.signal(signal.SIGINT)
                    assert running.end().status == 130
            else:
                study.sweep(status=0 if ending == 'done' else 1)
            for host in study.bed.hosts[:2]:
                assert list(host.path(BROUGHT).glob('*')) == []
            at_work = [host for host in study.bed.hosts if host.path('/srv/told').exists()]
            assert at_work, 'the other one may have come too late to do anything'
            assert all(host.path('/srv/stays').exists() for host in at_work)
        finally:
            for host in study.bed.hosts:
                clear(host, '/srv/told', '/srv/stays')

    def test_a_program_for_each_platform(self, study: Study, fresh_bed: Beds) -> None:
        study.file('bin/prog', '#!/bin/sh\necho 64 $1\n', 0o755)
        study.file('bin/prog.old', '#!/bin/sh\necho 32 $1\n', 0o755)
        executables = "{'linux-x86_64': 'bin/prog', 'linux-i686': 'bin/prog.old'}"
        with of_32_bits(study.bed['h2']):
            for host, bits in (('h1', 64), ('h2', 32)):
                study.add(command="'./prog {n}'", executables=executables, hosts=f'[{host!r}]')
                assert [task['stdout'] for task in study.tasks()] == [f'{bits} {n}\n' for n in range(4)]

            study.add(command="'./prog {n}'", executables="{'linux-x86_64': 'bin/prog'}")
            done = study.sweep('--format', 'jsonl', '-k')
            assert hosts_of(done.objects) == {'h1'}
            assert 'h2: given up: there is no executable for linux-i686, only linux-x86_64' in done.stderr


class of_32_bits:  # noqa: N801 - as a function with `with`
    """A host that says it is an i686 while this lasts."""

    def __init__(self, host: TestHost) -> None:
        self.host = host

    def __enter__(self) -> None:
        shell = self.host.path('/root/shell')
        shell.write_text('#!/bin/sh\nexec setarch i686 /bin/bash "$@"\n')
        shell.chmod(0o755)
        self.host.set_shell('/root/shell')

    def __exit__(self, *_: object) -> None:
        self.host.set_shell('/bin/bash')
        clear(self.host, '/root/shell')


class TestTrying:
    def test_timeout_in_seconds(self, study: Study) -> None:
        study.add(command="'[ {n} != 1 ] || sleep 100000'", timeout='0.3', retries='1')
        study.sweep(status=1)
        [failed] = study.failed()
        assert (failed['task'], failed['cause']) == (1, 'timeout')
        assert [attempt['cause'] for attempt in failed['attempts']] == ['timeout', 'timeout']
        study.nothing_sleeps()

    def test_timeout_as_a_share_of_the_median(self, study: Study) -> None:
        command = "'[ {n} != 1 ] && sleep 0.2 || sleep 100000'"
        study.add(command=command, timeout="'300%'", retries='0', parameters='util.product(n=range(8))')
        numbers = study.numbers(status=1)
        assert (numbers['done'], numbers['failed']) == (7, {'timeout': 1})
        assert study.failed()[0]['task'] == 1

    @pytest.mark.parametrize(('retries', 'attempts'), [(None, 3), ('0', 1), ('1', 2)])
    def test_retries(self, study: Study, retries: str | None, attempts: int) -> None:
        more = {} if retries is None else {'retries': retries}
        study.add(command="'exit 3'", parameters='[{}]', **more)
        study.sweep(status=1)
        [failed] = study.failed()
        assert [(each['status'], each['cause']) for each in failed['attempts']] == [(3, 'exit')] * attempts

    def test_an_option_beats_the_config(self, study: Study) -> None:
        study.add(command="'exit 3'", parameters='[{}]', retries='2')
        study.sweep('--retries', '0', status=1)
        assert len(study.failed()[0]['attempts']) == 1

    def test_retry_on(self, study: Study) -> None:
        script = 'case $RR_ATTEMPT,{n} in 1,0) exit 75;; *,1) exit 3;; 1,2) sleep 100000;; esac'
        study.add(command=repr(script), retry_on="['exit:75']", timeout='0.5')
        assert study.numbers(status=1)['failed'] == {'exit': 1, 'timeout': 1}
        assert [(task['task'], len(task['attempts'])) for task in study.failed()] == [(1, 1), (2, 1)]

    def test_halt_soon(self, study: Study) -> None:
        halt = {'hosts': "['1/h1']", 'retries': '0', 'halt': "'soon,fail=2'"}
        study.add(command="'[ {n} = 1 ]'", collect="collect.csv('s.csv')", **halt)
        numbers = study.numbers(status=1)
        assert (numbers['done'], numbers['failed'], numbers['cancelled']) == (1, {'exit': 2}, 1)
        assert not (study.folder / 's.csv').exists()

    def test_halt_now(self, study: Study) -> None:
        script = 'case {n} in 0) sleep 0.5; exit 1;; *) exec sleep 100000;; esac'
        study.add(command=repr(script), retries='0', halt="'now,fail=1'")
        assert study.numbers(status=1)['failed'] == {'exit': 1}
        study.nothing_sleeps()

    def test_duplicates(self, study: Study) -> None:
        script = '[ {n} != 3 ] || [ $RR_ATTEMPT != 1 ] || exec sleep 100000; sleep 0.1; echo $RR_ATTEMPT'
        study.add(command=repr(script), duplicates='True', collect="collect.csv('s.csv')")
        numbers = study.numbers()
        assert (numbers['copies']['begun'], numbers['copies']['won']) == (1, 1)
        assert study.column('s.csv') == ['1', '1', '1', '2']
        study.nothing_sleeps()

    def test_without_duplicates_there_are_none(self, study: Study) -> None:
        study.add(command="'[ {n} != 3 ] || sleep 1.5; echo $RR_ATTEMPT'")
        assert [task['stdout'] for task in study.tasks()] == ['1\n'] * 4
        assert study.numbers()['copies']['begun'] == 0

    def test_delay(self, study: Study) -> None:
        study.add(command="'date +%s.%N'", delay='0.3', hosts="['4/h1']")
        times = sorted(float(task['stdout']) for task in study.tasks())
        assert all(later - earlier > 0.2 for earlier, later in pairwise(times))

    @pytest.mark.parametrize(
        ('keep', 'kept'), [(None, ['0.1', '0.2']), ("'all'", ['0.1', '0.2', '0.3', '1.1']), ("'none'", [])]
    )
    def test_keep(self, study: Study, keep: str | None, kept: list[str]) -> None:
        more = {} if keep is None else {'keep': keep}
        script = 'echo x >mine; [ {n} = 1 ] || [ $RR_ATTEMPT = 3 ]'
        study.add(command=repr(script), parameters='util.product(n=range(2))', hosts="['h1']", **more)
        study.sweep()
        assert working_folders(study.bed['h1']) == kept


class TestLease:
    def test_kill(self, study: Study) -> None:
        study.add(command="'exec sleep 100000'", hosts="['2/h1']", lease='1')
        with study.begin_sweep() as running:
            wait_until(lambda: len(study.deployment.sleepers()) == 2, 'two tasks')
            running.process.kill()
            running.end()
        wait_until(lambda: not study.deployment.sleepers(), 'the end of the tasks', 30)
        wait_until(lambda: not dispatchers(study.bed['h1']), 'the end of the dispatcher', 30)

    def test_finish(self, study: Study) -> None:
        script = 'echo $RR_ATTEMPT >>/srv/ran; while [ ! -e /srv/go ]; do echo >>/srv/beats; sleep 0.1; done; echo {n}'
        study.add(
            command=repr(script),
            parameters='util.product(n=range(2))',
            hosts="['2/h1']",
            lease='1',
            on_lost="'finish'",
            collect="collect.csv('s.csv')",
        )
        host = study.bed['h1']
        try:
            with study.begin_sweep() as running:
                study.wait_for_lines(host, '/srv/ran', 2)
                running.process.kill()
                running.end()
            so_far = len(study.wait_for_lines(host, '/srv/beats', 2))
            study.wait_for_lines(host, '/srv/beats', so_far + 60)  # three times as long as the lease
            host.path('/srv/go').touch()
            study.jobs('resume')
            assert host.path('/srv/ran').read_text() == '1\n1\n'
            assert study.column('s.csv') == ['0', '1']
        finally:
            clear(host, '/srv/ran', '/srv/go', '/srv/beats')


def dispatchers(host: TestHost) -> list[int]:
    return [process.pid for process in host.processes() if any('dispatcher' in word for word in process.argv)]


class TestValidate:
    def test_what_is_not_accepted_is_tried_again(self, study: Study) -> None:
        study.add(
            command="'echo $RR_ATTEMPT >out; echo {n}'",
            results="{'a': 'out', 'said': 'stdout'}",
            validate="lambda parameters, results: list(results) == ['a', 'said'] and parameters['n'] == "
            "int(results['said']) and parameters['n'] != 3 and int(results['a']) > parameters['n'] - 1",
            collect="collect.csv('s.csv')",
            hosts="['2/h1']",
        )
        numbers = study.numbers(status=1)
        assert (numbers['done'], numbers['failed']) == (3, {'rejected': 1})
        assert study.table('s.csv') == [['n', 'a', 'said'], ['0', '1', '0'], ['1', '1', '1'], ['2', '2', '2']]
        [failed] = study.failed()
        assert [each['cause'] for each in failed['attempts']] == ['rejected'] * 3

    def test_its_error_names_its_own_line_and_a_resume_goes_on(self, study: Study) -> None:
        wrong = "def check(parameters, results):\n    return int(results['stdot']) >= 0\n"
        sweep = adding(validate='check', collect="collect.csv('s.csv')", hosts="['1/h1']")
        study.write(wrong, sweep)
        done = study.sweep(status=2)
        assert f"{study.config}, line 2: KeyError: 'stdot'" in done.stderr
        assert 'jobs resume' in done.stderr
        assert not (study.folder / 's.csv').exists()
        study.write(wrong.replace('stdot', 'stdout'), sweep)
        study.jobs('resume')
        assert study.column('s.csv') == ['0', '1', '2', '3']


class TestWhatIsWritten:
    @pytest.mark.parametrize('arguments', [('--format', 'text', '-k'), ('-k',), ('-k', '--format', 'framed')])
    def test_results_are_alone_on_stdout(self, study: Study, arguments: tuple[str, ...]) -> None:
        """Users' functions like to print."""
        study.write(
            'print("config")\n',
            adding(
                validate='lambda parameters, results: print("validate") is None',
                collect='lambda parameters, results: print("collect")',
            ),
        )
        done = study.sweep(*arguments)
        texts = [f'{n}\n'.encode() for n in range(4)]
        frames = [struct.pack('<ii', n, len(text)) + text for n, text in enumerate(texts)]
        assert done.out == b''.join(frames if 'framed' in arguments else texts)
        assert [done.stderr.splitlines().count(word) for word in ('config', 'validate', 'collect')] == [1, 4, 4]

    def test_with_the_index_of_each_task(self, study: Study) -> None:
        study.add()
        assert sorted(study.sweep('--tag').stdout.splitlines()) == [f'{n}\t{n}' for n in range(4)]

    def test_a_joblog(self, study: Study) -> None:
        study.add(command="'exit {n}'", retries='0')
        study.sweep('--joblog', 'log.tsv', status=1)
        _, *rows = [line.split('\t') for line in (study.home / 'log.tsv').read_text().splitlines()]
        assert sorted((row[0], row[6], row[8]) for row in rows) == [(str(n + 1), str(n), f'exit {n}') for n in range(4)]


class TestCollect:
    def test_each_kind(self, study: Study) -> None:
        command = "'echo {n}; [ {n} = 0 ] || echo more'"
        study.write(
            'seen = []\n',
            adding(name="'csv'", command=command, collect="collect.csv('deep/s.csv')"),
            adding(name="'concat'", command=command, collect="collect.concat('s.dat')"),
            adding(name="'blocks'", command=command, collect="collect.blocks('s.txt')"),
            adding(name="'function'", command=command, collect='lambda p, r: print(p, r)'),
        )
        done = study.sweep()
        assert study.table('deep/s.csv') == [['n', 'stdout'], ['0', '0'], *[[str(n), f'{n}\nmore'] for n in (1, 2, 3)]]
        assert (study.folder / 's.dat').read_text() == '0\n1\nmore\n2\nmore\n3\nmore\n'
        assert (study.folder / 's.txt').read_text().startswith('# n=0\n0\n\n\n# n=1\n1\nmore\n\n\n# n=2')
        assert done.stdout.splitlines()[1] == "{'n': 1} {'stdout': b'1\\nmore\\n'}"

    def test_its_error_names_its_own_line_and_a_resume_collects_again(self, study: Study) -> None:
        text = 'def add(parameters, results):\n    raise OSError("no room")\n'
        study.write(text, adding(collect='add', command="'echo {n} >>/srv/ran; echo {n}'", hosts="['h1']"))
        try:
            done = study.sweep(status=2)
            assert f'{study.config}, line 2: OSError: no room' in done.stderr
            assert f'`remote_runner jobs resume {study.job()["id"]}` brings them out again' in done.stderr
            study.write('', adding(collect="collect.csv('s.csv')", command="'echo {n} >>/srv/ran; echo {n}'"))
            study.jobs('resume')
            assert study.column('s.csv') == ['0', '1', '2', '3']
            assert len(study.bed['h1'].path('/srv/ran').read_text().splitlines()) == 4
        finally:
            clear(study.bed['h1'], '/srv/ran')

    def test_results_of_failed_tasks_are_left_out(self, study: Study) -> None:
        study.add(command="'echo {n}; [ {n} != 1 ]'", retries='0', collect="collect.csv('s.csv')")
        study.sweep(status=1)
        assert study.column('s.csv') == ['0', '2', '3']

    def test_results_come_in_the_order_of_the_sets(self, study: Study) -> None:
        study.add(command="'sleep 0.$((5 - {n})); echo {n}'", collect="collect.csv('s.csv')")
        study.sweep()
        assert study.column('s.csv') == ['0', '1', '2', '3']


class TestSeveral:
    def test_names(self, study: Study) -> None:
        sweeps = [adding(name=repr(name), collect=f"collect.csv('{name}.csv')") for name in ('one', 'other', 'third')]
        study.write(*sweeps)
        study.sweep('third', 'one')
        assert sorted(path.name for path in study.folder.glob('*.csv')) == ['one.csv', 'third.csv']
        names = [job['name'] for job in study.jobs('list', '--json').objects]
        assert names == ['one', 'third']  # the newest first
        assert study.job('one')['what'] == str(study.config)
        assert "there is no sweep 'othr' (the nearest is 'other')" in study.sweep('othr', status=2).stderr

    def test_one_that_fails_does_not_keep_the_next_one_from_its_work(self, study: Study) -> None:
        bad = adding(name="'bad'", command="'false'", retries='0')
        study.write(bad, adding(name="'good'", collect="collect.csv('s.csv')"))
        study.sweep(status=1)
        assert study.column('s.csv') == ['0', '1', '2', '3']

    def test_both_may_bring_different_files_to_one_path(self, study: Study) -> None:
        study.file('a', 'one\n')
        study.file('b', 'other\n')
        sweeps = [
            adding(name=repr(n), files=f"{{'{n}': 'in'}}", command="'cat in'", collect=f"collect.concat('{n}.out')")
            for n in ('a', 'b')
        ]
        study.write(*sweeps)
        study.sweep()
        study.sweep()
        assert study.lines('a.out') == ['one'] * 4
        assert study.lines('b.out') == ['other'] * 4


class TestNothingIsRun:
    def test_dry_run(self, study: Study) -> None:
        study.add(command="'echo {n} {w}'", parameters='util.product(n=[1, 2], w=["a b", "it\'s"])')
        done = study.sweep('--dry-run')
        assert done.stdout.splitlines() == [
            "s\t0\techo 1 'a b'", "s\t1\techo 1 'it'\"'\"'s'", "s\t2\techo 2 'a b'", "s\t3\techo 2 'it'\"'\"'s'"
        ]  # fmt: skip
        assert done.stderr.splitlines()[-1].startswith('INFO: sweep s: 4 tasks on ')
        assert 'slot' in done.stderr
        assert study.jobs('list').stdout == 'no job\n'

    def test_faults_are_told_at_once(self, study: Study) -> None:
        study.add(command="'echo {m}'", timeout='-1', hosts='[]')
        said = study.sweep(status=2).stderr
        assert 'no host was touched' in said
        for what in ('sweep s: command names {m}', 'sweep s: timeout', 'sweep s: hosts'):
            assert what in said
        assert study.jobs('list').stdout == 'no job\n'

    def test_a_config_with_components(self, study: Study) -> None:
        study.write("config.add_component(Component(name='c', host='h1', executable='/bin/true'))\n", adding())
        assert '`remote_runner -c` starts them' in study.sweep(status=2).stderr

    def test_no_host_can_be_had(self, study: Study) -> None:
        study.add(executables="{'linux-aarch64': 'prog'}", command="'./prog'")
        study.file('prog', mode=0o755)
        done = study.sweep(status=3)
        assert 'there is no executable for linux-x86_64, only linux-aarch64' in done.stderr
        assert f'`remote_runner jobs resume {study.job()["id"]}` goes on' in done.stderr


class TestInterrupted:
    def test_ctrl_c_leaves_nothing_on_hosts(self, study: Study) -> None:
        study.add(command="'echo $$; sleep 100000 & exec sleep 100000'", collect="collect.csv('s.csv')")
        before = {host.name: {process.pid for process in host.processes()} for host in study.bed.hosts}
        with study.begin_sweep() as running:
            for name in ('h1', 'h2'):
                wait_until(lambda name=name: len(study.deployment.sleepers(host=name)) == 4, f'all tasks of {name}')
            running.signal(signal.SIGINT)
            done = running.end()
        assert done.status == 130
        assert f'`remote_runner jobs resume {study.job()["id"]}` goes on' in done.stderr
        assert study.job()['state'] == 'interrupted'
        for host in study.bed.hosts[:2]:
            assert study.deployment.sleepers(host=host.name) == []
            wait_until(lambda host=host: {process.pid for process in host.processes()} <= before[host.name], 'rest')
            assert working_folders(host) == []
        assert not (study.folder / 's.csv').exists()

    def test_while_a_large_file_is_brought(self, study: Study) -> None:
        """Nobody waits for what is not wanted any more."""
        study.file('large', os.urandom(1 << 20) * 400)
        study.add(files="{'large': 'large'}", hosts="['h1']")
        with study.begin_sweep() as running:
            wait_until(lambda: list(study.bed['h1'].path(BROUGHT).rglob('.rr-*')), 'a part of the file')
            running.signal(signal.SIGINT)
            assert running.end().status == 130
        assert list(study.bed['h1'].path(BROUGHT).rglob('large')) == [], 'the rest was waited for'


class TestResume:
    SLOW = "'echo {n} >>/srv/ran; [ {n} = 0 ] || while [ ! -e /srv/go ]; do sleep 0.05; done; echo {n}'"

    @pytest.fixture(autouse=True)
    def _cleared(self, study: Study) -> Iterator[None]:
        yield
        for host in study.bed.hosts:
            clear(host, '/srv/ran', '/srv/go')

    def ran(self, study: Study) -> list[str]:
        """What tasks were begun on all hosts, as they tell."""
        found: list[str] = []
        for host in study.bed.hosts:
            path = host.path('/srv/ran')
            found += path.read_text().split() if path.exists() else []
        return sorted(found, key=int)

    def killed(self, study: Study, count: int) -> None:
        """A sweep whose master is killed when it has begun so many tasks."""
        with study.begin_sweep() as running:
            wait_until(lambda: len(self.ran(study)) >= count, f'{count} tasks')
            wait_until(lambda: study.job()['done'] >= 1, 'the first one')
            running.process.kill()
            running.end()

    def go(self, study: Study) -> None:
        for host in study.bed.hosts:
            host.path('/srv/go').touch()

    def test_after_a_kill(self, study: Study) -> None:
        study.add(command=self.SLOW, collect="collect.csv('s.csv')", parameters='util.product(n=range(12))')
        self.killed(study, 5)
        assert study.job()['state'] == 'interrupted'
        self.go(study)
        study.jobs('resume')
        assert self.ran(study) == [str(n) for n in range(12)]
        assert study.column('s.csv') == [str(n) for n in range(12)]
        assert study.job()['state'] == 'done'
        assert len(study.jobs('list', '--json').objects) == 1

    def test_with_other_parameters(self, study: Study) -> None:
        study.file('p.csv', 'n\n' + ''.join(f'{n}\n' for n in range(6)))
        study.add(
            command=self.SLOW, collect="collect.csv('s.csv')", parameters="util.parameters('p.csv')"
        )
        self.killed(study, 5)
        self.go(study)
        study.file('p.csv', 'n\n7\n5\n4\n0\n9\n1\n')
        done = study.jobs('resume')
        assert 'p.csv' in done.stderr or '2 tasks are new' in done.stderr
        assert study.column('s.csv', 'n') == ['7', '5', '4', '0', '9', '1']
        assert study.column('s.csv') == ['7', '5', '4', '0', '9', '1']
        ran = self.ran(study)
        assert sorted(set(ran), key=int) == [*sorted({*ran} & {'0', '1', '2', '3', '4', '5'}), '7', '9']
        assert len(ran) == len(set(ran)), 'what was done is not run again'

    def test_when_it_was_over_runs_what_has_changed(self, study: Study) -> None:
        study.file('p.csv', 'n\n0\n1\n2\n')
        sweep = {'parameters': "util.parameters('p.csv')", 'collect': "collect.csv('s.csv')"}
        command = "'echo {n} >>/srv/ran; echo {n}'"
        study.add(command=command, **sweep)
        study.sweep()
        study.file('p.csv', 'n\n3\n2\n0\n')
        study.jobs('resume')
        assert self.ran(study) == ['0', '1', '2', '3']
        assert study.column('s.csv') == ['3', '2', '0']

    def test_on_other_hosts(self, study: Study) -> None:
        study.add(hosts="['h1']", command=self.SLOW, collect="collect.csv('s.csv')", lease='1')
        self.killed(study, 2)
        self.go(study)
        done = study.jobs('resume', '-H', '2/h2', '-F', str(study.ssh_config))
        assert 'h2: ready, 2 slots' in done.stderr
        assert study.column('s.csv') == ['0', '1', '2', '3']
        assert study.bed['h2'].path('/srv/ran').exists()

    def test_files_of_the_master_before_are_removed(self, study: Study) -> None:
        study.file('a')
        study.add(command=self.SLOW, files="{'a': 'a'}", keep_files='False')
        self.killed(study, 4)
        assert brought(study.bed['h1']) == ['a']
        self.go(study)
        study.jobs('resume')
        assert [brought(host) for host in study.bed.hosts] == [[], [], []]


class TestInTheBackground:
    def test_it_collects_all_the_same(self, study: Study) -> None:
        study.file('a')
        study.add(
            command="'cat a; echo {n}'", files="{'a': 'a'}", keep_files='False', collect="collect.csv('s.csv')"
        )
        study.sweep('--detach')
        study.jobs('attach')
        wait_until(lambda: (study.folder / 's.csv').exists(), 'the table', 30)
        assert study.column('s.csv') == [f'content\n{n}' for n in range(4)]
        wait_until(lambda: not any(brought(host) for host in study.bed.hosts), 'the end of the files', 30)

    def test_one_at_a_time(self, study: Study) -> None:
        study.write(adding(name="'a'"), adding(name="'b'"))
        said = study.sweep('--detach', status=2).stderr
        assert '--detach takes one sweep at a time (name one of a, b)' in said


class TestSharedHomes:
    def test_one_copy_and_no_clash(self, fresh_bed: Beds, tmp_path: Path) -> None:
        bed = fresh_bed(2)
        home = tmp_path / 'home of anne'
        home.mkdir()
        for host in bed.hosts:
            host.add_user('anne')
            account = host.account('anne')
            shutil.copytree(host.path(account.home), home, dirs_exist_ok=True)
        for path in (home, *home.rglob('*')):
            os.chown(path, account.uid, account.gid)
        for host in bed.hosts:
            host.share(account.home, home)
        with Study(bed, tmp_path) as study:
            study.file('data/large', os.urandom(1 << 20) * 16)
            study.file('data/tell', TELL, 0o755)
            study.add(
                hosts="['3/anne@h1', '3/anne@h2']",
                parameters='util.product(n=range(60))',
                files="util.recursive_files_dict('data', 'data')",
                command=repr(
                    'echo {n} >mine; wc -c <data/large; data/tell {n} >out; touch ~/$RR_HOST; '
                    'while [ ! -e ~/anne@h1 ] || [ ! -e ~/anne@h2 ]; do sleep 0.05; done; cat mine'
                ),
                results="{'size': 'stdout', 'out': 'out'}",
                inputs="{'stdin': 'in {n}'}",
                collect="collect.csv('s.csv')",
                keep="'all'",
            )
            tasks = study.tasks()
            assert hosts_of(tasks) == {'anne@h1', 'anne@h2'}
            assert study.column('s.csv', 'size') == [f'{16 << 20}\n{n}' for n in range(60)]
            assert study.column('s.csv', 'out') == [netstrings(str(n), f'in {n}').decode() for n in range(60)]
            root = home / '.cache/remote_runner/dependencies'
            assert len(list(root.iterdir())) == 1
            assert sorted(path.name for path in root.rglob('*') if path.is_file()) == ['large', 'tell']
            folders = [path for path in (home / '.local/state/remote_runner/work').glob('*/*/*.1') if path.is_dir()]
            assert len(folders) == 60
            assert {(path / 'mine').read_text().strip() for path in folders} == {str(n) for n in range(60)}

            study.config.write_text(study.config.read_text().replace("keep='all'", 'keep_files=False'))
            assert 'stay there' not in study.sweep().stderr
            assert len(list(root.iterdir())) == 1, 'what the first sweep has brought, and nothing of the second one'


class TestCauses:
    """SP8: what went wrong is told apart."""

    def test_all_of_them(self, fresh_bed: Beds, tmp_path: Path) -> None:
        bed = fresh_bed(3)
        with Study(bed, tmp_path) as study:
            script = (
                'case {what} in exit) echo because >&2; exit 7;; signal) kill -9 $$;; timeout) exec sleep 100000;; '
                'esac; echo {what}'
            )
            study.add(
                command=repr(script),
                parameters='util.product(what=["exit", "signal", "timeout", "rejected", "fine"])',
                validate='lambda parameters, results: b"rejected" not in results["stdout"]',
                timeout='2',
                retries='0',
                hosts="['2/h1', 'h2', 'h3']",
            )
            bed['h2'].stop_sshd(sessions=True)
            bed['h3'].path('/root/.ssh/authorized_keys').unlink()
            done = study.sweep('--json', status=1)
            found = {task['parameters']['what']: (task['cause'], task['status']) for task in study.failed()}
            assert found == {
                'exit': ('exit', 7), 'signal': ('exit', 137), 'timeout': ('timeout', 143), 'rejected': ('rejected', 0)
            }  # fmt: skip
            assert study.failed()[0]['attempts'][0]['tail'] == 'because\n'
            hosts = {host['name']: host for host in statistics(done)['hosts']}
            assert hosts['h1']['state'] == 'up'
            assert hosts['h2']['state'] == 'down'
            assert 'refused' in hosts['h2']['why']
            assert hosts['h3']['state'] == 'gone'
            assert 'user root was not accepted' in hosts['h3']['why']

    def test_a_host_that_dies(self, fresh_bed: Beds, tmp_path: Path) -> None:
        """What ran there runs elsewhere, and costs no try."""
        bed = fresh_bed(2)
        with Study(bed, tmp_path) as study:
            script = (
                'if [ $RR_HOST = h2 ]; then echo >>/srv/ran; exec sleep 100000; fi; '
                'while [ ! -e /srv/go ]; do sleep 0.05; done; echo {n}'
            )
            study.add(
                command=repr(script),
                parameters='util.product(n=range(20))',
                retries='0',
                lease='2',
                collect="collect.csv('s.csv')",
            )
            with study.begin_sweep('--json') as running:
                study.wait_for_lines(bed['h2'], '/srv/ran', 2)
                bed['h2'].kill()
                bed['h1'].path('/srv/go').touch()
                done = running.end()
            assert done.status == 0, done
            assert study.column('s.csv') == [str(n) for n in range(20)]
            numbers = statistics(done)
            assert numbers['lost'] >= 2
            assert {host['name']: host['done'] for host in numbers['hosts']} == {'h1': 20, 'h2': 0}
