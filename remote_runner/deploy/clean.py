"""What runs left on hosts and nobody needs any more: it is looked for, shown, and then removed.

    with Cleaner(connector, fanout, keep=1) as cleaner:
        for outcome in cleaner.look(addresses): ...
        for outcome in cleaner.remove(): ...

Which of it may go is for the hosts to know (`agent/rubbish.py`), and they look again before they remove it. Here stands
what no host knows alone: which versions of the agent the other hosts use that share its home.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from remote_runner.defaults import FANOUT
from remote_runner.deploy.holder import whoami
from remote_runner.errors import CleaningFailed, RemoteRunnerError, RequestFailed
from remote_runner.hosts.address import Address, fold
from remote_runner.hosts.call import Header
from remote_runner.hosts.host import Host
from remote_runner.hosts.pool import Opens, Pool, distinct

#: Seconds that a host has to look at all that was left there, and to measure it.
LOOK_TIMEOUT = 300.0
#: Seconds that a host has to remove it.
REMOVE_TIMEOUT = 3600.0


@dataclass(frozen=True)
class Item:
    """One thing on a host that nobody needs.

    Args:
        kind: `base_dir`, `run`, `session` (one without runs), `agent`, `copy` (one that never became whole), `socket`,
            `link`, `lock`, `program` (whose launcher was killed), `job`, or `dependencies`.
        path: where it stands; of a program the folder of its component.
        inode: by which it is known again.
        session: to which it belongs; '' where that is not known.
        version: of an agent that other hosts may use.
        count: processes of a program; 1 of all else.
        size: bytes that it takes on its disk.
        age: seconds since it was changed last.
        outcome: '' not removed yet; `removed`, `kept` or `failed`.
        why: it was kept, or could not be removed.
    """

    kind: str
    path: str
    inode: int
    session: str = ''
    version: str = ''
    count: int = 1
    size: int = 0
    age: float = 0.0
    outcome: str = ''
    why: str = ''

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what is not known is not there."""
        values = {name: value for name, value in vars(self).items() if name not in ('inode', 'version')}
        return {name: value for name, value in values.items() if value != ''}


@dataclass(frozen=True)
class Rubbish:
    """What there is on one host.

    Args:
        host: as the user wrote it.
        items: what may go, or (after `remove`) what became of it.
        kept: what stays although it looks like it: sessions by name, and why.
        notes: what else is to be known.
    """

    host: str
    items: tuple[Item, ...]
    kept: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        items = [item.to_dict() for item in self.items]
        return {'host': self.host, 'items': items, 'kept': dict(self.kept), 'notes': list(self.notes)}


class Cleaner:
    """Connections to hosts that are looked at and then cleaned; a context manager that closes them.

    Args:
        connector: makes the connections.
        fanout: hosts that are worked on at the same time.
        keep: how many of the newest runs of each session stay.
    """

    def __init__(self, connector: Opens, fanout: int = FANOUT, *, keep: int = 1) -> None:
        self._connector = connector
        self._fanout = fanout
        self._keep = keep
        self._pool = Pool(connector, fanout=fanout)
        self._found: dict[str, Rubbish] = {}

    def __enter__(self) -> Cleaner:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def look(self, addresses: Iterable[Address]) -> Iterator[Rubbish | RemoteRunnerError]:
        """Connect, and look what there is: one outcome a host, in the order of `addresses`.

        Two names of one machine and user are one host.
        """
        names = distinct(addresses, self._connector, self._fanout)
        outcomes: dict[str, Rubbish | RemoteRunnerError] = {**self._pool.connect_machines(names)}
        answers = self._ask(outcomes)
        here = {host.facts.hostname for host in self._pool.hosts.values()}
        used = {version for answer in answers.values() for version in answer['versions']}
        for name, answer in answers.items():
            outcomes[name] = self._found[name] = _rubbish(name, answer, used, here)
        yield from (outcomes[address.where] for address in names if address.where in outcomes)

    def _ask(self, failures: dict[str, Any]) -> dict[str, Header]:
        answers: dict[str, Header] = {}
        for host, answer in self._pool.each(
            lambda host: _request(host, 'rubbish', LOOK_TIMEOUT, keep=self._keep)
        ):
            if isinstance(answer, RemoteRunnerError):
                failures[host.name] = answer
            else:
                answers[host.name] = answer
        return answers

    def remove(self) -> Iterator[Rubbish | RemoteRunnerError]:
        """Remove what was found, as far as it is rubbish still: one outcome for each host that has any."""
        used: set[str] = set()
        failures: dict[str, RemoteRunnerError] = {}
        if any(item.version for found in self._found.values() for item in found.items):
            used = {version for answer in self._ask(failures).values() for version in answer['versions']}
        me = f'{whoami()}, who cleans up'
        wanted = {name: found for name, found in self._found.items() if found.items}

        def work(host: Host) -> Rubbish | None:
            if host.name not in wanted:
                return None
            if host.name in failures:
                raise failures[host.name]
            return self._remove_on(host, wanted[host.name], used, me)

        done = {host.name: outcome for host, outcome in self._pool.each(work)}
        for name in wanted:
            outcome = done[name]
            if outcome is not None:
                yield outcome

    def _remove_on(self, host: Host, found: Rubbish, used: set[str], me: str) -> Rubbish:
        going = [item for item in found.items if item.version not in used or not item.version]
        asked = [[item.kind, item.path, item.inode] for item in going]
        answer = _request(host, 'clean', REMOVE_TIMEOUT, items=asked, keep=self._keep, holder=me)
        results = {id(item): result for item, result in zip(going, answer['results'], strict=True)}
        items = []
        for item in found.items:
            outcome, why = results.get(id(item), ('kept', 'another host uses it now'))
            items.append(replace(item, outcome=outcome, why=why))
        return replace(found, items=tuple(items))


def _request(host: Host, op: str, timeout: float, **fields: Any) -> Header:
    try:
        answer: Header = host.request(op, timeout, **fields)
    except RequestFailed as error:
        raise CleaningFailed(error.what, host=host.name) from error
    return answer


def _rubbish(name: str, answer: Header, used: set[str], here: set[str]) -> Rubbish:
    """What a host found, without the agents that other hosts use, or may use, that share its home.

    Args:
        used: the versions of the agent in use on all hosts.
        here: the names that the hosts have themselves.
    """
    absent = sorted(set(answer['hosts']) - here)
    items = []
    agents_left = 0
    for fact in answer['items']:
        version = fact['version']
        if version and (absent or version in used):
            agents_left += 1
            continue
        changed = fact.pop('changed')
        items.append(Item(**fact, age=max(0.0, answer['now'] - changed)))
    notes = []
    if absent and agents_left:
        notes.append(
            f'{agents_left} cached agents stay: {fold(absent)} may use them, too, and have the same home; '
            'clean all of them in one command'
        )
    if answer['unknown']:
        notes.append('all cached agents stay: one is connected that does not tell which of them it is')
    return Rubbish(name, tuple(items), {kept['session']: kept['why'] for kept in answer['kept']}, tuple(notes))
