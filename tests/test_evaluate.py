"""DS3: an evaluation function of the user's own, and what is told of its errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote_runner.errors import ConfigError, UserCodeError
from remote_runner.hosts.address import parse_address
from remote_runner.placement.choose import Known, Report, best
from remote_runner.placement.evaluate import read_score

REPORT = Report(2.0, 4, 8 * 10**9, 6 * 10**9, 0, 0, 1, 3, 'linux-x86_64')
HOST = Known(parse_address('node1 2 3'), REPORT, 1.5)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / 'score.py'


def test_it_sees_all_that_is_known(file: Path, tmp_path: Path) -> None:
    (tmp_path / 'beside.py').write_text('FACTOR = 10\n')
    file.write_text("""\
from beside import FACTOR
from remote_runner.placement.choose import load_per_core

def score(host):
    report = host.report
    assert host.name == 'node1' and report.platform == 'linux-x86_64'
    assert (host.load_weight, host.memory_weight, host.virtual) == (2.0, 3.0, 1.5)
    assert load_per_core(host) == 0.875
    return FACTOR * report.load + report.cores + report.users + report.tasks
""")
    assert read_score(str(file))(HOST) == 28.0


def test_it_decides(file: Path) -> None:
    file.write_text('def score(host):\n    return -host.report.load\n')
    busier = Known(parse_address('node2'), REPORT._replace(load=3.0))
    assert best([HOST, busier], rate=read_score(str(file))) is busier


@pytest.mark.parametrize(
    ('code', 'says'),
    [
        ('    return host.speed', 'line 2: AttributeError: .*speed'),
        ('    return helper(host)\ndef helper(host):\n    return 1 / 0', 'line 4: ZeroDivisionError: division by zero'),
        ('    raise SystemExit(3)', 'line 2: the evaluation file ended itself, with status 3'),
        ('    return None', 'line 1: score of node1 is None, not a number'),
        ('    return "low"', "line 1: score of node1 is 'low', not a number"),
        ('    return float("nan")', 'line 1: score of node1 is nan, not a number'),
    ],
)
def test_errors_name_its_line(file: Path, code: str, says: str) -> None:
    file.write_text(f'def score(host):\n{code}\n')
    rate = read_score(str(file))
    with pytest.raises(UserCodeError, match=f'^{file}, {says}') as raised:
        rate(HOST)
    assert raised.value.exit_status == 2


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        ('rate = 3', r'it defines no function score\(host\)'),
        ('score = 3', r'it defines no function score\(host\)'),
        ('def score(host:\n', 'line 1: SyntaxError'),
        ('import not_there\n', 'line 1: ModuleNotFoundError'),
    ],
)
def test_files_that_define_none(file: Path, text: str, says: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_score(str(file))


def test_no_file(file: Path) -> None:
    with pytest.raises(ConfigError, match=r'evaluation file .*score\.py: no such file'):
        read_score(str(file))
