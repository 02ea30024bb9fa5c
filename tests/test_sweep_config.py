"""What users write of sweeps (SP1 to SP6): `Sweep`, its templates and tasks, what is wrong with it, and its plan."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from remote_runner.config import collect
from remote_runner.config.collect import Names
from remote_runner.config.component import Component, Config
from remote_runner.config.loader import Loaded, load_noting
from remote_runner.config.settings import Settings
from remote_runner.config.sweep import Sweep, tasks
from remote_runner.config.sweep_attributes import SWEEP_ATTRIBUTES
from remote_runner.config.template import parse
from remote_runner.deploy.plan import Plan, make_plan
from remote_runner.deploy.sweeps import SweepPlan
from remote_runner.errors import ConfigFaults, UserCodeError
from remote_runner.jobs.policy import Cause
from remote_runner.jobs.task import Task
from tests.sweeping import faults_of, sweep


class TestSweep:
    def test_defaults(self) -> None:
        fresh = Sweep()
        assert (fresh.name, fresh.hosts, fresh.parameters, fresh.command) == (None,) * 4
        assert (fresh.inputs, fresh.results, fresh.files, fresh.executables) == ({}, {}, {}, {})
        assert (fresh.timeout, fresh.retries, fresh.retry_on, fresh.halt, fresh.duplicates) == (
            None,
            2,
            None,
            None,
            False,
        )
        assert (fresh.delay, fresh.keep, fresh.lease, fresh.on_lost) == (0, 'failed', 60, 'kill')
        assert (fresh.validate, fresh.collect) == (None, None)

    def test_only_what_must_be_said_is_missing(self) -> None:
        assert Sweep().get_missing_attributes() == ['name', 'hosts', 'parameters', 'command']
        values, faults = Sweep(name='s', hosts='h', parameters=[{'a': 1}], command='true').read()
        assert faults == []
        assert values['results'] == {'stdout': 'stdout'}

    @pytest.mark.parametrize(
        ('wrong', 'nearest'),
        [('host', 'hosts'), ('params', 'parameters'), ('retry', 'retry_on'), ('executable', 'executables')],
    )
    def test_unknown_attribute_is_an_error_at_once(self, wrong: str, nearest: str) -> None:
        for act in (lambda: setattr(Sweep(), wrong, 1), lambda: getattr(Sweep(), wrong), lambda: Sweep(**{wrong: 1})):
            with pytest.raises(AttributeError, match=f"a Sweep has no attribute '{wrong}'; the nearest is '{nearest}'"):
                act()

    def test_a_subclass_of_a_users(self) -> None:
        class Mine(Sweep):
            pass

        assert Mine(name='a').name == 'a'
        with pytest.raises(AttributeError, match='a Sweep has no attribute'):
            Mine().nothing = 1

    def test_deep_copies_and_pickles(self) -> None:
        one = sweep(results={'a': 'stdout'}, collect=collect.csv('x'))
        for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
            other.results['b'] = 'stderr'
            assert other.parameters == one.parameters
            assert one.results == {'a': 'stdout'}

    def test_docs_name_every_attribute(self) -> None:
        for attribute in SWEEP_ATTRIBUTES.values():
            assert f'        {attribute.name}: ' in (Sweep.__doc__ or '')
            assert attribute.meaning.endswith('.')
        assert set(SWEEP_ATTRIBUTES) == Sweep.LEGAL_ATTRS

    def test_the_config_stores_copies(self) -> None:
        config = Config()
        one = sweep()
        config.add_sweep(one)
        one.name = 'other'
        config.add_sweep(one)
        assert [stored.name for stored in config.all_sweeps()] == ['s', 'other']
        for stored in config.all_sweeps():
            stored.retries = 7
        assert [stored.retries for stored in config.all_sweeps()] == [7, 7]
        assert repr(config) == '<Config of 0 components and 2 sweeps>'
        config.clear_sweeps()
        assert list(config.all_sweeps()) == []

    def test_only_sweeps_are_added_as_such(self) -> None:
        with pytest.raises(TypeError, match='add_sweep takes a Sweep, not <Component'):
            Config().add_sweep(Component())  # type: ignore[arg-type]
        with pytest.raises(TypeError, match='add_component takes a Component, not <Sweep'):
            Config().add_component(sweep())  # type: ignore[arg-type]


class TestValues:
    @pytest.mark.parametrize(
        ('attribute', 'given', 'read'),
        [
            ('hosts', 'node[1-2]', ('node[1-2]',)),
            ('hosts', ('4/a', 'b'), ('4/a', 'b')),
            ('results', {}, {'stdout': 'stdout'}),
            ('results', {'o': 'stdout', 'e': 'stderr', 't': './a//b'}, {'o': 'stdout', 'e': 'stderr', 't': 'a/b'}),
            ('executables', {'linux-x86_64': Path('a')}, (('linux-x86_64', 'a'),)),
            ('timeout', 3, 3.0),
            ('timeout', '300%', '300%'),
            ('timeout', ' 150.5 % ', '150.5%'),
            ('retry_on', 'exit:75,timeout', (('exit', 75), ('timeout', None))),
            ('retry_on', ['exit', 'resources', 'rejected'], (('exit', None), ('resources', None), ('rejected', None))),
            ('retry_on', [], ()),
            ('halt', 'soon,fail=3', (3.0, False)),
            ('halt', 'now,fail=10%', (0.1, True)),
            ('keep', 'none', 'none'),
            ('on_lost', 'finish', 'finish'),
            ('lease', 0.5, 0.5),
        ],
    )
    def test_what_is_right(self, attribute: str, given: object, read: object) -> None:
        values, faults = sweep(**{attribute: given}).read()
        assert faults == []
        assert values[attribute] == read

    @pytest.mark.parametrize(
        ('attribute', 'given', 'said'),
        [
            ('name', 'a\nb', "name 'a\\nb' holds the control character"),
            ('hosts', [], 'hosts is empty'),
            ('hosts', 3, 'hosts must be a list of hosts, is 3'),
            ('hosts', ['a', None], 'hosts[1] must be text, is None'),
            ('results', ['stdout'], 'results must be a dict'),
            ('results', {'a b': 'stdout'}, "results['a b']: the name must be a letter"),
            ('results', {'a': '/x'}, "results['a'] must be below the working folder, is '/x'"),
            ('results', {'a': '../x'}, "results['a'] leads out of the working folder: '../x'"),
            ('results', {'a': 'x-{rate}'}, "results['a'] takes no parameters, has braces: 'x-{rate}'"),
            ('results', {'a': None}, "results['a'] must be a path, is None"),
            ('files', ['x'], 'files must be a dict'),
            (
                'files',
                {'x': '../x'},
                "files leads out of the working folder: '../x'; an absolute path may lie anywhere",
            ),
            (
                'executables',
                {'x86_64': 'a'},
                "executables['x86_64'] is no platform as hosts name it (uname -sm); the nearest is 'linux-x86_64'",
            ),
            ('executables', {'linux-arm64': 'a'}, "the nearest is 'linux-aarch64'"),
            ('executables', {'linux-x86-64': 'a'}, "the nearest is 'linux-x86_64'"),
            ('executables', {3: 'a'}, "executables[3] must be a platform such as 'linux-x86_64'"),
            ('executables', {'linux-x86_64': 3}, "executables['linux-x86_64'] must be a path, is 3"),
            ('timeout', 0, 'timeout must be more than 0 seconds'),
            ('timeout', -1, 'timeout must be a number of seconds from 0'),
            ('timeout', '10m', "timeout must be a number of seconds, or text as '300%' of the median, is '10m'"),
            ('timeout', '100%', "timeout must be more than 100% of the median, is '100%'"),
            ('retries', -1, 'retries must be a whole number from 0, is -1'),
            ('retries', None, 'retries must be a whole number from 0, is None'),
            ('retries', True, 'retries must be a whole number from 0, is True'),
            (
                'retry_on',
                ['exits'],
                "retry_on must be of exit, timeout, rejected, resources and exit:N, is 'exits'; the nearest is 'exit'",
            ),
            ('retry_on', 'exit:0', "retry_on must have a status from 1 to 255 behind exit: alone, is 'exit:0'"),
            ('retry_on', 'timeout:3', "retry_on must have a status from 1 to 255 behind exit: alone, is 'timeout:3'"),
            ('retry_on', [75], 'retry_on must be of exit, timeout, rejected, resources and exit:N, is 75'),
            ('retry_on', 75, "retry_on must be a list of causes, as ['exit:75', 'timeout'], is 75"),
            ('halt', 'fail=3', "halt must be as 'soon,fail=3', 'now,fail=1' or 'soon,fail=10%', is 'fail=3'"),
            ('halt', 'now,fail=0', 'halt must be as'),
            ('halt', 'now,fail=1.5', 'halt must be as'),
            ('halt', 'now,fail=100%', 'halt must be as'),
            ('halt', 3, 'halt must be as'),
            ('duplicates', 1, 'duplicates must be True or False, is 1'),
            ('delay', '1', "delay must be a number of seconds, is '1'"),
            ('keep', 'some', "keep must be 'all', 'failed' or 'none', is 'some'"),
            ('on_lost', None, "on_lost must be 'kill' or 'finish', is None"),
            ('lease', 0, 'lease must be more than 0 seconds'),
            ('validate', 3, 'validate must be a function of parameters and results, is 3'),
            ('validate', lambda parameters: True, 'validate must take (parameters, results), is <lambda>(parameters)'),
            (
                'collect',
                'results.csv',
                "collect must be collect.csv('FILE') or another collector, or a function, is 'results.csv'",
            ),
            ('collect', collect.csv, "collect is the function collect.csv itself; write collect.csv('FILE')"),
            (
                'collect',
                collect.concat('x', result='b'),
                "collect wants the result 'b', which there is not; the nearest is 'stdout'",
            ),
        ],
    )
    def test_what_is_wrong(self, attribute: str, given: object, said: str) -> None:
        [fault] = faults_of(**{attribute: given})
        assert said in fault

    def test_generators_as_functions_would_do_nothing(self) -> None:
        def generator(parameters: object, results: object) -> Any:
            yield 1

        async def later(parameters: object, results: object) -> None: ...

        for attribute, function in itertools.product(('validate', 'collect'), (generator, later)):
            assert faults_of(**{attribute: function}) == [
                f'{attribute} would do nothing when called: no yield, no async'
            ]

    def test_causes_are_those_of_jobs(self) -> None:
        from remote_runner.config.sweep_reading import CAUSES

        assert {cause.value for cause in Cause} == {*CAUSES, 'lost', 'cancelled', 'poison'}

    def test_files_that_are_executables_too(self) -> None:
        assert faults_of(files={'a': 'client'}, executables={'linux-x86_64': 'bin/client'}) == [
            "executables and files both bring 'client'"
        ]


class TestTasks:
    def test_they_are_what_jobs_run(self) -> None:
        made = tasks(
            sweep(command=['./run', '{rate}'], inputs={'run': 'x{rate}', 'stdin': ''}, results={'out': 'stdout'})
        )
        converted = [Task(*task) for task in made]
        assert converted == [
            Task('./run 1', {'rate': 1}, {'run': b'x1', 'stdin': b''}, {'out': 'stdout'}),
            Task('./run 10', {'rate': 10}, {'run': b'x10', 'stdin': b''}, {'out': 'stdout'}),
        ]
        assert made[0]._fields == Task._fields
        assert len({task.key() for task in converted}) == len(made) == 2
        assert list(made) == [made[0], made[1]]

    def test_of_what_is_wrong_there_are_none(self) -> None:
        with pytest.raises(ConfigFaults, match='sweep s: retries must be'):
            tasks(sweep(retries=-1, halt=1))

    def test_templates_know_their_pieces(self) -> None:
        assert parse('').pieces == ()
        assert [str(slot) for slot in parse('{a}{{b}}{c:raw}').slots()] == ['{a}', '{c:raw}']


Loads = Callable[..., Loaded]


@pytest.fixture
def loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loads:
    """Loads a text as the config in `cfg/`, which has `bin/client` and `client.arm`, from another directory."""
    (tmp_path / 'cfg/bin').mkdir(parents=True)
    for name in ('bin/client', 'bin/client.arm'):
        (tmp_path / 'cfg' / name).write_text('#!/bin/sh\n')
        (tmp_path / 'cfg' / name).chmod(0o755)
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')

    def loads(config: str, *muddlers: str) -> Loaded:
        (tmp_path / 'cfg/config.py').write_text(config)
        for number, text in enumerate(muddlers):
            (tmp_path / f'muddler{number}.py').write_text(text)
        files = tuple(f'../muddler{number}.py' for number in range(len(muddlers)))
        return load_noting(Settings(config_file='../cfg/config.py', muddlers=files))

    return loads


def plan_of(loaded: Loaded, tmp_path: Path) -> Plan:
    return make_plan(loaded.config, str(tmp_path / 'cfg'), 'runner', faults=loaded.faults)


WHOLE = """
sweep = Sweep()
sweep.name = 'latency'
sweep.hosts = ['4/node1', 'node2']
sweep.parameters = util.parameters('params.csv') * util.product(seed=range(5))
sweep.command = './client --rate {rate} --seed {seed}'
sweep.inputs = {'in.dat': 'rate={rate}\\n', 'stdin': '{seed}\\n'}
sweep.results = {'out': 'stdout', 'trace': 'trace.bin'}
sweep.files = {'data.txt': 'data.txt', 'bin': 'empty'}
sweep.executables = {'linux-x86_64': 'bin/client', 'linux-aarch64': 'bin/client.arm'}
sweep.timeout = 60
sweep.retries = 2
sweep.duplicates = True
sweep.validate = lambda parameters, results: b'ok' in results['out']
sweep.collect = collect.csv('results.csv')
config.add_sweep(sweep)
"""


@pytest.fixture
def whole(loads: Loads, tmp_path: Path) -> SweepPlan:
    (tmp_path / 'cfg/params.csv').write_text('rate\n1\n10\n')
    (tmp_path / 'cfg/data.txt').write_text('data')
    [planned] = plan_of(loads(WHOLE), tmp_path).sweeps
    return planned


class TestPlan:
    def test_all_of_it(self, whole: SweepPlan, tmp_path: Path) -> None:
        assert (whole.name, [str(host) for host in whole.hosts]) == ('latency', ['4/node1', 'node2'])
        assert (len(whole.tasks), whole.names) == (10, Names(('rate', 'seed'), ('out', 'trace')))
        assert whole.tasks[9].command == './client --rate 10 --seed 4'
        assert [(file.local, file.remote, file.kind) for file in whole.files] == [
            (f'{tmp_path}/cfg/data.txt', 'data.txt', 'file'),
            (f'{tmp_path}/cfg/bin', 'empty', 'folder'),
        ]
        assert whole.executables == (
            ('linux-x86_64', f'{tmp_path}/cfg/bin/client'),
            ('linux-aarch64', f'{tmp_path}/cfg/bin/client.arm'),
        )
        assert whole.program == 'client'
        assert (whole.timeout, whole.timeout_share, whole.retries, whole.duplicates) == (60, None, 2, True)
        assert (whole.retry_on, whole.halt, whole.delay) == (None, None, 0)
        assert (whole.keep, whole.lease, whole.on_lost) == ('failed', 60, 'kill')
        assert json.dumps(whole.to_dict())

    def test_results_are_judged_and_collected(self, whole: SweepPlan, tmp_path: Path) -> None:
        assert whole.accepts({'rate': '1', 'seed': 0}, {'out': b'ok', 'trace': b''}) is True
        assert whole.accepts({'rate': '1', 'seed': 0}, {'out': b'', 'trace': b''}) is False
        with whole.collecting() as add:
            add({'rate': '1', 'seed': 0}, {'out': b'ok', 'trace': b'x'})
        assert (tmp_path / 'cfg/results.csv').read_bytes() == b'rate,seed,out,trace\r\n1,0,ok,x\r\n'

    def test_a_share_of_the_median(self, loads: Loads, tmp_path: Path) -> None:
        text = "config.add_sweep(Sweep(name='s', hosts='h', parameters=[{'a': 1}], command='x', timeout='250%'))"
        [planned] = plan_of(loads(text), tmp_path).sweeps
        assert (planned.timeout, planned.timeout_share) == (None, 2.5)

    def test_hosts_in_a_file_beside_the_config(self, loads: Loads, tmp_path: Path) -> None:
        (tmp_path / 'cfg/hosts').write_text('2/node[1-2] # two\nnode9\n')
        text = "config.add_sweep(Sweep(name='s', hosts=['@hosts', 'x'], parameters=[{'a': 1}], command='x'))"
        [planned] = plan_of(loads(text), tmp_path).sweeps
        assert [str(host) for host in planned.hosts] == ['2/node1', '2/node2', 'node9', 'x']

    def test_beside_components(self, loads: Loads, tmp_path: Path) -> None:
        text = WHOLE + "config.add_component(Component(name='server', host='node1', executable='x'))\n"
        (tmp_path / 'cfg/params.csv').write_text('rate\n1\n')
        (tmp_path / 'cfg/data.txt').write_text('')
        plan = plan_of(loads(text), tmp_path)
        assert ([c.label for c in plan.components], [s.label for s in plan.sweeps]) == (
            ['server@node1'],
            ['sweep latency'],
        )
        assert plan.only(['server']).sweeps == plan.sweeps
        assert [each['name'] for each in plan.to_dict()['sweeps']] == ['latency']

    def test_all_faults_are_told_with_those_of_components(self, loads: Loads, tmp_path: Path) -> None:
        text = (
            "c = Component(name='c', host='h', executable='x')\n"
            'c.hosts = 3\n'
            'c.args = 3\n'
            'config.add_component(c)\n'
            "s = Sweep(name='s', hosts=['2/a', 'a', 'x:y'], parameters=[{'rate': 1}], command='./run {rte}')\n"
            's.host = 3\n'
            "s.files = {'nothing': 'x', 'bin/client': 'file'}\n"
            "s.inputs = {'file/below': ''}\n"
            "s.executables = {'linux-x86_64': 'config.py'}\n"
            "s.collect = collect.csv('bin')\n"
            'config.add_sweep(s)\n'
        )
        with pytest.raises(ConfigFaults) as caught:
            plan_of(loads(text), tmp_path)
        config, said = tmp_path / 'cfg', list(caught.value.faults)
        assert said.pop(0).startswith(
            f"{config}/config.py, line 2: AttributeError: a Component has no attribute 'hosts'"
        )
        assert said.pop(0).startswith(f"{config}/config.py, line 6: AttributeError: a Sweep has no attribute 'host'")
        assert said == [
            'c@h: args must be a list, is 3',
            'sweep s: command names {rte}, which is no parameter; the nearest is {rate} '
            '(a brace itself is written {{ or }})',
            "sweep s: command runs ./run, but neither files nor executables nor inputs bring 'run'",
            "sweep s: hosts: the port of 'x:y' is not a number from 1 to 65535",
            "sweep s: hosts: a is there twice, as '2/a' and as 'a'",
            f'sweep s: files: {config}/nothing does not exist',
            f"sweep s: inputs: 'file/below' needs a directory "
            f"where {config}/bin/client (file of sweep s) would become 'file'",
            f'sweep s: executables: {config}/config.py is not executable (chmod +x {config}/config.py)',
            "sweep s: collect must name a file, is the folder 'bin'",
        ]

    @pytest.mark.parametrize(
        ('path', 'why'),
        [('config.py/deep/out', '{cfg}/config.py is no folder'), ('a/b/out', 'you cannot write into {cfg}')],
    )
    def test_a_file_that_could_not_be_written_at_the_end(
        self, loads: Loads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, why: str
    ) -> None:
        text = (
            "s = Sweep(name='s', hosts='h', parameters=[{'a': 1}], command='x')\n"
            f's.collect = collect.csv({path!r})\n'
            'config.add_sweep(s)\n'
        )
        monkeypatch.setattr('os.access', lambda path, mode: False)  # we may be root
        with pytest.raises(ConfigFaults) as caught:
            plan_of(loads(text), tmp_path)
        assert list(caught.value.faults) == [f'sweep s: collect: {why.format(cfg=tmp_path / "cfg")}']

    def test_names_and_collected_files_are_unique(self, loads: Loads, tmp_path: Path) -> None:
        text = (
            "s = Sweep(name='s', hosts='h', parameters=[{'a': 1}], command='x', collect=collect.concat('out'))\n"
            'config.add_sweep(s)\n'
            'config.add_sweep(s)\n'
            "s.name, s.collect = 't', collect.csv('./bin/../out')\n"
            'config.add_sweep(s)\n'
        )
        with pytest.raises(ConfigFaults) as caught:
            plan_of(loads(text), tmp_path)
        assert list(caught.value.faults) == [
            'sweep s: 2 sweeps of the same name',
            f'sweep t: collect: sweep s collects into {tmp_path}/cfg/out as well',
        ]

    def test_files_that_cannot_stand_beside_one_another(self, loads: Loads, tmp_path: Path) -> None:
        text = (
            "s = Sweep(name='s', hosts='h', parameters=[{'a': 1}], command='x')\n"
            "s.files = {'bin/client': 'a', 'config.py': './a', 'bin/client.arm': 'a/b'}\n"
            'config.add_sweep(s)\n'
        )
        with pytest.raises(ConfigFaults) as caught:
            plan_of(loads(text), tmp_path)
        assert len(caught.value.faults) == 2

    def test_trees_are_known(self, loads: Loads, tmp_path: Path) -> None:
        text = (
            "s = Sweep(name='s', hosts='h', parameters=[{'a': 1}], command='prog/client {a}')\n"
            "s.files = util.recursive_files_dict('bin', 'prog', exclude='*.arm')\n"
            'config.add_sweep(s)\n'
        )
        [planned] = plan_of(loads(text), tmp_path).sweeps
        assert [(tree.root, tree.exclude) for tree in planned.trees] == [('prog', ('*.arm',))]
        assert [file.remote for file in planned.files] == ['prog/client']

    def test_a_config_with_neither(self, loads: Loads, tmp_path: Path) -> None:
        with pytest.raises(ConfigFaults, match='there are no components and no sweeps'):
            plan_of(loads('Sweep()'), tmp_path)


class TestUsersFiles:
    def test_errors_of_parameter_files_have_both_lines(self, loads: Loads, tmp_path: Path) -> None:
        (tmp_path / 'cfg/params.csv').write_text('a|b\n1\n')
        with pytest.raises(UserCodeError) as caught:
            loads("x = 1\nutil.parameters('params.csv')\n")
        assert str(caught.value).startswith(
            f'{tmp_path}/cfg/config.py, line 2: '
            f'{tmp_path}/cfg/params.csv, line 2: 1 cell, but the first line has 2 names'
        )

    def test_errors_of_combining_are_the_users_own(self, loads: Loads, tmp_path: Path) -> None:
        with pytest.raises(
            UserCodeError, match=r'config.py, line 2: ValueError: rate: 1 values, but seed: 2'
        ) as caught:
            loads('x = 1\nutil.zip(rate=[1], seed=[1, 2])\n')
        assert 'remote_runner/config' not in str(caught.value)

    def test_muddlers_see_sweeps_and_make_some(self, loads: Loads, tmp_path: Path) -> None:
        (tmp_path / 'params.csv').write_text('a\nwrong\n')
        (tmp_path / 'cfg/params.csv').write_text('a\nright\n')
        loaded = loads(
            "config.add_sweep(Sweep(name='s', hosts='h', parameters=[{'a': 1}], command='x'))",
            'def muddle(config):\n'
            '    for sweep in config.all_sweeps():\n'
            '        sweep.retries = 5\n'
            "        sweep.parameters = util.parameters('params.csv')\n"
            "    config.add_sweep(Sweep(name='t', hosts='h', parameters=[{'a': 1}], command='x',\n"
            "                           collect=collect.csv('x.csv')))\n",
        )
        one, other = plan_of(loaded, tmp_path).sweeps
        assert (one.retries, [task.parameters for task in one.tasks]) == (5, [{'a': 'right'}])
        assert other.to_dict()['collects'] == "collect.csv('x.csv')"

    @pytest.mark.parametrize(
        'text',
        [
            "exec('x = Swe' 'ep()')",
            "x = eval('Swe' 'ep')()",
            "x = globals()['Swe' + 'ep']()",
            "x = vars ()['Swe' 'ep']()",
        ],
    )
    def test_the_names_are_there_however_they_are_looked_up(self, loads: Loads, text: str) -> None:
        loads(f'{text}\nassert x.retries == 2\n')

    def test_configs_without_sweeps_do_not_wait_for_them(self, tmp_path: Path) -> None:
        (tmp_path / 'config.py').write_text(
            "config.add_component(Component(name='a', host='h', executable='x'))\nutil.hosts('a')\n"
        )
        code = (
            'import sys\nfrom remote_runner.config.loader import load\n'
            'from remote_runner.config.settings import Settings\n'
            'from remote_runner.deploy.plan import make_plan\n'
            f'make_plan(load(Settings(config_file={str(tmp_path / "config.py")!r})).config, "/", "runner")\n'
            'print(*[name for name in sys.modules if name.startswith("remote_runner.")])'
        )
        done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
        modules = done.stdout.split()
        assert 'remote_runner.config.util' in modules
        assert [name for name in modules if any(part in name for part in ('sweep', 'collect', 'parameters'))] == []

    def test_the_error_of_validate_is_its_own(self, loads: Loads, tmp_path: Path) -> None:
        (tmp_path / 'cfg/judging.py').write_text('def judge(results):\n    return results["nothing"]\n')
        text = (
            'def validate(parameters, results):\n'
            '    import judging\n'
            '    return judging.judge(results)\n'
            "config.add_sweep(Sweep(name='s', hosts='h', parameters=[{'a': 1}], command='x', validate=validate))\n"
        )
        [planned] = plan_of(loads(text), tmp_path).sweeps
        before = (list(sys.path), set(sys.modules))
        with pytest.raises(UserCodeError) as caught:
            planned.accepts({'a': 1}, {'stdout': b''})
        assert str(caught.value).splitlines() == [
            f"{tmp_path}/cfg/judging.py, line 2: KeyError: 'nothing'",
            '    | return results["nothing"]',
            f'    | called from {tmp_path}/cfg/config.py, line 3:',
            '    |   return judging.judge(results)',
        ]
        assert list(sys.path) == before[0]
        assert 'judging' not in sys.modules

    def test_modules_beside_the_config_are_the_same_later_on(self, loads: Loads, tmp_path: Path) -> None:
        (tmp_path / 'cfg/counting.py').write_text('seen = []\n')
        text = (
            'import counting\n'
            'def validate(parameters, results):\n'
            '    import counting as again\n'
            '    again.seen.append(parameters["a"])\n'
            '    return len(counting.seen)\n'
            "config.add_sweep(Sweep(name='s', hosts='h', parameters=[{'a': 1}], command='x', validate=validate))\n"
        )
        [planned] = plan_of(loads(text), tmp_path).sweeps
        assert planned.accepts({'a': 1}, {}) is True

    def test_the_error_of_collect_is_its_own(self, loads: Loads, tmp_path: Path) -> None:
        text = (
            'def gather(parameters, results):\n'
            '    raise SystemExit("enough")\n'
            "config.add_sweep(Sweep(name='s', hosts='h', parameters=[{'a': 1}], command='x', collect=gather))\n"
        )
        [planned] = plan_of(loads(text), tmp_path).sweeps
        with pytest.raises(UserCodeError, match=r'config\.py, line 2: the config ended itself: enough'):  # noqa: SIM117
            with planned.collecting() as add:
                add({'a': 1}, {'stdout': b''})

    def test_users_functions_cannot_change_what_others_get(self, loads: Loads, tmp_path: Path) -> None:
        text = (
            'def validate(parameters, results):\n'
            '    parameters.clear(), results.clear()\n'
            '    return [1]\n'
            "config.add_sweep(Sweep(name='s', hosts='h', parameters=[{'a': 1}], command='x', validate=validate))\n"
        )
        [planned] = plan_of(loads(text), tmp_path).sweeps
        parameters: Mapping[str, Any] = {'a': 1}
        assert planned.accepts(parameters, {}) is True
        assert parameters == {'a': 1}


class TestPlanCommand:
    def run(self, tmp_path: Path, text: str, *options: str) -> str:
        (tmp_path / 'params.csv').write_text('rate\n1\n10\n')
        (tmp_path / 'data.txt').write_text('data')
        (tmp_path / 'bin').mkdir(exist_ok=True)
        for name in ('client', 'client.arm'):
            (tmp_path / 'bin' / name).write_text('12345')
            (tmp_path / 'bin' / name).chmod(0o755)
        (tmp_path / 'config.py').write_text(text)
        argv = [sys.executable, '-m', 'remote_runner', 'plan', '-c', str(tmp_path / 'config.py'), *options]
        done = subprocess.run(argv, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, '')
        return done.stdout

    def test_sweeps_alone(self, tmp_path: Path) -> None:
        assert self.run(tmp_path, WHOLE) == (
            'sweep latency: 10 tasks of rate, seed on 2 hosts, 3 files (14 B)\n  ./client --rate {rate} --seed {seed}\n'
        )

    def test_beside_components(self, tmp_path: Path) -> None:
        text = WHOLE + "config.add_component(Component(name='server', host='node1', executable='x'))\n"
        shown = self.run(tmp_path, text).splitlines()
        assert shown[0] == 'session runner: 1 component on 1 host'
        assert shown[-2].startswith('sweep latency: 10 tasks')

    def test_as_json(self, tmp_path: Path) -> None:
        shown = json.loads(self.run(tmp_path, WHOLE, '--json'))
        [told] = shown['sweeps']
        assert (told['name'], told['tasks'], told['hosts']) == ('latency', 10, ['4/node1', 'node2'])
        assert [file['size'] for file in told['executables']] == [5, 5]
        assert shown['indexes'] == []

    def test_what_users_write_is_shown_harmless(self, tmp_path: Path) -> None:
        text = "config.add_sweep(Sweep(name='s', hosts='h', parameters=[{'a': 1}], command='echo \\x1b[2J'))"
        assert '\x1b' not in self.run(tmp_path, text)
