"""Options of batch and sweep: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from remote_runner.cli.job_options import (
    POLICY,
    add_policy_options,
    add_result_options,
    format_of,
    policy_of,
    words_said,
)
from remote_runner.cli.options import Parser, joined
from remote_runner.errors import UsageError
from remote_runner.jobs.formats import Framed, JsonLines, Text
from remote_runner.jobs.policy import Cause, Halt, Policy, RetryOn


def parser(*, duplicates: bool = True) -> argparse.ArgumentParser:
    found = Parser(prog='remote_runner it')
    add_policy_options(found, duplicates=duplicates)
    add_result_options(found)
    return found


def results_parser() -> argparse.ArgumentParser:
    found = Parser(prog='remote_runner it')
    add_result_options(found)
    return found


def parsed(*words: str) -> argparse.Namespace:
    return parser().parse_args(words)


def policy(*words: str, base: Policy | None = None) -> Policy:
    return policy_of(parsed(*words), base)


def test_without_options_it_is_as_it_was() -> None:
    base = Policy(retries=7, timeout=5.0, duplicates=True, halt=Halt(3), delay=1.0)
    assert policy() == Policy()
    assert policy(base=base) == base


@pytest.mark.parametrize(
    ('words', 'changes'),
    [
        (['--retries', '0'], {'retries': 0}),
        (['--retry-on', 'exit'], {'retry_on': (RetryOn(Cause.EXIT),)}),
        (
            ['--retry-on', 'exit:75,timeout, rejected,resources'],
            {
                'retry_on': (
                    RetryOn(Cause.EXIT, 75),
                    RetryOn(Cause.TIMEOUT),
                    RetryOn(Cause.REJECTED),
                    RetryOn(Cause.RESOURCES),
                )
            },
        ),
        (['--halt', 'soon,fail=1'], {'halt': Halt(1)}),
        (['--halt', 'now,fail=20'], {'halt': Halt(20, now=True)}),
        (['--halt', 'now,fail=12.5%'], {'halt': Halt(0.125, now=True)}),
        (['--timeout', '60'], {'timeout': 60.0}),
        (['--timeout', '0.5'], {'timeout': 0.5}),
        (['--timeout', '90s'], {'timeout': 90.0}),
        (['--timeout', '10m'], {'timeout': 600.0}),
        (['--timeout', '1.5h'], {'timeout': 5400.0}),
        (['--timeout', '2d'], {'timeout': 172800.0}),
        (['--timeout', '300%'], {'timeout_share': 3.0}),
        (['--delay', '0'], {'delay': 0.0}),
        (['--delay', '.25'], {'delay': 0.25}),
        (['--duplicates'], {'duplicates': True}),
        (['--no-duplicates'], {'duplicates': False}),
    ],
)
def test_what_they_mean(words: list[str], changes: dict[str, object]) -> None:
    base = Policy(delay=9.0)
    assert policy(*words, base=base) == base._replace(**changes)  # type: ignore[arg-type]


def test_words_that_say_the_same_again() -> None:
    words = ['--retries', '4', '--timeout=300%', '--retry-on', 'exit:7,timeout', '--no-duplicates', '--lease=2m', '-k']
    found = words_said(parser(), words, ['keep_order'])
    assert set(found) == {'retries', 'timeout', 'retry_on', 'duplicates', 'lease'}
    assert policy(*found.values()) == policy(*words)
    assert parsed(*found.values()).lease == 120
    assert set(POLICY) == set(vars(parsed())) - set(vars(results_parser().parse_args([])))


def test_a_limit_of_either_kind_replaces_the_other() -> None:
    assert policy('--timeout', '300%', base=Policy(timeout=5.0)) == Policy(timeout_share=3.0)
    assert policy('--timeout', '5', base=Policy(timeout_share=3.0)) == Policy(timeout=5.0)


_WITH_VALUES = ('--retries', '--retry-on', '--halt', '--timeout', '--delay', '--lease', '--name')
_CAUSES = 'exit, exit:N, timeout, rejected or resources'
_TIME = 'is no time: a number of seconds, or 10m, 2h, 1d'
_HALT = 'says not when to give up: it is soon,fail=N, soon,fail=N%, now,fail=N or now,fail=N%'
_SHARE = 'N is a whole number from 1, N% a share above 0 and below 100'


@pytest.mark.parametrize(
    ('words', 'error'),
    [
        (['--retries', '-1'], "argument --retries: '-1' is not a whole number from 0"),
        (['--retries', '1.5'], "argument --retries: '1.5' is not a whole number from 0"),
        (['--retries', '²'], "argument --retries: '²' is not a whole number from 0"),
        (['--retry-on', 'crash'], f"argument --retry-on: 'crash' is no cause: it is {_CAUSES}"),
        (['--retry-on', ''], f"argument --retry-on: '' is no cause: it is {_CAUSES}"),
        (['--retry-on', 'exit,'], f"argument --retry-on: '' is no cause: it is {_CAUSES}"),
        (['--retry-on', 'timeout:3'], f"argument --retry-on: 'timeout:3' is no cause: it is {_CAUSES}"),
        (
            ['--retry-on', 'lost'],
            f"argument --retry-on: 'lost' is no cause: it is {_CAUSES}; what was lost with its host is always tried "
            'again',
        ),
        (['--retry-on', 'exit:0'], "argument --retry-on: 'exit:0': the exit status of what failed is 1 to 255"),
        (['--retry-on', 'exit:256'], "argument --retry-on: 'exit:256': the exit status of what failed is 1 to 255"),
        (['--retry-on', 'exit:x'], "argument --retry-on: 'exit:x': the exit status of what failed is 1 to 255"),
        (['--halt', 'later,fail=1'], f"argument --halt: 'later,fail=1' {_HALT}"),
        (['--halt', 'now'], f"argument --halt: 'now' {_HALT}"),
        (['--halt', 'now,done=1'], f"argument --halt: 'now,done=1' {_HALT}"),
        (['--halt', 'now,fail=0'], f"argument --halt: 'now,fail=0': {_SHARE}"),
        (['--halt', 'now,fail='], f"argument --halt: 'now,fail=': {_SHARE}"),
        (['--halt', 'now,fail=1.5'], f"argument --halt: 'now,fail=1.5': {_SHARE}"),
        (['--halt', 'soon,fail=0%'], f"argument --halt: 'soon,fail=0%': {_SHARE}"),
        (['--halt', 'soon,fail=100%'], f"argument --halt: 'soon,fail=100%': {_SHARE}"),
        (['--timeout', '0'], "argument --timeout: '0' is no time above 0"),
        (['--timeout', 'long'], f"argument --timeout: 'long' {_TIME}, or a share of the median as 300%"),
        (['--timeout', '-5'], f"argument --timeout: '-5' {_TIME}, or a share of the median as 300%"),
        (['--timeout', '1e9'], f"argument --timeout: '1e9' {_TIME}, or a share of the median as 300%"),
        (['--timeout', '10 m'], f"argument --timeout: '10 m' {_TIME}, or a share of the median as 300%"),
        (['--timeout', '1000d'], f"argument --timeout: '1000d' {_TIME}, or a share of the median as 300%"),
        (
            ['--timeout', '100%'],
            "argument --timeout: '100%': half of all tasks take longer than the median; it is above 100%",
        ),
        (['--delay', 'x'], f"argument --delay: 'x' {_TIME}"),
        (['--lease', '0'], "argument --lease: '0' is shorter than 1 s, in which nobody can be heard of"),
        (
            ['--duplicates', '--no-duplicates'],
            'argument --no-duplicates: not allowed with argument --duplicates',
        ),
        (
            ['--name', 'a/b'],
            "argument --name: 'a/b' is no name: 1 to 64 letters, digits, dots, dashes and underscores, first a letter "
            'or digit',
        ),
    ],
)
def test_errors_say_what_is_legal(words: list[str], error: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(*joined(words, _WITH_VALUES))
    assert caught.value.what == error
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ('option', 'legal'),
    [
        ('--keep', ('all', 'failed', 'none')),
        ('--on-lost', ('kill', 'finish')),
        ('--format', ('framed', 'jsonl', 'text')),
    ],
)
def test_choices(option: str, legal: tuple[str, ...]) -> None:
    for word in legal:
        assert getattr(parsed(option, word), option[2:].replace('-', '_')) == word
    with pytest.raises(UsageError) as caught:
        parsed(option, 'other')
    assert all(repr(word) in caught.value.what for word in legal)


def test_what_else_there_is() -> None:
    options = parsed()
    assert (options.keep, options.lease, options.on_lost, options.format) == ('failed', 60.0, 'kill', 'text')
    assert (options.joblog, options.name, options.keep_order, options.dry_run, options.json) == (
        None, None, False, False, False,
    )  # fmt: skip
    options = parsed('--joblog', 'log', '-k', '--dry-run', '--json', '--name', 'a-1.b_c', '--lease', '5m')
    assert (options.joblog, options.name, options.lease) == (Path.cwd() / 'log', 'a-1.b_c', 300.0)
    assert options.keep_order
    assert options.dry_run
    assert options.json


def test_formats() -> None:
    assert isinstance(format_of(parsed()), Text)
    assert isinstance(format_of(parsed('--tag')), Text)
    assert isinstance(format_of(parsed('--format', 'framed')), Framed)
    assert isinstance(format_of(parsed('--format', 'jsonl')), JsonLines)
    for name in ('framed', 'jsonl'):
        with pytest.raises(UsageError, match=f'--tag puts an index .* with --format {name}'):
            format_of(parsed('--tag', '--format', name))


@pytest.mark.parametrize('duplicates', [True, False])
def test_the_help_names_the_default_of_copies(duplicates: bool) -> None:
    text = ' '.join(parser(duplicates=duplicates).format_help().split())
    assert ('the first to end counts (the default)' in text) is duplicates
    assert ('a task that runs (the default)' in text) is not duplicates
    assert '300% of the median' in text
