"""Puts every component whose name starts with `publisher` under a test harness.

    remote_runner -c example/config.py -m muddlers/ta3_muddler.py \
        --arg-parser example/arg_parser.py --extra-args "--hosts h1,h2,h3 --harness example/harness"

The harness becomes the executable; its arguments are

    -p EXECUTABLE -a 'ARGS joined by spaces' HARNESS ARGS...

with the component's own executable and arguments. It runs where the component ran, in the same base_dir, in its turn.

What it reads from `extra_options`:

harness
    The harness. A file here (relative to the working directory) is sent to the host's base_dir under its own name;
    any other absolute path means a harness that is installed on the hosts already. Without this option, a file
    `harness` beside the config is taken.
harness_args
    The harness's own arguments: a list, or one text that is cut as a shell would. None by default.
"""

import os
import shlex


def muddle(config, options):
    # A component that lacks something is left as it is: the check of the config will say what.
    publishers = [c for c in config.all_components() if c.all_set() and str(c.name).startswith('publisher')]
    if not publishers:
        return
    config_dir = os.path.dirname(options.config_file)
    harness = find_harness(config_dir)
    for component in publishers:
        put_under(component, harness, config_dir)


def put_under(component, harness, config_dir):
    executable = component.executable
    if component.host == localhost:
        # A program on this machine is named relative to the config, and the harness runs elsewhere.
        executable = os.path.join(config_dir, os.path.expanduser(executable))
        component.executable = os.path.abspath(harness)
    elif os.path.isfile(harness):
        name = os.path.basename(harness)
        component.files[os.path.abspath(harness)] = name
        component.executable = name
    else:
        component.executable = harness
    component.args = ['-p', executable, '-a', ' '.join(component.args_as_text())] + harness_args()


def find_harness(config_dir):
    harness = getattr(extra_options, 'harness', None)
    beside = os.path.join(config_dir, 'harness')
    if harness is None and os.path.isfile(beside):
        return beside
    if harness is None:
        raise SystemExit("there is no test harness: name one with --extra-args '--harness FILE', through an arg parser")
    harness = os.path.expanduser(harness)
    if not os.path.isfile(harness) and not os.path.isabs(harness):
        raise SystemExit('there is no test harness %s in %s' % (harness, os.getcwd()))
    return harness


def harness_args():
    arguments = getattr(extra_options, 'harness_args', None) or []
    return shlex.split(arguments) if isinstance(arguments, str) else list(arguments)
