"""What a sweep may say: one table from which names, defaults, docs, conversion and faults come, as `attributes.py`."""

from __future__ import annotations

from collections.abc import Mapping

from remote_runner.config.attributes import Attribute
from remote_runner.config.parameters import Parameters, read_parameters
from remote_runner.config.reading import keep_args, read_files, read_flag, read_load, read_seconds
from remote_runner.config.sweep_reading import (
    KEEPS,
    ON_LOST,
    one_of,
    read_collect,
    read_command,
    read_executables,
    read_halt,
    read_host_texts,
    read_inputs,
    read_lease,
    read_number,
    read_results,
    read_retry_on,
    read_task_limit,
    read_task_name,
    read_validate,
)


def _keep_parameters(value: object) -> object:
    return value if isinstance(value, Parameters) else keep_args(value)


SWEEP_ATTRIBUTES: Mapping[str, Attribute] = {
    attribute.name: attribute
    for attribute in (
        Attribute(
            'name',
            'What the sweep is called; no other one of the config has that name.',
            read_task_name,
            required=True,
        ),
        Attribute(
            'hosts',
            'Where its tasks run: a list, each `[slots/][user@]name[:port]`, folded (`4/node[1-8]`) or `@FILE` '
            '(relative to the config), or one such text. So many tasks run on a host at once; as many as it has '
            'cores, where that is not said.',
            read_host_texts,
            required=True,
            keep=keep_args,
        ),
        Attribute(
            'parameters',
            'The parameter sets, one a task: `util.parameters(FILE)`, `util.product(...)`, `util.zip(...)`, what `*` '
            'and `+` make of them, or a list of dicts with the same names.',
            read_parameters,
            required=True,
            keep=_keep_parameters,
        ),
        Attribute(
            'command',
            'What a task runs. Text is for `sh`: `{rate}` is the value of a parameter, quoted; `{rate:raw}` is it as '
            'it stands; `{{` and `}}` are braces. In a list each word is one argument, whatever is in it.',
            read_command,
            required=True,
            keep=keep_args,
        ),
        Attribute(
            'inputs',
            'Files that are made for each task: a dict of path in its working folder to content, text or bytes, with '
            '`{rate}` as in `command`, never quoted. `stdin` is what the command reads.',
            read_inputs,
            default=dict,
        ),
        Attribute(
            'results',
            'What is wanted of a task: a dict of name to `stdout`, `stderr` or a path in its working folder. Empty: '
            '`{\'stdout\': \'stdout\'}`.',
            read_results,
            default=dict,
        ),
        Attribute(
            'files',
            'What to bring to each host: a dict of local path (relative to the config) to remote path. Relative ones '
            'are found in the working folder of every task. As for a component, see there.',
            read_files,
            default=dict,
        ),
        Attribute(
            'executables',
            'A program that is another one for each platform: a dict of platform, as `linux-x86_64` (what `uname '
            '-sm` says), to local path. In the working folder it is called as the first of them is here.',
            read_executables,
            default=dict,
        ),
        Attribute(
            'keep_files',
            'Whether what `files` and `executables` bring for working folders stays on the hosts, for the next time. '
            'False: it is removed at the end. What is brought to absolute paths stays.',
            read_flag,
            default=lambda: True,
        ),
        Attribute(
            'timeout',
            'Seconds that a task may take, or a percentage of the median of those that succeeded, as `\'300%\'`. '
            'None: any time.',
            read_task_limit,
        ),
        Attribute(
            'retries',
            'How often a task is tried again for each cause of failure. One that was lost with its host is tried '
            'again in any case.',
            read_number,
            default=lambda: 2,
        ),
        Attribute(
            'retry_on',
            'The causes for which it is tried again: a list of `exit`, `exit:N` (that exit status), `timeout`, '
            '`rejected` (by `validate`) and `resources` (it could not be started), or one text with commas. None: '
            'all of them.',
            read_retry_on,
            keep=keep_args,
        ),
        Attribute(
            'halt',
            'When to give up: `\'soon,fail=3\'`, when three tasks have failed, begin no more; `\'now,fail=1\'`: end '
            'what runs, too; `\'soon,fail=10%\'`: when that share of all have. None: never.',
            read_halt,
        ),
        Attribute(
            'duplicates',
            'True: near the end idle slots run second copies of the tasks that take longest; the first to end counts.',
            read_flag,
            default=lambda: False,
        ),
        Attribute(
            'delay',
            'Seconds between two starts at least.',
            read_seconds,
            default=lambda: 0,
        ),
        Attribute(
            'load',
            'The load per core (average of the last minute, of all that runs there) above which a host gets no new '
            'task. None: any.',
            read_load,
        ),
        Attribute(
            'keep',
            'Which working folders are kept on the hosts: `\'all\'`, those of `\'failed\'` attempts, or `\'none\'`.',
            one_of(KEEPS),
            default=lambda: 'failed',
        ),
        Attribute(
            'lease',
            'Seconds that a host goes on without hearing from this machine.',
            read_lease,
            default=lambda: 60,
        ),
        Attribute(
            'on_lost',
            'What a host does when they are over: `\'kill\'` ends its tasks, `\'finish\'` lets them end and keeps '
            'what they bring.',
            one_of(ON_LOST),
            default=lambda: 'kill',
        ),
        Attribute(
            'validate',
            'A function of parameters (a dict) and results (a dict of name to bytes): whether these are accepted. '
            'What is not is tried again. None: all are.',
            read_validate,
        ),
        Attribute(
            'collect',
            'Where accepted results go: `collect.csv(FILE)`, `collect.concat(FILE)`, `collect.blocks(FILE)`, or a '
            'function that is called with the parameters and results of each task, in the order of the parameter '
            'sets. None: they stay in the journal.',
            read_collect,
        ),
    )
}
