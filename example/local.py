"""Two programs on this machine alone: no other host, no SSH, no root.

    remote_runner -c example/local.py
    screen -x runner        # look at them; detach with Ctrl-A d
"""

clock = Component()
clock.name = 'clock'
clock.host = localhost
clock.executable = 'bin/clock'
clock.args = ['--ticks', 600]
config.add_component(clock)

countdown = Component()
countdown.name = 'countdown'
countdown.host = localhost
countdown.executable = 'bin/clock'
countdown.args = ['--ticks', 60, '--down']
countdown.start_index = 1  # when the clock has started
config.add_component(countdown)
