"""What the daemon knows of hosts, for those who decide themselves: it is asked once, and is told what they chose.

It only spares work: where there is none, where it is broken or of another version, nothing is known, and nobody hears
of it but the log (debug).

Light to import, as `ask.py` is.
"""

from __future__ import annotations

import glob
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from remote_runner import __version__
from remote_runner.errors import RemoteRunnerError, RequestFailed
from remote_runner.hosts.address import Address
from remote_runner.placement.ask import ask
from remote_runner.placement.choose import Known, Report, Wanted

log = logging.getLogger(__name__)

#: Seconds that the daemon has for an answer: it only tells what it knows, and one that hangs is in nobody's way.
PATIENCE = 2.0
#: Seconds after which a report is too old to be believed: more than pass until a silent host is lost (`member.py`).
STALE = 10.0


class Told(NamedTuple):
    """What the daemon has said of those hosts about which it was asked.

    Args:
        known: those that can be chosen, with the weights of who asks.
        lost: why others cannot.
        machines: what tells the machines behind names, of the former.
        names: under which name the daemon has each of these, where that is another one.
    """

    known: Mapping[str, Known] = MappingProxyType({})
    lost: Mapping[str, str] = MappingProxyType({})
    machines: Mapping[str, str] = MappingProxyType({})
    names: Mapping[str, str] = MappingProxyType({})

    def choose(self, chosen: Counter[str]) -> None:
        """Tell the daemon where so many processes are about to start: they count there as chosen from now on."""
        for name, count in chosen.items():
            wanted = Wanted(hosts=(glob.escape(self.names.get(name, name)),))
            try:
                ask('best', timeout=PATIENCE, wanted=wanted._asdict(), count=count, peek=False)
            except RequestFailed as error:
                log.debug('the daemon cannot choose %s: %s', name, error)
            except RemoteRunnerError as error:
                log.debug('the daemon is not told what was chosen: %s', error)
                return


NOTHING = Told()


def hear(addresses: Iterable[Address]) -> Told:
    """Ask the daemon about these hosts; what it does not have, or is about to connect to, is left out."""
    try:
        answer = ask('hosts', timeout=PATIENCE)
        if answer.get('version') != __version__:
            log.debug('the daemon is of another version: %s', answer.get('version'))
            return NOTHING
        return _told({host['name']: host for host in answer['hosts']}, addresses)
    except RemoteRunnerError as error:
        log.debug('no daemon tells the loads: %s', error)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        log.debug('what the daemon says makes no sense', exc_info=error)
    return NOTHING


def _told(hosts: Mapping[str, dict[str, Any]], addresses: Iterable[Address]) -> Told:
    up = {host['identity']: host for host in hosts.values() if _is_up(host)}
    known: dict[str, Known] = {}
    lost: dict[str, str] = {}
    machines: dict[str, str] = {}
    names: dict[str, str] = {}
    for address in addresses:
        host = hosts.get(address.where)
        if host is None:
            continue
        machine = host if _is_up(host) else up.get(host['identity'])  # the daemon has each under one name alone
        if machine is not None:
            known[address.where] = Known(address, Report(**machine['report']), float(machine['virtual']))
            machines[address.where] = machine['identity']
            names[address.where] = machine['name']
        elif host['state'] == 'lost':
            lost[address.where] = f'{host["error"]} (so says the daemon)'
    return Told(known, lost, machines, names)


def _is_up(host: dict[str, Any]) -> bool:
    return bool(host['state'] == 'up' and host['report'] is not None and host['age'] < STALE)
