"""The user's terminal as that of a window of a session: real terminals (tmux, and one of which we see the bytes)."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from tests.attaching import Terminal
from tests.commands import ssh_config
from tests.deploying import Deployment, deploying, kill
from tests.testbed import Testbed
from tests.testbed.process import wait_until

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 30.0  # seconds; the longest that anything may take to appear
#: A program that keeps each line that it reads, and says so.
KEEPS = 'stty -echo; echo ready; while read -r line; do echo "$line" >>{kept}; echo "got $line"; done'


class Seat:
    """Somebody at a terminal in which the driver runs, between two looks at the terminal's modes."""

    def __init__(self, folder: Path, arguments: list[str], *, term: str | None = None, **size: int) -> None:
        self.folder = folder
        driver = shlex.join([sys.executable, '-m', 'tests.attach_driver', *arguments])
        set_term = f'export TERM={shlex.quote(term)}; ' if term is not None else ''
        script = (
            f'cd {ROOT}; stty -g >{folder}/before; echo this was here; '
            f"{set_term}sh -c 'echo $$ >{folder}/pid; exec \"$@\"' sh {driver}; "
            f'echo "status $?"; stty -g >{folder}/after; exec cat'
        )
        for name in ('before', 'after', 'pid'):
            (folder / name).unlink(missing_ok=True)
        self.terminal = Terminal(folder, ['sh', '-c', script], **size)

    @property
    def pid(self) -> int:
        return int((self.folder / 'pid').read_text())

    def given_back(self, status: int) -> str:
        """Wait for the end of the driver; what the terminal shows, which is in its old mode."""
        text = self.terminal.wait_for(f'status {status}')
        wait_until(lambda: (self.folder / 'after').exists() and (self.folder / 'after').read_text() != '', 'stty')
        assert (self.folder / 'after').read_text() == (self.folder / 'before').read_text()
        assert self.terminal.shows_cursor()
        return text


class Office:
    """A deployment, and seats from which its windows are attached to."""

    def __init__(self, deployment: Deployment, folder: Path) -> None:
        self.deployment = deployment
        self.folder = folder
        self.seats: list[Seat] = []

    def keeper(self, name: str = 'keeper', **attributes: str) -> str:
        """Add a component that keeps what it reads; the file."""
        kept = f'/tmp/{name}-{self.deployment.session}'
        self.deployment.sh(name, KEEPS.format(kept=kept), **attributes)
        return kept

    def run(self) -> None:
        ended = self.deployment.run()
        assert ended.status == 0, ended.stderr

    def window(self, name: str, host: str = 'h1', user: str | None = None) -> list[str]:
        """The driver's arguments for the window of a component."""
        session = self.deployment.the_session(host, user)
        [number] = [number for number, title in self.deployment.windows(host, user).items() if title == name]
        where = f'{user}@{host}' if user else host
        return [where, 'window', str(session.pid), session.name, str(number)]

    def sit(self, *arguments: str, config: Path | None = None, term: str | None = None, **size: int) -> Seat:
        config = config or self.deployment.bed.ssh_config
        seat = Seat(self.folder, ['-F', str(config), *arguments], term=term, **size)
        self.seats.append(seat)
        return seat

    def state(self) -> str:
        return self.deployment.the_session().state


@pytest.fixture
def office(deployment: Deployment, tmp_path: Path) -> Iterator[Office]:
    office = Office(deployment, tmp_path)
    yield office
    for seat in office.seats:
        seat.terminal.close()


class TestWindows:
    def test_it_is_shown_and_gets_the_keys_until_it_is_left(self, office: Office) -> None:
        for name in ('other', 'keeper', 'third'):
            kept = office.keeper(name)
        kept = kept.replace('third', 'keeper')
        office.run()
        seat = office.sit(*office.window('keeper'))
        seat.terminal.wait_for('ready')
        seat.terminal.press('hello there', 'Enter')
        seat.terminal.wait_for('got hello there')
        assert office.state() == 'Attached'
        seat.terminal.press('C-a', 'd')
        seat.given_back(0)
        assert office.deployment.text(kept) == 'hello there\n'
        assert office.state() == 'Detached'

    def test_keys_of_all_kinds_reach_the_program(self, office: Office) -> None:
        office.deployment.sh('raw', 'stty raw -echo; printf ready; head -c 6 | od -An -tx1')
        office.run()
        seat = office.sit(*office.window('raw'))
        seat.terminal.wait_for('ready')
        seat.terminal.press('C-c', 'C-z', 'C-\\', 'C-d', 'Enter', 'Tab')
        seat.terminal.wait_for('03 1a 1c 04 0d 09')

    def test_its_size_is_that_of_the_terminal(self, office: Office) -> None:
        program = (
            'import os, signal\n'
            'def show(*_):\n    print("%d x %d." % os.get_terminal_size(0), flush=True)\n'
            'signal.signal(signal.SIGWINCH, show)\nprint("ready")\nshow()\nwhile True: signal.pause()'
        )
        office.deployment.python('sized', program)
        office.run()
        seat = office.sit(*office.window('sized'), width=97, height=31)
        seat.terminal.wait_for('97 x 31.')
        seat.terminal.resize(70, 20)
        seat.terminal.wait_for('70 x 20.')
        seat.terminal.resize(101, 33)
        seat.terminal.wait_for('101 x 33.')

    def test_utf8(self, office: Office) -> None:
        kept = office.keeper()
        office.run()
        seat = office.sit(*office.window('keeper'))
        seat.terminal.wait_for('ready')
        seat.terminal.press('grüße €5 日本', 'Enter')
        seat.terminal.wait_for('got grüße €5 日本')
        assert office.deployment.text(kept) == 'grüße €5 日本\n'

    def test_two_terminals_show_different_windows(self, office: Office) -> None:
        office.keeper('one')
        office.keeper('two')
        office.run()
        seats = []
        for name in ('one', 'two'):
            folder = office.folder / name
            folder.mkdir()
            seat = Seat(folder, ['-F', str(office.deployment.bed.ssh_config), *office.window(name)])
            office.seats.append(seat)
            seats.append(seat)
            seat.terminal.wait_for('ready')
        for seat, word in zip(seats, ('first', 'second'), strict=True):
            seat.terminal.press(word, 'Enter')
            seat.terminal.wait_for(f'got {word}')
        assert 'second' not in seats[0].terminal.text()
        assert 'first' not in seats[1].terminal.text()

    def test_the_end_of_the_session(self, office: Office) -> None:
        office.keeper()
        office.run()
        seat = office.sit(*office.window('keeper'))
        seat.terminal.wait_for('ready')
        office.deployment.quit()
        assert '[screen is terminating]' in seat.given_back(0)

    @pytest.mark.parametrize('term', ['xterm-unheard-of', ''])
    def test_a_kind_of_terminal_that_the_host_does_not_know(self, office: Office, term: str) -> None:
        office.keeper()
        office.run()
        seat = office.sit(*office.window('keeper'), term=term)
        seat.terminal.wait_for('ready')
        seat.terminal.press('C-a', 'd')
        seat.given_back(0)

    @pytest.mark.parametrize('hidden', [['infocmp'], ['infocmp', 'tput']])
    def test_where_the_host_has_no_tools_to_know_it_by(self, office: Office, hidden: list[str]) -> None:
        office.keeper()
        office.run()
        for program in hidden:
            office.deployment.host().hide(program)
        try:
            for term in ('xterm-unheard-of', 'vt220'):
                seat = office.sit(*office.window('keeper'), term=term)
                seat.terminal.wait_for('ready')
                servers = office.deployment.processes('-x')
                assert servers, 'nobody is attached'
                environment = (office.deployment.host().root / f'proc/{servers[-1].pid}/environ').read_bytes()
                assert f'\0TERM={"vt220" if term == "vt220" else "xterm-256color"}\0'.encode() in environment
                seat.terminal.press('C-a', 'd')
                seat.given_back(0)
        finally:
            for program in hidden:
                office.deployment.host().unhide(program)


class TestGone:
    def test_the_session(self, office: Office) -> None:
        office.keeper()
        office.run()
        arguments = office.window('keeper')
        office.deployment.quit()
        text = office.sit(*arguments).given_back(69)
        assert f'remote_runner: session {office.deployment.session} (screen server {arguments[2]}) is gone' in text

    def test_the_session_though_another_begins_with_its_name(self, office: Office) -> None:
        office.keeper()
        office.run()
        arguments = office.window('keeper')
        arguments[3] = arguments[3][:-1]
        office.sit(*arguments).given_back(69)

    def test_the_session_whose_server_was_killed(self, office: Office) -> None:
        office.keeper()
        office.run()
        arguments = office.window('keeper')
        kill(office.deployment.host(), signal.SIGKILL, int(arguments[2]))
        office.deployment.ends(int(arguments[2]))
        assert 'is gone' in office.sit(*arguments).given_back(69)

    def test_the_window(self, office: Office) -> None:
        office.keeper()
        office.run()
        arguments = office.window('keeper')
        arguments[4] = '77'
        assert 'window 77 of session' in office.sit(*arguments).given_back(68)

    def test_screen(self, office: Office) -> None:
        office.keeper()
        office.run()
        arguments = office.window('keeper')
        office.deployment.host().hide('screen')
        try:
            assert 'screen is not installed here' in office.sit(*arguments).given_back(127)
        finally:
            office.deployment.host().unhide('screen')

    def test_nothing_that_is_a_terminal(self, office: Office, bed: Testbed) -> None:
        arguments = ['-F', str(bed.ssh_config), 'h1', 'window', '1', 'runner', '0']
        driver = f'{sys.executable} -m tests.attach_driver {shlex.join(arguments)} </dev/null'
        output, status = pexpect.run(f'sh -c {shlex.quote(driver)}', cwd=ROOT, withexitstatus=True, timeout=PATIENCE)
        assert status == 2
        assert output.decode().startswith('ERROR: stdin is no terminal')


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
        with deploying(bed, tmp_path) as deployment:
            office = Office(deployment, tmp_path)
            office.keeper()
            office.run()
            seat = office.sit('--silence', '1', *office.window('keeper'))
            try:
                seat.terminal.wait_for('ready')
                bed['h1'].cut()
                seat.terminal.press('lost')
                text = seat.given_back(3)
                assert 'ERROR: h1: the connection was silent for 1 s' in text
                bed['h1'].heal()
            finally:
                seat.terminal.close()

    def test_though_the_link_is_cut(self, fresh_bed: Callable[..., Testbed], tmp_path: Path) -> None:
        bed = fresh_bed(1)
        with deploying(bed, tmp_path) as deployment:
            office = Office(deployment, tmp_path)
            office.keeper()
            office.run()
            seat = office.sit(*office.window('keeper'))
            try:
                seat.terminal.wait_for('ready')
                bed['h1'].cut()
                seat.terminal.press('Enter', '~.')
                seat.given_back(0)
                bed['h1'].heal()
            finally:
                seat.terminal.close()

    def test_when_sshd_is_killed(self, fresh_bed: Callable[..., Testbed], tmp_path: Path) -> None:
        bed = fresh_bed(1)
        with deploying(bed, tmp_path) as deployment:
            office = Office(deployment, tmp_path)
            office.keeper()
            office.run()
            seat = office.sit(*office.window('keeper'))
            try:
                seat.terminal.wait_for('ready')
                bed['h1'].stop_sshd(sessions=True)
                assert 'ERROR: h1: the other side closed the connection' in seat.given_back(3)
            finally:
                seat.terminal.close()


    def test_ends_no_program_whatever_the_users_settings(self, office: Office) -> None:
        user = office.deployment.user('settings')
        home = office.deployment.host().path(f'/home/{user}')
        (home / '.screenrc').write_text('autodetach off\n')
        office.keeper(host=f'{user}@h1')
        office.run()
        seat = office.sit(*office.window('keeper', user=user))
        seat.terminal.wait_for('ready')
        seat.terminal.press('~.')
        seat.given_back(0)
        session = office.deployment.the_session(user=user)
        wait_until(lambda: office.deployment.the_session(user=user).state == 'Detached', 'the end of what screen shows')
        assert office.deployment.the_session(user=user).pid == session.pid

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
        output = pexpect.run(f"sh -c {shlex.quote(f'stty -g; {driver}; echo $?; stty -g')}", cwd=ROOT, timeout=PATIENCE)
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


class TestHosts:
    def test_through_a_jump_host(self, office: Office) -> None:
        office.keeper(host='h2')
        office.run()
        config = ssh_config(office.folder, office.deployment.bed, 'Host h2\n  ProxyJump h1\n')
        seat = office.sit(*office.window('keeper', 'h2'), config=config)
        seat.terminal.wait_for('ready')
        seat.terminal.press('hello', 'Enter')
        seat.terminal.wait_for('got hello')
        seat.terminal.press('C-a', 'd')
        seat.given_back(0)

    @pytest.mark.parametrize('shell', ['sh', 'bash', 'csh', 'tcsh', 'fish', 'zsh', 'mksh'])
    def test_under_any_login_shell(self, office: Office, shell: str) -> None:
        user = office.deployment.user(shell, shell=f'/usr/bin/{shell}')
        office.keeper(host=f'{user}@h1')
        office.run()
        seat = office.sit(*office.window('keeper', user=user), term='xterm-unheard-of')
        seat.terminal.wait_for('ready')
        seat.terminal.press('hello', 'Enter')
        seat.terminal.wait_for('got hello')
        seat.terminal.press('C-a', 'd')
        seat.given_back(0)

    def test_localhost(self, office: Office) -> None:
        kept = office.folder / 'kept'
        office.deployment.sh('keeper', KEEPS.format(kept=kept), host='localhost')
        office.run()
        [socket] = Path('/run/screen').glob(f'S-*/*.{office.deployment.session}')
        pid, _, session = socket.name.partition('.')
        seat = office.sit('localhost', 'window', pid, session, '0', width=90)
        seat.terminal.wait_for('ready')
        seat.terminal.press('hällo', 'Enter')
        seat.terminal.wait_for('got hällo')
        seat.terminal.press('C-a', 'd')
        seat.given_back(0)
        assert kept.read_text() == 'hällo\n'
        assert 'is gone' in office.sit('localhost', 'window', pid, 'another', '0').given_back(69)

    def test_localhost_from_within_the_session(self, office: Office) -> None:
        driver = shlex.join([sys.executable, '-m', 'tests.attach_driver', 'localhost', 'window'])
        said = office.folder / 'said'
        office.deployment.sleep(host='localhost')
        office.run()
        [socket] = Path('/run/screen').glob(f'S-*/*.{office.deployment.session}')
        script = office.folder / 'script'  # screen itself would fill in variables
        script.write_text(f'cd {ROOT}; {driver} ${{STY%%.*}} ${{STY#*.}} 0 >{said}')
        subprocess.run(['screen', '-S', socket.name, '-X', 'screen', 'sh', str(script)], check=True)
        wait_until(lambda: said.exists() and 'itself' in said.read_text(), 'a refusal')

    def test_a_server_that_gives_no_terminals(self, fresh_bed: Callable[..., Testbed], tmp_path: Path) -> None:
        bed = fresh_bed(1)
        bed['h1'].stop_sshd()
        bed['h1'].start_sshd({'PermitTTY': 'no'})
        seat = Seat(tmp_path, ['-F', str(bed.ssh_config), 'h1', 'command', 'true'])
        try:
            assert re.search(r'ERROR: h1: the server gives no terminal.*PermitTTY', seat.given_back(3))
        finally:
            seat.terminal.close()


class TestBytes:
    """A terminal of which we see the bytes."""

    @pytest.fixture(params=['h1', 'localhost'])
    def start(self, request: pytest.FixtureRequest, bed: Testbed) -> Iterator[Callable[[str], pexpect.spawn]]:
        started = []

        def start(command: str) -> pexpect.spawn:
            arguments = ['-m', 'tests.attach_driver', '-F', str(bed.ssh_config), request.param, 'command', command]
            driver = pexpect.spawn(sys.executable, arguments, cwd=str(ROOT), timeout=PATIENCE, maxread=1 << 16)
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
        driver = start('ps -o tty= -o tpgid= -o sid= -p $$; tty; echo $TERM ${SSH_AUTH_SOCK-none}; exec cat >/dev/tty')
        match = driver.expect(rb'(pts/\d+) +(\d+) +(\d+)\r\n/dev/(pts/\d+)\r\n')
        assert match == 0
        assert driver.match[1] == driver.match[4]
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
