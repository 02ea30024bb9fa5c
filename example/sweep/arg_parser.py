"""Reads the --extra-args of the study; what it returns is `extra_options` in study.py."""

import argparse


def parse_args(extra_args, ssh_user):
    parser = argparse.ArgumentParser(prog='--extra-args of the study')
    parser.add_argument('--hosts', default='localhost', help='where to run, such as 4/h1,h2 (default: this machine)')
    parser.add_argument('--sizes', default='8,16,32,64', help='sides of squares (default 8,16,32,64)')
    parser.add_argument('--trials', type=int, default=400, help='squares a task looks at (default 400)')
    parser.add_argument('--seeds', type=int, default=2, help='tasks for each point of the picture (default 2)')
    return parser.parse_args(extra_args)
