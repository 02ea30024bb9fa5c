"""The pictures that a live display draws: what stands there, and what does where there is not room for all."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from remote_runner import events as e
from remote_runner.ui.frame import frame
from remote_runner.ui.progress import Progress

HEIGHT = 23


def picture(progress: Progress, height: int = HEIGHT, now: float = 0.0, hints: tuple[str, ...] = ()) -> list[str]:
    return [''.join(text for text, _ in line) for line in frame(progress, height, now, hints)]


def after(*events: e.Event, times: dict[int, float] | None = None) -> Progress:
    """The progress after the events; the one at position n happened at `times[n]`."""
    progress = Progress()
    for position, event in enumerate(events):
        progress.apply(event, (times or {}).get(position, 0.0))
    return progress


def run(hosts: int, names: tuple[str, ...] = (), **of_index: tuple[str, ...]) -> e.RunStarted:
    names = names or tuple(f'h{number}' for number in range(hosts))
    components = {int(index[1:]): labels for index, labels in of_index.items()}
    return e.RunStarted(run='r', session='s', hosts=names, components=components)


def test_time_is_shown_where_something_takes_long() -> None:
    progress = after(run(2), e.HostConnecting(host='h0'), e.HostConnected(host='h1', seconds=0))
    assert picture(progress, now=0.9) == ['h0  connecting', 'h1  connected', '1 of 2 hosts connected']
    assert picture(progress, now=75.5) == [
        'h0  connecting  1 min 15 s',
        'h1  connected',
        '1 of 2 hosts connected  1 min 15 s',
    ]


def test_copying_shows_bytes_files_and_rate() -> None:
    progress = after(
        e.HostConnected(host='h0', seconds=0),
        e.FilesCompared(host='h0', files=9, to_send=3, bytes=4_000_000),
        e.FilesSending(host='h0', bytes=1_000_000, of_bytes=4_000_000),
        times={1: 10.0, 2: 10.2},
    )
    assert picture(progress, now=10.4)[0] == 'h0  copying:  25 %, 1.0 MB of 4.0 MB, 3 files'
    assert picture(progress, now=12)[0] == 'h0  copying:  25 %, 1.0 MB of 4.0 MB, 3 files, 500.0 kB/s, 6 s left  2 s'
    progress.apply(e.FilesSent(host='h0', files=9, sent=3, modes=0, bytes=4_000_000, seconds=3), 13)
    assert picture(progress, now=20)[0] == 'h0  ready'


def test_copying_to_and_from_many_hosts_shows_all_together() -> None:
    progress = after(
        *(e.HostConnecting(host=host) for host in ('h0', 'h1', 'h2')),
        *(e.HostConnected(host=host, seconds=0) for host in ('h0', 'h1')),
        *(e.FilesCompared(host=host, files=9, to_send=4, bytes=4_000_000) for host in ('h0', 'h1')),
        e.FilesSending(host='h0', bytes=1_000_000, of_bytes=4_000_000, files=1, of_files=4),
    )
    progress.apply(e.FilesSending(host='h0', bytes=3_000_000, of_bytes=4_000_000, files=3, of_files=4), 1)
    progress.apply(e.FilesSending(host='h1', bytes=1_000_000, of_bytes=4_000_000), 1)
    assert picture(progress, now=2) == [
        'h0  copying:  75 %, 3.0 MB of 4.0 MB, 3 of 4 files, 1.5 MB/s, 1 s left  2 s',
        'h1  copying:  25 %, 1.0 MB of 4.0 MB, 4 files, 500.0 kB/s, 6 s left  2 s',
        'h2  connecting  2 s',
        '0 of 3 hosts ready; copying:  50 %, 4.0 MB of 8.0 MB, 3 of 8 files, 2.0 MB/s, 2 s left  2 s',
    ]
    progress.apply(e.FilesSent(host='h0', files=9, sent=4, modes=0, bytes=4_000_000, seconds=3), 3)
    assert picture(progress, now=3)[-1] == (
        '1 of 3 hosts ready; copying:  62 %, 5.0 MB of 8.0 MB, 4 of 8 files, 333.3 kB/s, 9 s left  3 s'
    )
    progress.apply(e.FilesSent(host='h1', files=9, sent=4, modes=0, bytes=4_000_000, seconds=3), 4)
    progress.apply(e.HostFailed(host='h2', error='refused'), 4)
    assert picture(progress, now=4)[-1] == '2 of 3 hosts ready, 1 failed  4 s'


def test_the_rate_is_that_of_the_last_ten_seconds() -> None:
    progress = after(e.FilesCompared(host='h0', files=1, to_send=1, bytes=1_000_000_000))
    for second in range(1, 101):
        arrived = 9_000_000 * min(second, 60) + 1_000_000 * max(0, second - 60)
        progress.apply(e.FilesSending(host='h0', bytes=arrived, of_bytes=1_000_000_000), second)
    assert '1.0 MB/s, 7 min 00 s left' in picture(progress, now=100)[0]


def test_fetching() -> None:
    progress = after(
        e.ResultsFetching(host='h0', bytes=0, of_bytes=2_000_000, files=0, of_files=3),
        e.ResultsFetching(host='h0', bytes=1_000_000, of_bytes=2_000_000, files=2, of_files=3),
    )
    line = picture(progress, now=2)[0]
    assert line == 'h0  fetching:  50 %, 1.0 MB of 2.0 MB, 2 of 3 files, 500.0 kB/s, 2 s left  2 s'
    progress.apply(e.ResultsFetched(host='h0', files=3, bytes=2_000_000, unchanged=0, seconds=3, folders={}), 3)
    assert picture(progress, now=3) == ['h0  ready', '1 of 1 host ready  3 s']


def test_starting_counts_the_components_of_an_index() -> None:
    labels = {'i0': ('a@h0', 'b@h0'), 'i5': ('c@h0', 'd@h0', 'e@h0')}
    progress = after(run(1, **labels))
    for name in 'ab':
        progress.apply(e.ComponentStarting(host='h0', component=name, index=0), 1)
    progress.apply(e.ComponentStarted(host='h0', component='b', pid=1, window=0, seconds=0), 2)
    assert picture(progress, now=3) == [
        'h0  starting: 1/2 components of index 0  2 s',
        '1 of 5 components started (index 0)  3 s',
    ]
    progress.apply(e.ComponentFailed(host='h0', component='a', reason='no'), 4)
    assert picture(progress, now=4)[0] == 'h0  5 components: 1 running, 1 failed'
    progress.apply(e.ComponentStarting(host='h0', component='c', index=5), 5)
    assert picture(progress, now=5) == [
        'h0  starting: 0/3 components of index 5, 1 failed',
        '1 of 5 components started (index 5), 1 failed  5 s',
    ]


def test_while_all_run_it_says_how_to_attach() -> None:
    progress = after(run(1, i0=('a@h0',)), e.ComponentStarted(host='h0', component='a', pid=1, window=0, seconds=0))
    assert progress.is_running()
    assert picture(progress, hints=('attach: so',)) == [
        'h0  1 component: 1 running',
        'attach: so',
        '1 of 1 component started',
    ]
    progress.apply(e.ComponentExited(host='h0', component='a', status=0), 0)
    assert not progress.is_running()
    assert picture(progress)[0] == 'h0  1 component: 1 ended'


def test_a_lost_host_and_its_return() -> None:
    progress = after(e.HostConnected(host='h0', seconds=0), e.HostLost(host='h0', error='h0: silent\nfor 45 s'))
    assert picture(progress, now=2)[0] == 'h0  connection lost: silent  2 s'
    progress.apply(e.HostConnected(host='h0', seconds=1), 3)
    assert picture(progress, now=3)[0] == 'h0  connected'


def test_two_names_of_a_machine() -> None:
    assert picture(after(e.HostMerged(host='b', same_as='a')))[0] == 'b  same machine as a'


def test_where_not_all_fit_work_and_trouble_come_first() -> None:
    progress = after(run(200), *(e.HostConnecting(host=f'h{number}') for number in range(160)))
    for number in range(100):
        progress.apply(e.HostConnected(host=f'h{number}', seconds=0), 1)
    progress.apply(e.FilesCompared(host='h77', files=1, to_send=1, bytes=1), 1)
    progress.apply(e.HostFailed(host='h150', error='refused'), 1)
    lines = picture(progress, height=6)
    assert [line.split()[0] for line in lines] == ['h77', 'h100', 'h101', 'h150', '…', '100']
    assert lines[-2:] == ['… and 196 more: 99 connected, 57 connecting, 40 waiting', lines[-1]]
    assert lines[-1] == '100 of 200 hosts connected, 1 failed'


def test_trouble_leaves_half_of_the_room_to_work() -> None:
    progress = after(run(100), *(e.HostFailed(host=f'h{number}', error='x') for number in range(50)))
    for number in range(50, 100):
        progress.apply(e.HostConnecting(host=f'h{number}'), 0)
    words = [line.split()[1] for line in picture(progress, height=12)[:-2]]
    assert words == ['failed:'] * 5 + ['connecting'] * 5


@given(st.lists(st.sampled_from(['failed', 'connecting', 'connected', 'copying', 'waiting'])), st.integers(0, 40))
def test_all_hosts_are_accounted_for_in_the_room_there_is(hosts: list[str], height: int) -> None:
    progress = after(run(len(hosts)))
    for number, phase in enumerate(hosts):
        host = f'h{number}'
        event = {
            'failed': e.HostFailed(host=host, error='x'),
            'connecting': e.HostConnecting(host=host),
            'connected': e.HostConnected(host=host, seconds=0),
            'copying': e.FilesCompared(host=host, files=1, to_send=1, bytes=1),
        }.get(phase)
        if event:
            progress.apply(event, 0)
    *lines, _ = picture(progress, height)
    assert len(lines) + 1 <= max(height, 2)
    shown = {int(found[1]): found[2] for found in (re.match(r'h(\d+) +(.*)', line) for line in lines) if found}
    assert list(shown) == sorted(shown)
    for number, line in shown.items():
        assert line.startswith(hosts[number])
    rest = [line for line in lines if line.startswith('…')]
    counted = sum(int(number) for number in re.findall(r'(\d+) [a-z]+(?:,|$)', rest[0])) if rest else 0
    assert len(shown) + counted == len(hosts)
