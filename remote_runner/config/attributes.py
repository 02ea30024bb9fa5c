"""What a component may say: one table from which names, defaults, docs, conversion and faults come.

To give components another attribute, add a row to `ATTRIBUTES`. Everything else (the check of unknown names, what is
missing, the docs, the report of faults) reads that table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from remote_runner.config.reading import (
    keep_args,
    read_anything,
    read_args,
    read_base_dir,
    read_count,
    read_env,
    read_env_file,
    read_fetch,
    read_files,
    read_flag,
    read_index,
    read_load,
    read_log_limit,
    read_name,
    read_names,
    read_place,
    read_ready,
    read_remote_path,
    read_restart,
    read_seconds,
    read_signal,
    read_time_limit,
    read_user,
)


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a component.

    Args:
        name: what users write after `component.`.
        meaning: for the docs, with units.
        read: makes of what the user wrote what the plan holds; raises `BadValueError`.
        default: makes the value of a fresh component.
        required: whether a component without it cannot run.
        keep: makes of what the user assigned what the component stores (no check happens there).
    """

    name: str
    meaning: str
    read: Callable[[Any], Any]
    default: Callable[[], Any] = lambda: None
    required: bool = False
    keep: Callable[[Any], Any] = lambda value: value


ATTRIBUTES: Mapping[str, Attribute] = {
    attribute.name: attribute
    for attribute in (
        Attribute(
            'name',
            'What the component is called: the title of its screen window, and with its host what identifies it. The '
            'pair (name, host) is unique, the name alone need not be.',
            read_name,
            required=True,
        ),
        Attribute(
            'host',
            'Where it runs, `[user@]name[:port]`. `localhost` is this machine, reached without SSH. '
            '`util.least_loaded(...)`: the one of several that has the least load when the run is carried out.',
            read_place,
            required=True,
        ),
        Attribute(
            'base_dir',
            'Its working directory on that host, to which relative remote paths are relative. None: a fresh temporary '
            'directory. `~` works; a relative one is relative to the home directory (on localhost: to the config).',
            read_base_dir,
        ),
        Attribute(
            'executable',
            'The program. A relative path is relative to `base_dir` (on localhost: to the config file). It is sent '
            'only if it stands in `files`.',
            read_remote_path,
            required=True,
        ),
        Attribute(
            'args',
            'The arguments, any iterable but a string; they reach the program as exactly that list. Numbers and paths '
            'become text; bytes are passed on as they are.',
            read_args,
            default=list,
            keep=keep_args,
        ),
        Attribute(
            'files',
            'What to bring to the host: a dict of local path (relative to the config file) to remote path (relative '
            'to `base_dir`). A local directory creates that directory, without what is in it; see '
            '`util.recursive_files_dict`. A symbolic link stands for what it leads to, unless that helper keeps it.',
            read_files,
            default=dict,
        ),
        Attribute(
            'fetch',
            'What to bring home from the host: a dict of remote path (relative to `base_dir`; a file, a folder with '
            'all in it, or a glob) to local folder, relative to the results folder of the component. None: that '
            'folder itself.',
            read_fetch,
            default=dict,
        ),
        Attribute(
            'start_index',
            'A whole number. Components start by it, those of one index in parallel, the next index only when all of '
            'them have started.',
            read_index,
            default=lambda: 0,
        ),
        Attribute(
            'wait',
            'True: the command returns only when this component has ended, non-zero if it failed.',
            read_flag,
            default=lambda: False,
        ),
        Attribute(
            'num_cores',
            'How many cores it needs. Information for muddlers; remote_runner does not use it.',
            read_anything,
        ),
        Attribute(
            'ready',
            'How to tell that it is ready, one of `ready.notify()`, `ready.tcp(port)`, `ready.http(url)`, '
            '`ready.log(regex)`, `ready.command(argv)`, `ready.file(path)`; components of the next index start when '
            'all of this one are. None: it is ready when it has started.',
            read_ready,
        ),
        Attribute(
            'start_timeout',
            'Seconds within which it must have started, and be ready. None: what `--start-timeout` says.',
            read_time_limit,
        ),
        Attribute(
            'start_grace',
            'Seconds that it must live to count as started; ending with success counts as well.',
            read_seconds,
            default=lambda: 0.1,
        ),
        Attribute(
            'stop_signal',
            'The signal that asks it to end when it is stopped, as `\'INT\'`; all its processes get it.',
            read_signal,
            default=lambda: 'TERM',
        ),
        Attribute(
            'stop_timeout',
            'Seconds between `stop_signal` and SIGKILL when it is stopped.',
            read_seconds,
            default=lambda: 5,
        ),
        Attribute(
            'depends_on',
            'Components, as `name` or `name@host`, that must have started, and be ready, before this one starts; '
            'they have the same `start_index` or a lower one.',
            read_names,
            default=list,
            keep=keep_args,
        ),
        Attribute(
            'env',
            'Variables of its environment, a dict; they add to those of the login and win over them.',
            read_env,
            default=dict,
        ),
        Attribute(
            'env_file',
            'A local file (relative to the config file) with a variable a line, `NAME=value`, for what nobody else '
            'shall read: its values are masked in plan, events and record. `env` wins over it.',
            read_env_file,
        ),
        Attribute(
            'user',
            'Another user of its host, as whom it runs, by sudo. A password is asked for once for all hosts, if sudo '
            'wants one. None: it runs as who logs in.',
            read_user,
        ),
        Attribute(
            'restart',
            "When it is started again after its end: `'no'`, `'on-failure'` (exit status above 0, a signal, the "
            "watchdog) or `'always'`. The first pause is half a second; it doubles up to 30 seconds, until it has run "
            'for a minute. A program that fails before it has started once is not started again.',
            read_restart,
            default=lambda: 'no',
        ),
        Attribute(
            'max_restarts',
            'How often in a row it is started again at most. None: there is no limit.',
            read_count,
        ),
        Attribute(
            'watchdog',
            'Seconds within which it must give a sign of life again and again, once it is ready: `WATCHDOG=1` of '
            'sd_notify(3). Without one it is ended, and has failed. None: there is no watchdog.',
            read_time_limit,
        ),
        Attribute(
            'critical',
            'True: when it has failed, all components are stopped. For that the command stays until those with `wait` '
            'have ended, or, where there are none, the critical ones.',
            read_flag,
            default=lambda: False,
        ),
        Attribute(
            'max_load',
            'The load per core (average of the last minute) above which its host refuses to start it. None: any.',
            read_load,
        ),
        Attribute(
            'log_limit',
            'Bytes that `output.log` and the one before it may have together, also as `\'500M\'`; 0: no limit. The '
            'oldest output goes first.',
            read_log_limit,
            default=lambda: '100M',
        ),
    )
}
