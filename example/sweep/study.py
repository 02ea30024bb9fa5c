"""At which density do random squares let water through, and how sharp is that? A sweep over a grid, and its picture.

    remote_runner sweep example/sweep/study.py
    remote_runner sweep example/sweep/study.py -a example/sweep/arg_parser.py --extra-args "--hosts 4/h1,4/h2"

In results/ beside this file there are percolation.csv, a row a task, and percolation.svg afterwards.
"""

import plot  # plot.py, beside this file

# What --extra-args can change. Without an arg parser, extra_options is None.
hosts = extra_options.hosts if extra_options else localhost
sizes = extra_options.sizes if extra_options else '8,16,32,64'
trials = extra_options.trials if extra_options else 400
seeds = extra_options.seeds if extra_options else 2

TABLE, PICTURE = 'results/percolation.csv', 'results/percolation.svg'


def is_possible(parameters, results):
    """What a program prints that was ended, or is another one, is no result."""
    return 0 <= int(results['spanning']) <= int(parameters['trials'])


class Drawn:
    """A collector: what `collect.csv` writes, drawn when all of it is there."""

    def __init__(self):
        self.table = collect.csv(TABLE)

    def begin(self, folder, names):
        self.folder = folder
        self.table.begin(folder, names)

    def add(self, parameters, results):
        self.table.add(parameters, results)

    def end(self):
        self.table.end()
        plot.draw(f'{self.folder}/{TABLE}', f'{self.folder}/{PICTURE}')

    def drop(self):
        self.table.drop()


sweep = Sweep()
sweep.name = 'percolation'
sweep.hosts = hosts
sweep.parameters = util.product(
    size=[int(size) for size in sizes.split(',')],
    p=[percent / 100 for percent in range(48, 73, 2)],
    seed=range(seeds),
    trials=[trials],
)
sweep.files = {'percolation': 'percolation'}
sweep.command = './percolation --size {size} --p {p} --seed {seed} --trials {trials}'
sweep.results = {'spanning': 'stdout'}
sweep.validate = is_possible
sweep.collect = Drawn()
config.add_sweep(sweep)
