"""Events as plain lines, one a fact: what a log file, a pipe or a script sees of a run."""

from __future__ import annotations

import logging
import signal

from remote_runner import events as e
from remote_runner.ui.copied import sent_facts
from remote_runner.ui.text import count, harmless, seconds, size


def line_of(event: e.Event) -> tuple[int, str] | None:
    """The level (of the logging package) and text of what happened; None where an event is no fact of its own."""
    match event:
        case e.HostFailed(host=host, error=error):
            return logging.ERROR, harmless(_at(host, error), keep='\n')
        case e.HostLost(host=host, error=error):
            return logging.WARNING, harmless(_at(host, error), keep='\n')
        case e.ComponentFailed(reason=reason):
            return logging.ERROR, harmless(_where(event) + reason)
        case e.ComponentUnknown(reason=reason):
            return logging.ERROR, harmless(f'{_where(event)}nobody knows whether it runs: {reason}')
        case e.ComponentRestarting(status=status, reason=reason):
            why = reason or f'exited with {status_of(status)}'
            again = f'starts again in {event.pause:g} s (restart {event.restarts})'
            return logging.WARNING, harmless(f'{_where(event)}{why}; {again}')
        case e.ComponentTroubled(reason=reason):
            return logging.WARNING, harmless(_where(event) + reason)
        case e.ComponentExited(status=status):
            level = logging.WARNING if status else logging.INFO
            return level, harmless(f'{_where(event)}exited with {status_of(status)}')
        case e.FilesSent(files=0, links=0) | e.SessionQuit(sessions=0) | e.FilesDeleted(deleted=0, failed=0):
            return None
        case e.FilesDeleted(failed=failed):
            return logging.WARNING if failed else logging.INFO, harmless(_where(event) + _files_deleted(event))
    said = _said(event)
    quiet = isinstance(event, e.HostConnecting | e.HostReleased | e.FilesCompared | e.ComponentStarting)
    return (logging.DEBUG if quiet else logging.INFO, harmless(_where(event) + said)) if said else None


def status_of(status: int) -> str:
    """How a program ended, for people: `status 3`, `status 137 (SIGKILL)`."""
    if status > 128:
        try:
            return f'status {status} ({signal.Signals(status - 128).name})'
        except ValueError:
            pass
    return f'status {status}'


def _at(host: str | None, error: str) -> str:
    """An error of a host; most say themselves which host."""
    where = f'{host}: '
    return error if error.startswith(where) else where + error


def _where(event: e.Event) -> str:
    where = '@'.join(part for part in (event.component, event.host) if part)
    return f'{where}: ' if where else ''


def _said(event: e.Event) -> str:
    match event:
        case e.RunStarted(components=components):
            number = sum(len(labels) for labels in components.values())
            what = f'{count(number, "component")} on {count(len(event.hosts), "host")}'
            if event.undecided:
                others = f'{count(len(event.undecided), "component")} where the load is least'
                what = f'{what}, {others}' if number else others
            return f'run {event.run} of session {event.session}: {what}'
        case e.HostConnecting():
            return 'connecting'
        case e.HostConnected():
            return f'connected in {seconds(event.seconds)}'
        case e.HostMerged():
            return f'is the same machine and user as {event.same_as}'
        case e.HostReleased():
            return 'no component runs there'
        case e.ComponentPlaced():
            why = 'stays there' if event.kept else 'is to run there'
            moved = f', not where it was: {event.why}' if event.why else ''
            return f'{why}, load {event.load:.2f} a core{moved}'
        case e.SessionQuit():
            what = f'{count(event.sessions, "session")} with {count(event.processes, "process")}'
            return f'session {event.session} of an earlier run quit: {what}'
        case e.FilesCompared():
            return f'{event.to_send} of {count(event.files, "file")} to send ({size(event.bytes)})'
        case e.FilesSent():
            return f'{sent_facts(event)} in {seconds(event.seconds)}'
        case e.ResultsFetched():
            here = f', {event.unchanged} here already' if event.unchanged else ''
            return f'{count(event.files, "file")} fetched ({size(event.bytes)}) in {seconds(event.seconds)}{here}'
        case e.ComponentStarting():
            return 'starting'
        case e.ComponentStarted():
            return f'started (pid {event.pid}, window {event.window}) in {seconds(event.seconds)}'
        case e.ComponentKept():
            return f'unchanged, runs on (pid {event.pid}, window {event.window})'
        case e.ComponentReady():
            return f'ready in {seconds(event.seconds)}'
        case e.ComponentSaid():
            return f'says: {event.text}'
        case e.ComponentStopped():
            return 'stopped'
        case e.ComponentAborted():
            return f'start aborted: {event.reason}'
        case e.CopyEnded():
            return f'copy ended with exit status {event.exit_status} after {seconds(event.seconds)}'
        case e.CommandEnded():
            return f'{event.command} ended with exit status {event.exit_status}'
        case e.RunEnded():
            return f'run {event.run} ended after {seconds(event.seconds)} with exit status {event.exit_status}'
    return ''


def _files_deleted(event: e.FilesDeleted) -> str:
    more = event.deleted + event.failed - len(event.paths)
    paths = ', '.join(event.paths) + (f' and {more} more' if more > 0 else '')
    failed = f', {event.failed} could not be' if event.failed else ''
    return f'{count(event.deleted, "path")} deleted{failed}: {paths}'
