"""How a relayed terminal is left, whatever ends it, and the bytes that pass until then."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from tests.deploying import Deployment, deploying
from tests.seats import PATIENCE, ROOT, Office, at_work
from tests.testbed import Testbed
from tests.testbed.process import await_stop, wait_until


@pytest.fixture
def office(deployment: Deployment, tmp_path: Path) -> Iterator[Office]:
    with at_work(deployment, tmp_path) as office:
        yield office


class TestLeaving:
    def test_by_the_escape(self, office: Office) -> None:
        kept = office.keeper()
        office.run()
        seat = office.sit(*office.window('keeper'))
        seat.terminal.wait_for('ready')
        seat.terminal.press('a~.b', 'Enter', '~~.c', 'Enter')
        seat.terminal.wait_for('got ~.c')
        assert office.deployment.text(kept) == 'a~.b\n~.c\n'
        seat.terminal.press('~.')
        seat.given_back(0)
        wait_until(lambda: office.state() == 'Detached', 'the end of what screen shows')

    @pytest.mark.parametrize('keys', [['q'], ['C-c'], ['C-a', 'd']])
    def test_without_having_sent_anything(self, office: Office, keys: list[str]) -> None:
        kept = office.keeper()
        office.run()
        seat = office.sit('--read-only', *office.window('keeper'))
        seat.terminal.wait_for('ready')
        seat.terminal.press('x', 'Enter', '~', '.', 'C-d', 'Up', 'M-q', 'd', 'C-a', 'k', 'y', *keys)
        seat.given_back(0)
        seat = office.sit(*office.window('keeper'))
        seat.terminal.wait_for('ready')
        seat.terminal.press('finish', 'Enter')
        seat.terminal.wait_for('got finish')
        assert office.deployment.text(kept) == 'finish\n'

    def test_by_a_signal(self, office: Office) -> None:
        office.keeper()
        office.run()
        seat = office.sit(*office.window('keeper'))
        seat.terminal.wait_for('ready')
        os.kill(seat.pid, signal.SIGTERM)
        seat.given_back(128 + signal.SIGTERM)
        seat = office.sit(*office.window('keeper'))
        seat.terminal.wait_for('ready')
        os.kill(seat.pid, signal.SIGHUP)
        seat.given_back(128 + signal.SIGHUP)
        seat = office.sit(*office.window('keeper'))
        seat.terminal.wait_for('ready')
        os.kill(seat.pid, signal.SIGINT)
        assert 'interrupted' in seat.given_back(130)

    def test_by_closing_the_terminal(self, office: Office) -> None:
        office.keeper()
        office.run()
        seat = office.sit(*office.window('keeper'))
        seat.terminal.wait_for('ready')
        pid = seat.pid
        seat.terminal.close()
        wait_until(lambda: not Path(f'/proc/{pid}').exists(), 'the end of the driver')
        wait_until(lambda: office.state() == 'Detached', 'the end of what screen shows')

    def test_a_stopped_one_that_goes_on(self, office: Office) -> None:
        office.keeper()
        office.run()
        seat = office.sit(*office.window('keeper'))
        seat.terminal.wait_for('ready')
        os.kill(seat.pid, signal.SIGSTOP)
        await_stop(seat.pid)
        terminal = seat.folder / 'tty'
        terminal.symlink_to(os.readlink(f'/proc/{seat.pid}/fd/0'))
        assert os.system(f'stty sane <{terminal}') == 0  # as the shell does that takes the terminal back
        os.kill(seat.pid, signal.SIGCONT)
        seat.terminal.wait_for('ready')
        wait_until(lambda: '-icanon' in os.popen(f'stty -a <{terminal}').read(), 'raw mode')
        seat.terminal.press('again', 'Enter')
        seat.terminal.wait_for('got again')
        seat.terminal.press('C-a', 'd')
        seat.given_back(0)

    def test_when_the_link_is_cut(self, fresh_bed: Callable[..., Testbed], tmp_path: Path) -> None:
        bed = fresh_bed(1)
        with deploying(bed, tmp_path) as deployment, at_work(deployment, tmp_path) as office:
            office.keeper()
            office.run()
            seat = office.sit('--silence', '1', *office.window('keeper'))
            seat.terminal.wait_for('ready')
            bed['h1'].cut()
            seat.terminal.press('lost')
            text = seat.given_back(3)
            assert 'ERROR: h1: the connection was silent for 1 s' in text
            bed['h1'].heal()

    def test_though_the_link_is_cut(self, fresh_bed: Callable[..., Testbed], tmp_path: Path) -> None:
        bed = fresh_bed(1)
        with deploying(bed, tmp_path) as deployment, at_work(deployment, tmp_path) as office:
            office.keeper()
            office.run()
            seat = office.sit(*office.window('keeper'))
            seat.terminal.wait_for('ready')
            bed['h1'].cut()
            seat.terminal.press('Enter', '~.')
            seat.given_back(0)
            bed['h1'].heal()

    def test_when_sshd_is_killed(self, fresh_bed: Callable[..., Testbed], tmp_path: Path) -> None:
        bed = fresh_bed(1)
        with deploying(bed, tmp_path) as deployment, at_work(deployment, tmp_path) as office:
            office.keeper()
            office.run()
            seat = office.sit(*office.window('keeper'))
            seat.terminal.wait_for('ready')
            bed['h1'].stop_sshd(sessions=True)
            assert 'ERROR: h1: the other side closed the connection' in seat.given_back(3)


    def test_ends_no_program_whatever_the_users_settings(self, office: Office) -> None:
        user = office.deployment.user('settings')
        home = office.deployment.host().path(f'/home/{user}')
        (home / '.screenrc').write_text('autodetach off\n')
        office.keeper(host=f'{user}@h1')
        office.run()
        seat = office.sit(*office.window('keeper', user=user))
        seat.terminal.wait_for('ready')
        before = office.deployment.the_session(user=user)
        assert before.state == 'Attached'
        seat.terminal.press('~.')
        seat.given_back(0)
        wait_until(
            lambda: all(found.state == 'Detached' for found in office.deployment.own_sessions(user=user)),
            'the end of what screen shows',
        )
        [session] = office.deployment.own_sessions(user=user)
        assert session.pid == before.pid

    def test_though_the_terminal_takes_nothing_any_more(self, bed: Testbed) -> None:
        arguments = ['-m', 'tests.attach_driver', '-F', str(bed.ssh_config), 'h1', 'command', 'yes']
        driver = pexpect.spawn(sys.executable, arguments, cwd=str(ROOT), timeout=PATIENCE)
        before = termios.tcgetattr(driver.child_fd)
        driver.expect_exact(b'y\r\ny')
        assert termios.tcgetattr(driver.child_fd) != before
        driver.kill(signal.SIGTERM)
        wait_until(lambda: not driver.isalive(), 'the end of the driver')
        assert driver.signalstatus == signal.SIGTERM
        assert termios.tcgetattr(driver.child_fd) == before
        driver.close()

    def test_though_nothing_can_be_printed(self, bed: Testbed) -> None:
        arguments = shlex.join(['-F', str(bed.ssh_config), 'h1', 'command', 'echo hello; exec sleep 1000'])
        driver = f'{sys.executable} -m tests.attach_driver {arguments} >/dev/full 2>/dev/null'
        script = f'stty -g; {driver}; echo $?; stty -g'
        output = pexpect.run(f'sh -c {shlex.quote(script)}', cwd=ROOT, timeout=PATIENCE)
        before, status, after = output.decode().split()
        assert status == '1'
        assert after == before

    def test_puts_away_what_fills_the_terminal(self, office: Office) -> None:
        other = r"printf '\033[?1049h\033[?25l\033[?1002;1006h\033[5;5Hin the way'; exec sleep 1000"
        seat = office.sit('h1', 'command', other)
        seat.terminal.wait_for('in the way')
        assert not seat.terminal.shows_cursor()
        seat.terminal.press('~.')
        text = seat.given_back(0)
        assert text.startswith('this was here\nstatus 0\n')
        assert seat.terminal.flags('mouse_button_flag', 'mouse_sgr_flag', 'alternate_on') == ['0', '0', '0']

    def test_does_not_write_over_what_stays(self, office: Office) -> None:
        seat = office.sit('h1', 'command', r"printf '\033[5;5Hthis stays'; exec sleep 1000")
        seat.terminal.wait_for('this stays')
        seat.terminal.press('~.')
        lines = seat.given_back(0).rstrip().splitlines()
        assert lines.index('    this stays') < lines.index('status 0')
        assert lines.index('status 0') == len(lines) - 1


class TestBytes:
    """A terminal of which we see the bytes."""

    @pytest.fixture(params=['h1', 'localhost'])
    def where(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def start(self, where: str, bed: Testbed) -> Iterator[Callable[[str], pexpect.spawn]]:
        started = []

        def start(command: str) -> pexpect.spawn:
            arguments = ['-m', 'tests.attach_driver', '-F', str(bed.ssh_config), where, 'command', command]
            env = {**os.environ, 'TERM': 'vt220', 'SSH_AUTH_SOCK': '/nowhere'}
            driver = pexpect.spawn(sys.executable, arguments, cwd=str(ROOT), env=env, timeout=PATIENCE)
            driver.delaybeforesend = None
            started.append(driver)
            return driver

        yield start
        for driver in started:
            driver.close(force=True)

    def test_all_of_them_pass_unchanged_both_ways(self, start: Callable[[str], pexpect.spawn]) -> None:
        data = bytes(range(256)) * 1000
        driver = start('stty raw -echo; printf ready; exec cat')
        driver.expect_exact(b'ready')
        received = bytearray()
        for start_at in range(0, len(data), 1024):
            driver.send(data[start_at : start_at + 1024])
            received += driver.read(1024)
        assert received == data

    def test_much_output_then_the_exit_status(self, start: Callable[[str], pexpect.spawn]) -> None:
        driver = start('stty raw; head -c 5000000 /dev/zero | tr "\\000" x; exit 7')
        assert driver.read() == b'x' * 5_000_000
        driver.close()
        assert driver.exitstatus == 7

    def test_a_command_that_a_signal_ended(self, start: Callable[[str], pexpect.spawn]) -> None:
        driver = start("sh -c 'kill -9 $$'; exit $?")
        driver.read()
        driver.close()
        assert driver.exitstatus == 128 + 9

    def test_the_terminal_is_the_commands_own(self, start: Callable[[str], pexpect.spawn]) -> None:
        driver = start('ps -o tty= -p $$; tty; echo $TERM; exec cat >/dev/tty')
        driver.expect(rb'(pts/\d+)\s+/dev/(pts/\d+)\s+vt220')
        assert driver.match[1] == driver.match[2]
        driver.send(b'to the terminal\x04')
        driver.expect_exact(b'to the terminal')
        driver.send(b'\x03')
        driver.expect(pexpect.EOF)

    def test_what_was_typed_ahead(self, start: Callable[[str], pexpect.spawn]) -> None:
        driver = start('read -r line; echo "got <$line>"')
        driver.send(b'early\r')
        driver.expect_exact(b'got <early>')

    def test_more_keys_than_the_program_takes_and_still_it_can_be_left(
        self, start: Callable[[str], pexpect.spawn]
    ) -> None:
        driver = start('stty raw -echo; printf ready; exec sleep 1000')
        driver.expect_exact(b'ready')
        for _ in range(200):
            driver.send(b'x' * 1024)
        driver.send(b'\r~.')
        driver.expect(pexpect.EOF)
        driver.close()
        assert driver.exitstatus == 0

    def test_no_agent_is_forwarded(self, start: Callable[[str], pexpect.spawn], where: str) -> None:
        driver = start('echo "<${SSH_AUTH_SOCK-none}>"')
        driver.expect_exact(b'</nowhere>' if where == 'localhost' else b'<none>')
