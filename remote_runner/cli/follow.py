"""`remote_runner jobs attach`: a job that runs elsewhere is followed from this terminal."""

from __future__ import annotations

import argparse
import logging
import threading
from collections.abc import Sequence
from contextlib import ExitStack

from remote_runner.cli.job_options import FORMATS, format_of
from remote_runner.cli.options import Parser, add_log_level
from remote_runner.jobs.deliver import Delivery
from remote_runner.jobs.follow import PAUSE, Followed, Follower
from remote_runner.jobs.recall import Recall
from remote_runner.jobs.summary import meant
from remote_runner.ui.jobs import JobsTerminal, stdout_sink
from remote_runner.ui.output import check_stdout

log = logging.getLogger('remote_runner')

_DESCRIPTION = """\
Follow a batch or sweep that runs in the background, or in another terminal, until it is at its end. Ctrl-C ends the
following, and not the job.

    remote_runner jobs attach
    remote_runner jobs attach latency --format jsonl >results.jsonl

With --format all results are written to stdout: first those that are there, then each as soon as it is.
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's options."""
    parser = Parser(
        prog='remote_runner jobs attach',
        description=_DESCRIPTION,
        usage='%(prog)s [ID] [options]',
        epilog='exit status: that of the job, 1 nobody works on it, 130 interrupted',
    )
    parser.add_argument('id', nargs='?', metavar='ID', help='the job that is meant (default: the newest)')
    what = 'write results to stdout, as `batch --format` does (default: they are not)'
    parser.add_argument('--format', choices=FORMATS, help=what)
    parser.add_argument('--tag', action='store_true', help='text: put the index of its task and a tab before each line')
    parser.add_argument('-k', '--keep-order', action='store_true', help='write results in the order of their tasks')
    parser.add_argument('--json', action='store_true', help='the statistics at the end as a JSON object, on stderr')
    add_log_level(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit status."""
    options = make_parser().parse_intermixed_args(arguments)
    if options.tag and options.format is None:
        options.format = 'text'
    if options.format is not None:
        check_stdout()
    from remote_runner.ui.log import configure

    configure(options.log_level)
    place = meant(options.id)
    log.info('following job %s; Ctrl-C ends that, and not the job', place.id)
    numbers = Followed()
    pause = threading.Event()
    with ExitStack() as stack:
        more = f'remote_runner jobs failed {place.id}'
        shows = stack.enter_context(JobsTerminal(numbers, as_json=options.json, more=more))
        delivery = None
        if options.format is not None:
            sink, recall = stdout_sink(), Recall(place.folder)
            delivery = Delivery(format_of(options), sink, read=recall, keep_order=options.keep_order)
            stack.enter_context(delivery)
        follower = stack.enter_context(Follower(place.folder, numbers, delivery))
        try:
            while not follower.look():
                shows.changed()
                pause.wait(PAUSE)
                if delivery is not None:
                    delivery.check()
            if delivery is not None:
                delivery.close()
        except KeyboardInterrupt:
            log.info('job %s goes on; `remote_runner jobs attach %s` follows it again', place.id, place.id)
            raise
        return follower.status()
