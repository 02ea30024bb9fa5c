"""What a copy came to, for people to read: a line for hosts with equal outcome, and one for all together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from remote_runner import events as e
from remote_runner.hosts.address import fold
from remote_runner.ui.text import count, harmless, seconds, size

_Outcome = TypeVar('_Outcome', e.FilesSent, e.ResultsFetched)


class Summary:
    """Listens to the events of a copy, or of fetching, and puts them into a few lines."""

    def __init__(self) -> None:
        self._hosts: dict[str, None] = {}
        self._sent: dict[str, e.FilesSent] = {}
        self._deleted: dict[str, int] = {}
        self._failed: set[str] = set()
        self._taken = 0.0
        self._fetched: dict[str, e.ResultsFetched] = {}

    def __call__(self, event: e.Event) -> None:
        """Take note of what happened."""
        match event:
            case e.HostConnecting(host=str(host)):
                self._hosts.setdefault(host)
            case e.HostMerged(host=str(host)):
                self._hosts.pop(host, None)
            case e.FilesSent(host=str(host)):
                self._sent[host] = event
            case e.FilesDeleted(host=str(host), deleted=deleted):
                self._deleted[host] = deleted
            case e.ResultsFetched(host=str(host)):
                self._fetched[host] = event
            case e.HostFailed(host=str(host)):
                self._failed.add(host)
            case e.CopyEnded(seconds=taken):
                self._taken = taken

    def text(self) -> str:
        """The lines."""
        lines = _folded(self._ordered(self._sent), self._facts) + _folded(self._fetched, _fetched_facts)
        if len(self._sent) > 1:
            lines.append(self._total(self._taken))
        return ''.join(f'{line}\n' for line in lines)

    def _facts(self, event: e.FilesSent) -> str:
        deleted = self._deleted.get(event.host or '', 0)
        facts = [sent_facts(event), f'{count(deleted, "path")} deleted' if deleted else '']
        return ', '.join(filter(None, facts)) or 'no files'

    def _ordered(self, sent: dict[str, e.FilesSent]) -> dict[str, e.FilesSent]:
        """In the order in which the hosts were written, not in that in which they were ready."""
        return {host: sent[host] for host in {**self._hosts, **dict.fromkeys(sent)} if host in sent}

    def _total(self, taken: float) -> str:
        sent = [one for host, one in self._sent.items() if host not in self._failed]
        size_, over = sum(one.bytes for one in sent), sum(one.sent_bytes for one in sent)
        hosts = f'{len(sent)} of {count(len(self._hosts), "host")}' if len(sent) < len(self._hosts) else 'all hosts'
        files = sum(one.sent for one in sent)
        text = f'{count(files, "file")} sent{_bytes(size_, over)}' if files else 'nothing to send'
        text = f'{hosts}: {text} in {seconds(taken)}'
        return f'{text}, {size(int(over / taken))}/s' if over and taken > 0 else text


def sent_facts(event: e.FilesSent) -> str:
    """What a host was sent, what it had already, and by which rule that is known; nothing where there were no files."""
    facts = []
    if event.sent:
        facts.append(f'{count(event.sent, "file")} sent{_bytes(event.bytes, event.sent_bytes)}')
    if event.links:
        facts.append(f'{count(event.links, "link")} made')
    if event.modes:
        facts.append(f'permission bits of {count(event.modes, "file")} set')
    if event.times:
        facts.append(f'times of {count(event.times, "file")} set')
    if event.unchanged:
        facts.append(f'{count(event.unchanged, "file")} unchanged')
    compared = event.modes + event.times + event.unchanged
    if compared:
        numbers = {'read': event.hashed, 'remembered': compared - event.hashed}
        facts[-1] += f' (SHA-1: {", ".join(f"{number} {how}" for how, number in numbers.items() if number)})'
    if event.shared:
        facts.append(f'{count(event.shared, "file")} shared with {harmless(fold(event.shared_with))}')
    return ', '.join(facts)


def _folded(outcomes: Mapping[str, _Outcome], facts: Callable[[_Outcome], str]) -> list[str]:
    """A line for hosts of equal facts, with the longest time of theirs."""
    groups: dict[str, list[str]] = {}
    for host, outcome in outcomes.items():
        groups.setdefault(facts(outcome), []).append(host)
    return [
        f'{harmless(fold(hosts))}: {text} in {seconds(max(outcomes[host].seconds for host in hosts))}'
        for text, hosts in groups.items()
    ]


def _bytes(size_: int, over: int) -> str:
    return f' ({size(size_)}, {size(over)} of it over the wire)' if over < size_ else f' ({size(size_)})'


def _fetched_facts(event: e.ResultsFetched) -> str:
    text = f'{count(event.files, "file")} fetched ({size(event.bytes)})'
    return f'{text}, {event.unchanged} here already' if event.unchanged else text
