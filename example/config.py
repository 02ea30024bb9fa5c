"""A publisher and some subscribers on each of several hosts.

    remote_runner -c example/config.py --arg-parser example/arg_parser.py --extra-args "--hosts h1,h2,h3"

Every publisher serves the subscribers of its own host. A config is a Python program: this one is run in its own
directory, finds `config`, `Component`, `util`, `options` and `extra_options` ready, and adds components to `config`.
"""

# What --extra-args can change. Without an arg parser, extra_options is None.
hosts = util.hosts(extra_options.hosts if extra_options else 'h1,h2,h3')
user_count = extra_options.user_count if extra_options else 2
messages = extra_options.messages if extra_options else 600

PORT = 7300

publisher = Component()
publisher.name = 'publisher'
publisher.executable = 'publisher'
publisher.args = ['--port', PORT, '--messages', messages]
publisher.files = {'bin/publisher': 'publisher'}

# One template for all subscribers: add_component stores a copy, so it can be changed and added again.
subscriber = Component()
subscriber.executable = 'subscriber'
subscriber.files = {'bin/subscriber': 'subscriber'}
subscriber.start_index = 1  # after all publishers (index 0) have started

for host in hosts:
    publisher.host = host
    config.add_component(publisher)
    for number in range(1, user_count + 1):
        subscriber.name = f'subscriber-{number}'
        subscriber.host = host
        subscriber.args = ['--port', PORT, '--name', f'user {number} of {user_count} on {host}']
        config.add_component(subscriber)

# Nothing is copied on this machine: a program on localhost runs where it stands.
for component in config.all_local_components():
    component.files = {}
    component.executable = f'bin/{component.executable}'
