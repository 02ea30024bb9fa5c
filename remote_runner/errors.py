"""Every failure that a user can meet, as one tree of exceptions.

Each carries what happened, where (host, component) and what to do about it. `exit_status` is what the command ends
with: 1 something that ran failed, 2 wrong usage or config, 3 a host could not be reached, trusted or authenticated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class RemoteRunnerError(Exception):
    """Base of all errors. `str(error)` is one clear message: where, what happened, what to do.

    Args:
        what: what happened, a sentence without a full stop.
        host: the host it happened on, as the user wrote it.
        component: the component it happened to.
        remedy: what the user can do, a sentence without a full stop.
        output: what the remote side printed, shown indented below the message.
    """

    exit_status = 1

    def __init__(
        self,
        what: str,
        *,
        host: str | None = None,
        component: str | None = None,
        remedy: str | None = None,
        output: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.host = host
        self.component = component
        self.remedy = remedy
        self.output = output

    def __str__(self) -> str:
        where = '@'.join(part for part in (self.component, self.host) if part)
        text = f'{where}: {self.what}' if where else self.what
        if self.remedy:
            text += f' ({self.remedy})'
        if self.output and self.output.strip():
            text += '\n' + '\n'.join(f'    | {line}' for line in self.output.rstrip().splitlines())
        return text


class UsageError(RemoteRunnerError):
    """The command line makes no sense."""

    exit_status = 2


class ConfigError(RemoteRunnerError):
    """A config, muddler or arg parser is wrong."""

    exit_status = 2


class UserCodeError(ConfigError):
    """A user's own Python file raised an error; the message shows that file and line, never our stack."""


class ConfigFaults(ConfigError):
    """All faults that were found in a config, in one report."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        count = f'{len(self.faults)} faults' if len(self.faults) > 1 else 'a fault'
        super().__init__(f'the config has {count}; no host was touched:\n' + '\n'.join(f'  - {f}' for f in self.faults))


class SourcesFailed(RemoteRunnerError):
    """What is to be copied is not there, or cannot be read; all faults in one report."""

    exit_status = 2

    #: Faults that are named.
    MOST = 100

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        what = 'this cannot be copied' if len(self.faults) > 1 else 'it cannot be copied'
        named = [f'  - {fault}' for fault in self.faults[: self.MOST]]
        if len(self.faults) > self.MOST:
            named.append(f'  … and {len(self.faults) - self.MOST} more')
        super().__init__('\n'.join([f'{what}; no host was touched:', *named]))


def together(faults: Sequence[RemoteRunnerError]) -> RemoteRunnerError:
    """Several faults as one report; a single one as itself."""
    return faults[0] if len(faults) == 1 else ConfigFaults([str(fault) for fault in faults])


def of_hosts(failures: Sequence[RemoteRunnerError]) -> RemoteRunnerError:
    """The failures of several hosts as one, those that say the same in one line; a single one as itself."""
    if len(failures) == 1:
        return failures[0]
    from remote_runner.hosts.address import fold

    alike: dict[tuple[str, str | None, str | None], list[str]] = {}
    for failure in failures:
        alike.setdefault((failure.what, failure.component, failure.remedy), []).append(failure.host or '')
    lines = [
        str(RemoteRunnerError(what, host=fold(sorted(hosts)), component=component, remedy=remedy))
        for (what, component, remedy), hosts in alike.items()
    ]
    kinds = {type(failure) for failure in failures}
    error = (kinds.pop() if len(kinds) == 1 else RemoteRunnerError)('\n'.join(lines))
    error.exit_status = max(failure.exit_status for failure in failures)
    return error


class HostError(RemoteRunnerError):
    """A host could not be reached, trusted or authenticated, or has not what is needed."""

    exit_status = 3


class AddressError(HostError):
    """A host is written in a form that cannot be understood."""

    exit_status = 2


class HostUnreachable(HostError):
    """No connection in time: refused, no route, name unknown, no SSH banner."""


class HostKeyUnknown(HostError):
    """The host's key is in no known_hosts file."""


class HostKeyChanged(HostError):
    """The host shows another key than the known one. Always refused."""


class AuthenticationFailed(HostError):
    """No method of authentication was accepted. The message lists the keys and methods tried."""


class BootstrapFailed(HostError):
    """The agent could not be started on the host: no marker, no python3, no screen."""


class PythonMissing(BootstrapFailed):
    """There is no python3 on the host."""


class ConnectionLost(HostError):
    """An established connection broke, or stayed silent for too long."""


class HostSilent(HostError):
    """The agent of a host did not answer in time, over a connection that stands."""


class NoHostFits(RemoteRunnerError):
    """None of the hosts of a cluster will do for what is wanted; the reason of each is named.

    Args:
        reasons: why, by the names of the hosts that were meant; of all, where none was.
        others: how many hosts were not meant.
        out_of_reach: whether none of those that were meant can be reached.
    """

    def __init__(self, reasons: Mapping[str, str], others: int = 0, *, out_of_reach: bool = False) -> None:
        from remote_runner.hosts.address import fold

        self.reasons = dict(reasons)
        self.exit_status = 3 if out_of_reach else 1
        groups: dict[str, list[str]] = {}
        for name, reason in self.reasons.items():
            groups.setdefault(reason, []).append(name)
        lines = [f'  - {fold(names)}: {reason}' for reason, names in groups.items()]
        if others:
            lines.append(f'  - {others} other{"s" if others > 1 else ""}: not among those that are wanted')
        super().__init__('\n'.join(['no host will do:', *lines]) if lines else 'no host will do: there are none')


class NoDaemon(RemoteRunnerError):
    """No daemon of this user keeps the loads of hosts on this machine, or not at the socket that was named."""


class DaemonRuns(RemoteRunnerError):
    """A daemon of this user runs already, and there is one at a time."""


class HostsFailed(HostError):
    """Several hosts failed; one line each."""

    def __init__(self, failures: Sequence[RemoteRunnerError], advice: str) -> None:
        self.failures = tuple(failures)
        lines = '\n'.join(str(failure) for failure in self.failures)
        super().__init__(f'{lines}\n{advice}')
        self.advice = advice


class RequestFailed(RemoteRunnerError):
    """The agent could not do what it was asked to do; `errno_name` is set when the system said why."""

    def __init__(self, what: str, *, host: str | None = None, errno_name: str = '', kind: str = '') -> None:
        super().__init__(what, host=host)
        self.errno_name = errno_name
        self.kind = kind


class TransferFailed(RemoteRunnerError):
    """A file could not be brought over; the file that was there before is untouched."""


class DeletionFailed(RemoteRunnerError):
    """Something that is gone here could not be deleted on a host, one line each; all else was, and all files are there.

    Args:
        failures: (path there, reason) of each.
    """

    #: Failures that are named.
    MOST = 20

    def __init__(self, failures: Sequence[tuple[str, str]], *, host: str) -> None:
        self.failures = tuple(failures)
        named = [f'cannot delete {path}: {reason}' for path, reason in self.failures[: self.MOST]]
        if len(self.failures) > self.MOST:
            named.append(f'… and {len(self.failures) - self.MOST} more')
        super().__init__(f'\n{host}: '.join(named), host=host)


class DeletionIncomplete(RemoteRunnerError):
    """Something that is gone here could not be deleted on several hosts; all else was, and all files are there."""

    def __init__(self, failures: Sequence[DeletionFailed]) -> None:
        self.failures = tuple(failures)
        super().__init__('\n'.join(str(failure) for failure in self.failures))


class FetchFailed(RemoteRunnerError):
    """A file could not be brought home from a host; the local file that was there before is untouched.

    Args:
        path: the path on the host; '' where none of its files can be had.
        exit_status: 3 where the host is out of reach.
    """

    def __init__(self, what: str, *, host: str, path: str = '', exit_status: int = 1) -> None:
        super().__init__(f'{path}: {what}' if path else what, host=host)
        self.path = path
        self.exit_status = exit_status

    @classmethod
    def of(cls, error: RemoteRunnerError, host: str) -> FetchFailed:
        """None of the files of a host, or not all, can be had because of this."""
        return error if isinstance(error, cls) else cls(error.what, host=host, exit_status=error.exit_status)


class FetchIncomplete(RemoteRunnerError):
    """Some files could not be brought home, one line each; all others were."""

    #: Failures of a host that are named.
    MOST = 20

    def __init__(self, failures: Sequence[FetchFailed]) -> None:
        self.failures = tuple(failures)
        self.exit_status = max(failure.exit_status for failure in self.failures)
        of_hosts: dict[str | None, list[str]] = {}
        for failure in self.failures:
            of_hosts.setdefault(failure.host, []).append(str(failure))
        named: list[str] = []
        for host, lines in of_hosts.items():
            named += lines[: self.MOST]
            if len(lines) > self.MOST:
                named.append(f'{host}: … and {len(lines) - self.MOST} more')
        super().__init__('\n'.join(named))


class SessionHeld(RemoteRunnerError):
    """Another run is at work on the same screen session."""


class SessionFailed(RemoteRunnerError):
    """The screen session could not be quit or started."""


class CleaningFailed(RemoteRunnerError):
    """What was left on a host could not be found out, or could not be removed."""


class StartFailed(RemoteRunnerError):
    """One or more components did not start."""


class ComponentFailed(RemoteRunnerError):
    """A component that was waited for ended without success."""


class CollectingFailed(RemoteRunnerError):
    """The results of a sweep could not be collected; they are in its journal."""


class TimeIsUp(RemoteRunnerError):
    """What was waited for has not come within the time that was given for it."""

    exit_status = 124  # as timeout(1)


class JobHeld(RemoteRunnerError):
    """Another master is at work on the same job."""


class JournalFailed(RemoteRunnerError):
    """The journal of a job cannot be read or written: the disk is full, it is damaged, or it is none of ours."""


class JournalDamaged(JournalFailed):
    """What stands in the place of a job's journal is none: the file system has lost it, or something else wrote it."""


class SweepFailed(RemoteRunnerError):
    """Tasks of a sweep have failed for good, or it was cancelled."""


class OutputClosed(RemoteRunnerError):
    """Whoever read the results on stdout has closed it: nobody wants the rest."""

    exit_status = 141  # as of a program that SIGPIPE ended


class OutputFailed(RemoteRunnerError):
    """Results, or the joblog, cannot be written, or not be read back to be written."""


class ResultTooLarge(RemoteRunnerError):
    """A result does not fit into the format in which it should be delivered; nothing of it is."""


class JobNotRunning(RemoteRunnerError):
    """Nobody works on a job that was to be told something, or not on this machine."""


class ControlFailed(RemoteRunnerError):
    """The master of a job did not answer, or did not do what it was asked to do."""
