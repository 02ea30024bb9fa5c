"""Before components run as other users of their hosts: may they, and is there a password that sudo takes?

Every host is asked before anything is changed on any. Where sudo wants a password it is the same for all hosts, asked
for once, and tried once on each: more wrong ones could lock an account.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from remote_runner.errors import RemoteRunnerError, RequestFailed
from remote_runner.hosts.address import fold
from remote_runner.hosts.call import Header
from remote_runner.hosts.credentials import SUDO_PASSWORD_FILE_VARIABLE, Credentials
from remote_runner.hosts.host import Host
from remote_runner.hosts.pool import Pool

#: Seconds that a host has for one user, see `agent/become.py`.
TIMEOUT = 100.0
_HINT = f'at a terminal it is asked for, or the file that {SUDO_PASSWORD_FILE_VARIABLE} names holds it'


class Sudo:
    """Who may become whom on the hosts of a command.

    Args:
        credentials: where the password comes from; None: there is none.
        secret: called with the password before it is used: nobody shall read it.
    """

    def __init__(self, credentials: Credentials | None, secret: Callable[[str], None]) -> None:
        self._credentials = credentials
        self._secret = secret
        self._password: str | None = None
        #: The users of hosts where sudo has taken the password.
        self._proven: dict[str, Sequence[str]] = {}

    def check(self, pool: Pool, users: Mapping[str, Iterable[str]]) -> dict[tuple[str, str], str]:
        """Why components cannot run as these users (by the name of their host), by host and user.

        Raises:
            RemoteRunnerError: a host cannot say.
        """
        wanted = {host: sorted(set(names)) for host, names in users.items() if any(names)}
        answers = self._ask(pool, wanted, None)
        reasons = {host: answer['reasons'] for host, answer in answers.items()}
        asking = {host: answer['asks'] for host, answer in answers.items() if answer['asks']}
        open_ones = {(host, name): reasons[host].pop(name) for host, names in asking.items() for name in names}
        if asking and not any(why for own in reasons.values() for why in own.values()):
            password = self._get_password(sorted(asking))
            if password is None:
                return {key: f'{why}; {_HINT}' for key, why in open_ones.items()}
            self._secret(password)
            self._password = password
            for host, answer in self._ask(pool, asking, password).items():
                reasons[host].update(answer['reasons'])
                if not any(answer['reasons'].values()):
                    self._proven[host] = asking[host]
        return {(host, name): why for host, own in reasons.items() for name, why in own.items() if why}

    def renew(self, host: Host) -> None:
        """Tell the agent of a host that is connected again what the one before it knew."""
        if host.name in self._proven:
            host.request('sudo', timeout=TIMEOUT, users=self._proven[host.name], password=self._password)

    def _get_password(self, hosts: Sequence[str]) -> str | None:
        return None if self._credentials is None else self._credentials.ask(f'sudo password for {fold(hosts)}: ')

    def _ask(self, pool: Pool, users: Mapping[str, Sequence[str]], password: str | None) -> dict[str, Header]:
        def work(host: Host) -> Header | None:
            if host.name not in users:
                return None
            names = list(users[host.name])
            fields = {} if password is None else {'password': password}
            try:
                answer: Header = host.request('sudo', timeout=TIMEOUT * len(names), users=names, **fields)
            except RequestFailed as error:
                raise RemoteRunnerError(f'whether sudo works is not known: {error.what}', host=host.name) from error
            return answer

        answers: dict[str, Header] = {}
        for host, outcome in pool.each(work):
            if isinstance(outcome, RemoteRunnerError):
                raise outcome
            if outcome is not None:
                answers[host.name] = outcome
        return answers
