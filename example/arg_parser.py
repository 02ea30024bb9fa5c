"""Reads the --extra-args of the example; what it returns is `extra_options` in the config and the muddlers."""

import argparse


def parse_args(extra_args, ssh_user):
    parser = argparse.ArgumentParser(prog='--extra-args of the example')
    parser.add_argument('--hosts', default='h1,h2,h3', help='the hosts, such as h1,h2 or root@node[1-9]')
    parser.add_argument('--user-count', type=int, default=2, help='subscribers on each host (default 2)')
    parser.add_argument('--messages', type=int, default=600, help='messages that a publisher sends (default 600)')
    parser.add_argument('--harness', help='the test harness for muddlers/ta3_muddler.py')
    parser.add_argument('--harness-args', default='', help='arguments of the harness itself')
    extra_options = parser.parse_args(extra_args)
    extra_options.user = ssh_user
    return extra_options
