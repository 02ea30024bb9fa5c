"""The study of example/sweep: it runs as it stands, on this machine and on hosts, and draws what it found."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.commands import ROOT
from tests.studies import Study
from tests.testbed import Testbed

EXAMPLE = ROOT / 'example/sweep'
SVG = '{http://www.w3.org/2000/svg}'


@pytest.fixture
def study(bed: Testbed, tmp_path: Path) -> Iterator[Study]:
    """The example, in a folder that is the test's own."""
    shutil.copytree(EXAMPLE, tmp_path, ignore=shutil.ignore_patterns('results', '__pycache__'), dirs_exist_ok=True)
    with Study(bed, tmp_path) as study:
        study.config = tmp_path / 'study.py'
        yield study


def shares(study: Study) -> dict[tuple[int, float], float]:
    """What part of the squares percolates, by size and p."""
    counts: dict[tuple[int, float], list[int]] = {}
    head, *rows = study.table('results/percolation.csv')
    assert head == ['size', 'p', 'seed', 'trials', 'spanning']
    for size, p, _, trials, spanning in rows:
        count = counts.setdefault((int(size), float(p)), [0, 0])
        count[0] += int(spanning)
        count[1] += int(trials)
    return {at: spanning / trials for at, (spanning, trials) in counts.items()}


def curves(picture: Path) -> list[list[tuple[float, float]]]:
    """The points of each curve."""
    lines = [line.attrib['points'].split() for line in ET.parse(picture).iter(f'{SVG}polyline')]
    return [[(float(x), float(y)) for x, y in (point.split(',') for point in line)] for line in lines]


def test_on_this_machine_as_it_stands(study: Study) -> None:
    study.run('sweep', study.config)
    found = shares(study)
    assert len(found) == 4 * 13
    for size in (8, 16, 32, 64):
        assert found[size, 0.48] < 0.25 < 0.75 < found[size, 0.72]
    assert found[64, 0.48] < 0.02 < 0.98 < found[64, 0.72]
    assert found[64, 0.56] < found[32, 0.56] < found[16, 0.56] < found[8, 0.56]
    picture = study.folder / 'results/percolation.svg'
    drawn = curves(picture)
    assert [len(points) for points in drawn] == [13] * 4
    for points, size in zip(drawn, (8, 16, 32, 64), strict=True):
        heights = [y for _, y in points]
        assert heights.index(max(heights)) < 3, f'{size}: it begins low, and y grows downward'
        assert points[0][0] < points[-1][0]
    texts = [element.text for element in ET.parse(picture).iter(f'{SVG}text')]
    assert {'8 \u00d7 8', '64 \u00d7 64', 'threshold 0.5927', '0.48', '100%'} <= {*texts}
    assert picture.read_bytes() == (ROOT / 'docs/images/percolation.svg').read_bytes(), 'the docs show another one'

    argv = [sys.executable, study.folder / 'plot.py', study.folder / 'results/percolation.csv', study.folder / 'again']
    subprocess.run(argv, check=True)
    assert (study.folder / 'again').read_bytes() == picture.read_bytes()


def test_on_hosts_it_is_the_same(study: Study) -> None:
    less = '--sizes 8,12 --trials 20 --seeds 1'
    arguments = ['-a', study.folder / 'arg_parser.py', '--extra-args']
    study.run('sweep', study.config, *arguments, less)
    here = study.table('results/percolation.csv')
    tasks = study.tasks(*arguments, f'{less} --hosts 2/h1,2/h2')
    assert {task['host'] for task in tasks} <= {'h1', 'h2'}
    assert len(tasks) == 26
    assert study.table('results/percolation.csv') == here
    assert len(curves(study.folder / 'results/percolation.svg')) == 2


@pytest.mark.parametrize(('p', 'spanning'), [('0', '0'), ('1', '7')])
def test_empty_and_full_squares(p: str, spanning: str) -> None:
    argv = [EXAMPLE / 'percolation', '--size', '5', '--p', p, '--trials', '7']
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == f'{spanning}\n'


def test_its_program_runs_on_python_3_6() -> None:
    vermin = [sys.executable, '-c', 'import vermin; vermin.main()', '--no-tips', '-t=3.6-', '--violations']
    run = subprocess.run([*vermin, EXAMPLE / 'percolation'], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
