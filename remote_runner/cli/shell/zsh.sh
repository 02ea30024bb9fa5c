#compdef remote_runner
# zsh completion of remote_runner, made by `remote_runner completion zsh`.

_remote_runner() {
    local curcontext=$curcontext command=@UNNAMED@ program=${${(Q)words[1]}/#\~\//$HOME/}
    local -a subcommands # `commands` is a table of zsh itself
    local -A opt_args
    subcommands=(
@COMMANDS@
    )
    if (( CURRENT == 2 )) && [[ $PREFIX != -* ]]; then
        _describe -t commands command subcommands
        return
    fi
    if (( CURRENT > 2 )) && [[ -n ${(M)subcommands:#${words[2]}:*} ]]; then
        command=$words[2]
        shift words
        (( CURRENT-- ))
    fi
    curcontext=${curcontext%:*:*}:remote_runner-$command:
    case $command in
@TABLES@
    esac
}

_remote_runner_hosts() {
    local expl config=${(Q)${opt_args[-F]:-${opt_args[--ssh-config]}}}
    local -a found
    if compset -P '@'; then
        _files
        return
    fi
    compset -P '*[,@]'
    found=(${(f)"$($program completion --words hosts "${config/#\~\//$HOME/}" 2>/dev/null)"})
    _wanted hosts expl host compadd -a found
}

_remote_runner_components() {
    local expl
    local -a found
    compset -P '*,'
    found=(${(f)"$($program completion --words components "${(Q)opt_args[--screen]}" 2>/dev/null)"})
    _wanted components expl component compadd -a found
}

_remote_runner_sessions() {
    local expl
    local -a found
    found=(${XDG_STATE_HOME:-$HOME/.local/state}/remote_runner/runs/*(N/:t))
    _wanted sessions expl session compadd -a found
}

_remote_runner_jobs() {
    local expl
    local -a found
    found=(${XDG_STATE_HOME:-$HOME/.local/state}/remote_runner/jobs/*(N/:t))
    _wanted jobs expl job compadd -a found
}

# Called by compinit's loader, which takes this file for the function, or sourced.
if [[ $funcstack[1] == _remote_runner ]]; then
    _remote_runner "$@"
else
    compdef _remote_runner remote_runner
fi
