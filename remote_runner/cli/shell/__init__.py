"""What shells and man(1) know of the commands, made from the parsers of the commands themselves.

`commands` reads the parsers; `scripts` makes the completion scripts of it, whose lasting parts are the files
`bash.sh`, `zsh.sh` and `fish.sh`; `man` makes the man page; `words` finds the hosts and components that scripts ask
for. Nothing here is imported by another command.
"""
