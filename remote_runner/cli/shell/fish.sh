# fish completion of remote_runner, made by `remote_runner completion fish`.

# The command in the line.
function __remote_runner_command
    set -l words (commandline -opc)
    if contains -- "$words[2]" @NAMES@
        echo $words[2]
    else
        echo @UNNAMED@
    end
end

# Whether the command is one of these.
function __remote_runner_is
    contains -- (__remote_runner_command) $argv
end

# Whether nothing stands behind the program's name yet.
function __remote_runner_begins
    test (count (commandline -opc)) -eq 1
end

# Whether this option of this command takes a value.
function __remote_runner_takes_value --argument-names command option
    switch "$command $option"
        case @VALUED@
            return 0
    end
    return 1
end

# Whether the command is this one, and the operand at the cursor has this number; with + also a later one.
function __remote_runner_operand --argument-names command number more
    set -l words (commandline -opc)
    test "$words[2]" = "$command"; or return
    set -l count 0
    set -l ended 0
    set -l skip 0
    for word in $words[3..-1]
        if test $skip -eq 1
            set skip 0
        else if test $ended -eq 1; or not string match -q -- '-?*' $word
            set count (math $count + 1)
        else if test "$word" = --
            set ended 1
        else if __remote_runner_takes_value $command $word
            set skip 1
        end
    end
    test $count -eq $number; or begin
        test "$more" = +; and test $count -gt $number
    end
end

# The value of one of these options in the line.
function __remote_runner_value_of
    set -l words (commandline -opc)
    for i in (seq 2 (count $words))
        if contains -- $words[$i] $argv
            string replace -r '^~/' "$HOME/" -- $words[(math $i + 1)]
            return
        else if string match -q -- '--*=*' $words[$i]; and contains -- (string split -m 1 = -- $words[$i])[1] $argv
            string replace -r '^~/' "$HOME/" -- (string split -m 1 = -- $words[$i])[2]
            return
        end
    end
end

function __remote_runner_words
    set -l program (string replace -r '^~/' "$HOME/" -- (commandline -opc)[1])
    $program completion --words $argv 2>/dev/null
end

# What has been typed of the value of an option, or of an operand, without its quotes.
function __remote_runner_typed
    set -l typed (commandline -ct | string replace -r '^(--[^=]*=|-[a-zA-Z])' '')
    # A quote that is still open cannot be unescaped.
    string replace -r -f '^["\']' '' -- $typed; or string unescape -- $typed
end

function __remote_runner_hosts
    set -l typed (__remote_runner_typed)
    if string match -q '@*' -- $typed
        printf '@%s\n' (__fish_complete_path (string sub -s 2 -- $typed) | string replace -r '\t.*' '')
        return
    end
    set -l before (string match -r '.*[,@]' -- $typed)
    printf '%s\n' "$before"(__remote_runner_words hosts (__remote_runner_value_of -F --ssh-config))
end

function __remote_runner_components
    set -l before (string match -r '.*,' -- (__remote_runner_typed))
    printf '%s\n' "$before"(__remote_runner_words components (__remote_runner_value_of --screen))
end

function __remote_runner_sessions
    set -l state "$XDG_STATE_HOME"
    test -n "$state"; or set state ~/.local/state
    for folder in $state/remote_runner/runs/*/
        path basename $folder
    end
end

function __remote_runner_jobs
    set -l state "$XDG_STATE_HOME"
    test -n "$state"; or set state ~/.local/state
    for folder in $state/remote_runner/jobs/*/
        path basename $folder
    end
end

function __remote_runner_python
    set -l typed (__remote_runner_typed)
    __fish_complete_path $typed | string match -r '^[^\t]*(?:\.py|/)(?:\t.*)?$'
end

complete -c remote_runner -e
complete -c remote_runner -f
@TABLES@
