"""Components that say how they are by sd_notify(3): signs of life, what they are at, their end, and nonsense."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from remote_runner.config import ready
from tests.deploying import Deployment
from tests.living import becomes, status
from tests.test_ready import NOTIFIER, add
from tests.testbed.process import wait_until

HUNG = 'it gave no sign of life for 1 s (watchdog)'

#: Gives signs of life until /tmp/enough is there, and in life 1 of `lives` none.
FED = """\
import os, socket, sys, time
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
while not os.path.exists('/tmp/enough'):
    notify.sendto(b'WATCHDOG=1', os.environ['NOTIFY_SOCKET'])
    time.sleep(float(os.environ['WATCHDOG_USEC']) / 5e6)
"""


def test_signs_of_life_keep_it_alive_beyond_its_watchdog(deployment: Deployment) -> None:
    deployment.python('it', FED, watchdog=1, wait=True)
    running = deployment.begin()
    running.wait_for('component_started')
    deployment.host().run(['sh', '-c', 'sleep 2.5; touch /tmp/enough'])
    ended = running.finish()
    assert ended.status == 0, ended.stderr
    assert ended.of('component_troubled') == []


def test_without_signs_of_life_it_is_ended_and_has_failed(deployment: Deployment) -> None:
    deployment.sh('it', 'echo busy; sleep 100000 & sleep 100000', watchdog=1, wait=True)
    ended = deployment.run()
    assert ended.status == 1
    failed = ended.the('component_failed')
    assert failed['reason'] == HUNG
    assert 'busy' in failed['output']
    assert ended.the('component_troubled')['reason'] == f'{HUNG}; it is being ended'
    assert f'WARNING: it@h1: {HUNG}' in ended.stderr
    assert deployment.sleepers() == []
    assert status(deployment, 'it')['reason'] == HUNG


def test_a_watchdog_is_a_failure_whatever_the_exit_status_and_starts_it_again(deployment: Deployment) -> None:
    """The second life is well, and its watchdog begins anew."""
    deployment.sh(
        'it',
        'test -e /tmp/second && exec sh -c "sleep 0.3; exit 0"; touch /tmp/second; trap "exit 0" TERM; '
        'sleep 100000 & wait; sleep 100000',
        watchdog=1,
        restart='on-failure',
        wait=True,
    )
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    again = ended.the('component_restarting')
    assert (again['reason'], again['status']) == (HUNG, 0)


def test_the_watchdog_begins_when_it_is_ready(deployment: Deployment) -> None:
    words = ['sleep:1.5', 'READY=1', 'sleep:0.3', 'WATCHDOG=1', 'exit:0']
    add(deployment, 'it', NOTIFIER, *words, ready=ready.notify(), watchdog=1, wait=True)
    ended = deployment.run()
    assert ended.status == 0, ended.stderr


def test_a_program_can_say_that_it_is_hung(deployment: Deployment) -> None:
    add(deployment, 'it', NOTIFIER, 'sleep:0.3', 'WATCHDOG=trigger', watchdog=100, wait=True)
    ended = deployment.run()
    assert ended.status == 1
    assert ended.the('component_failed')['reason'] == 'it said itself that it does not work any more'


def test_a_program_can_change_its_watchdog(deployment: Deployment) -> None:
    words = ['WATCHDOG_USEC=20000000', 'sleep:2.5', 'WATCHDOG_USEC=1000000']
    add(deployment, 'it', NOTIFIER, *words, watchdog=2, wait=True)
    ended = deployment.run()
    assert ended.status == 1
    assert ended.the('component_failed')['reason'] == HUNG
    times = [ended.the(f'component_{kind}')['time'] for kind in ('started', 'failed')]
    assert times[1] - times[0] >= 3.4


def test_a_program_that_says_that_it_ends_may_do_so_in_peace(deployment: Deployment) -> None:
    words = ['STOPPING=1\nSTATUS=writing all down', 'sleep:2.5', 'exit:0']
    add(deployment, 'it', NOTIFIER, *words, watchdog=2, wait=True)
    running = deployment.begin()
    running.wait_for('component_said')
    assert becomes(deployment, 'it', 'stopping')['said'] == 'writing all down'
    ended = running.finish()
    assert ended.status == 0, ended.stderr
    assert ended.the('component_exited')['status'] == 0


def test_no_signs_of_life_are_asked_for_while_it_is_stopped(deployment: Deployment) -> None:
    script = 'trap "sleep 2; exit 0" TERM; systemd-notify --ready; sleep 100000 & wait'
    deployment.sh('it', script, ready=ready.notify(), watchdog=1.5)
    assert deployment.run().status == 0
    deployment.quit()
    found = status(deployment, 'it')
    assert (found['state'], found['exit_status'], found['reason']) == ('stopped', 0, '')


@pytest.mark.parametrize('ready_kind', [ready.notify(), None], ids=['notify', 'watchdog alone'])
def test_nonsense_breaks_nothing(deployment: Deployment, ready_kind: object) -> None:
    huge = '9' * 30
    long = '9' * 16
    words = [
        'STATUS=' + 'x' * 60000,
        'ERRNO=-1', 'ERRNO=abc', 'ERRNO=', f'ERRNO={huge}',
        'WATCHDOG_USEC=0', 'WATCHDOG_USEC=-5', f'WATCHDOG_USEC={huge}', f'WATCHDOG_USEC={long}', 'WATCHDOG_USEC=1e9',
        'WATCHDOG_USEC=20000000',
        'EXTEND_TIMEOUT_USEC=-1', f'EXTEND_TIMEOUT_USEC={huge}', f'EXTEND_TIMEOUT_USEC={long}', 'EXTEND_TIMEOUT_USEC=x',
        'WATCHDOG=2', 'WATCHDOG', '=', '\n\n\n', 'STATUS', 'READY=0', 'MAINPID=1', 'FDSTORE=1', 'BARRIER=1',
        'STATUS=\x1b[31mred\x07', 'X_\u00e4=\u00f6',
        'READY=1\nSTATUS=at work', f'WATCHDOG_USEC={long}', 'sleep:0.2', 'STATUS=done', 'exit:0',
    ]  # fmt: skip
    add(deployment, 'it', NOTIFIER, *words, ready=ready_kind, watchdog=100, wait=True)
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    said = [event['text'] for event in ended.of('component_said')]
    assert said[-2:] == ['at work', 'done']
    assert '\x1b' not in ended.stderr


@pytest.mark.parametrize('number', ['9' * 12, '4294967296', '133', '9' * 16])
def test_an_absurd_errno_is_a_refusal_all_the_same(deployment: Deployment, number: str) -> None:
    add(deployment, 'it', NOTIFIER, f'ERRNO={number}', ready=ready.notify(), start_timeout=60)
    ended = deployment.run()
    assert ended.status == 1
    assert ended.the('component_failed')['reason'].startswith('it refused to start: ')
    assert status(deployment, 'it')['refused'] == min(int(number), 2**31 - 1)


@pytest.mark.parametrize('attribute', ['watchdog', 'start_timeout', 'stop_timeout', 'start_grace'])
def test_time_limits_of_years(deployment: Deployment, attribute: str) -> None:
    attributes: dict[str, Any] = {'watchdog': 100, 'ready': ready.notify(), attribute: 1e9}
    add(deployment, 'it', NOTIFIER, 'READY=1', 'sleep:0.3', 'exit:0', **{'wait': True, **attributes})
    ended = deployment.run()
    assert ended.status == 0, ended.stderr


def test_a_flood_of_words_keeps_nothing_from_being_heard(deployment: Deployment) -> None:
    flood = """\
import os, socket
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect(os.environ['NOTIFY_SOCKET'])
for number in range(30000):
    notify.send(b'STATUS=%d of 30000, with so much more text that each of these takes room' % number)
notify.send(b'READY=1')
for number in range(30000):
    notify.send(b'STATUS=still %d' % number)
notify.send(b'STATUS=the last word')
"""
    deployment.python('it', flood, ready=ready.notify(), wait=True, watchdog=100)
    ended = deployment.run()
    assert ended.status == 0, ended.stderr[-3000:]
    said = ended.of('component_said')
    assert said[-1]['text'] == 'the last word'
    assert len(said) < 1000
    assert len(ended.of('component_ready')) == 1


# A program in C, without a library for it

PROGRAM = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <poll.h>

static int notify;

static void say(const char *text) {
    if (send(notify, text, strlen(text), MSG_NOSIGNAL) < 0) { perror(text); exit(2); }
}

/* Sends the writing end of a pipe, and waits until the other side has closed it. */
static void barrier(void) {
    int ends[2];
    char space[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec body = {"BARRIER=1", 9};
    struct msghdr message = {.msg_iov = &body, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (pipe(ends)) exit(3);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &ends[1], sizeof(int));
    if (sendmsg(notify, &message, MSG_NOSIGNAL) < 0) { perror("barrier"); exit(3); }
    close(ends[1]);
    struct pollfd wait = {.fd = ends[0]};
    if (poll(&wait, 1, 20000) != 1) { puts("no answer to the barrier"); exit(4); }
    puts("the barrier was answered");
    fflush(stdout);
}

int main(int count, char **words) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || path[0] != '/') { puts("no NOTIFY_SOCKET"); return 5; }
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (connect(notify, (struct sockaddr *)&address, sizeof address)) { perror(path); return 6; }
    long period = atol(getenv("WATCHDOG_USEC"));
    say("STATUS=warming up");
    say("READY=1\nSTATUS=at work");
    barrier();
    for (int beats = 0; beats < atoi(words[1]); beats++) {
        say("WATCHDOG=1");
        usleep(period / 3);
    }
    barrier();
    say(words[2]);
    pause();
    return 0;
}
"""


@pytest.fixture(scope='module')
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program in C, compiled."""
    folder = tmp_path_factory.mktemp('program')
    (folder / 'notifier.c').write_text(PROGRAM)
    subprocess.run(['cc', '-Wall', '-Werror', '-o', 'notifier', 'notifier.c'], cwd=folder, check=True)
    return folder / 'notifier'


@pytest.mark.parametrize(
    ('last', 'reason'),
    [
        ('STATUS=I hang now', HUNG),
        ('WATCHDOG=trigger', 'it said itself that it does not work any more'),
    ],
)
def test_a_program_in_c(deployment: Deployment, program: Path, last: str, reason: str) -> None:
    deployment.add('it', 'notifier', [5, last], files={str(program): 'notifier'}, base_dir=None, watchdog=1,
                   ready=ready.notify(), wait=True)  # fmt: skip
    ended = deployment.run()
    assert ended.status == 1
    assert ended.the('component_failed')['reason'] == reason
    assert [event['text'] for event in ended.of('component_said')][:2] == ['warming up', 'at work']
    assert ended.failure('it').count('the barrier was answered') == 2
    times = [ended.the(f'component_{kind}')['time'] for kind in ('ready', 'failed')]
    assert times[1] - times[0] >= 1


def test_signs_of_life_by_systemd_notify(deployment: Deployment) -> None:
    beats = 'for i in 1 2 3 4; do systemd-notify WATCHDOG=1; sleep 0.6; done'
    deployment.sh('it', f'systemd-notify --ready; {beats}; systemd-notify STOPPING=1; sleep 2; exit 0',
                  watchdog=1.5, ready=ready.notify(), wait=True)  # fmt: skip
    ended = deployment.run()
    assert ended.status == 0, ended.stderr
    wait_until(lambda: status(deployment, 'it')['state'] == 'exited', 'its end')
