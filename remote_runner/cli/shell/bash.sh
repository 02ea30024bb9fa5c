# bash completion of remote_runner, made by `remote_runner completion bash`. Needs bash 4.4 or later.
# shellcheck shell=bash

# The tables of a command: its options (names, what completes their values, descriptions), what completes its operands, and
# in `others` what completes all further ones. `flag` takes no value, `-` is for the user alone to know.
_remote_runner_table() {
    case $1 in
@TABLES@
    esac
}

_remote_runner_commands() {
@COMMANDS@
}

# Sets words (up to the cursor, as the shell will see them), cur (the last of them, as typed) and raw (the part of cur that
# readline is going to replace): bash splits at = : and @ too, and these stand within words here.
_remote_runner_split() {
    local line=${COMP_LINE:0:COMP_POINT} rest='' word i
    words=() cur=''
    for ((i = 0; i <= COMP_CWORD; i++)); do
        rest=${line#"${line%%[![:space:]]*}"}
        word=${COMP_WORDS[i]}
        [[ $i != "$COMP_CWORD" ]] || word=$rest
        if [[ $i == 0 || $rest != "$line" ]]; then
            words+=("$word")
        else
            words[-1]+=$word
        fi
        line=${rest#"$word"}
        raw=$word
    done
    cur=${words[-1]}
    [[ $raw != [=:@] ]] || raw=''
    # readline takes an @ for the beginning of a word, not for its end.
    [[ ${cur%"$raw"} != *@ ]] || raw=@$raw
    for i in "${!words[@]}"; do
        _remote_runner_unquote "${words[i]}"
        words[i]=$REPLY
    done
}

# Sets REPLY to the word without its quotes; nothing is expanded.
_remote_runner_unquote() {
    local text=$1 quote='' letter i
    REPLY=$1
    [[ $text == *[\'\"\\]* ]] || return 0
    REPLY=''
    for ((i = 0; i < ${#text}; i++)); do
        letter=${text:i:1}
        if [[ $letter == "$quote" ]]; then
            quote=''
        elif [[ -z $quote && $letter == [\'\"] ]]; then
            quote=$letter
        elif [[ $letter == \\ && $quote != \' ]]; then
            ((i += 1))
            REPLY+=${text:i:1}
        else
            REPLY+=$letter
        fi
    done
}

# Sets kind to what completes the value of this option; to nothing if there is no such option.
_remote_runner_kind() {
    local i
    kind=''
    for ((i = 0; i < ${#options[@]}; i += 3)); do
        if [[ $1 == "${options[i]}" ]]; then
            kind=${options[i + 1]}
            return
        fi
    done
}

# Adds what begins with the value that was typed. `before` stands in front of the value in the same word.
_remote_runner_offer() {
    local candidate
    for candidate; do
        [[ $candidate != "$value"* ]] || COMPREPLY+=("$before$candidate")
    done
}

# The same for files; $@ are options of compgen. A slash after a folder and quotes come from readline.
_remote_runner_files() {
    local file
    compopt -o filenames 2>/dev/null # fails outside of completion
    while IFS= read -r file; do
        COMPREPLY+=("$before$file")
    done < <(compgen "$@" -- "$value")
}

_remote_runner_values() {
    local list front
    case $1 in
        file) _remote_runner_files -f ;;
        folder) _remote_runner_files -d ;;
        python)
            _remote_runner_files -d
            _remote_runner_files -f -X '!*.py'
            ;;
        command)
            # The first word is a command, those behind it may be files.
            if ((operand > 0)); then _remote_runner_files -f; else _remote_runner_files -c; fi
            ;;
        sessions)
            mapfile -t list < <(compgen -d -- "${XDG_STATE_HOME:-$HOME/.local/state}/remote_runner/runs/")
            _remote_runner_offer "${list[@]##*/}"
            ;;
        jobs)
            mapfile -t list < <(compgen -d -- "${XDG_STATE_HOME:-$HOME/.local/state}/remote_runner/jobs/")
            _remote_runner_offer "${list[@]##*/}"
            ;;
        hosts)
            if [[ $value == @* ]]; then
                before+=@ value=${value#@}
                _remote_runner_files -f
                return
            fi
            front=${value%"${value##*[,@]}"}
            before+=$front value=${value#"$front"}
            mapfile -t list < <("$program" completion --words hosts "$ssh_config" 2>/dev/null)
            _remote_runner_offer "${list[@]}"
            ;;
        components)
            front=${value%"${value##*,}"}
            before+=$front value=${value#"$front"}
            mapfile -t list < <("$program" completion --words components "$session" 2>/dev/null)
            _remote_runner_offer "${list[@]}"
            ;;
        =*)
            IFS=' ' read -ra list <<<"${1#=}"
            _remote_runner_offer "${list[@]}"
            ;;
    esac
}

# Puts the descriptions behind the words where they are only listed, not put into the line: $@ are words, what is taken for
# nothing here, and descriptions. COMP_TYPE is 63 at the second Tab, 33 and 64 with show-all-if-ambiguous and -unmodified.
_remote_runner_describe() {
    local width=0 room i j found=("${COMPREPLY[@]}") table=("$@")
    [[ ${#found[@]} -gt 1 && $COMP_TYPE == @(63|33|64) ]] || return
    for i in "${found[@]}"; do
        ((${#i} <= width)) || width=${#i}
    done
    room=$((${COLUMNS:-80} - width - 5))
    ((room > 10)) || return
    for i in "${!found[@]}"; do
        for ((j = 0; j < ${#table[@]}; j += 3)); do
            [[ ${found[i]} == "${table[j]}" ]] || continue
            printf -v 'COMPREPLY[i]' '%-*s  (%s)' "$width" "${found[i]}" "${table[j + 2]:0:room}"
        done
    done
}

_remote_runner() {
    local words cur raw program command=@UNNAMED@ kind='' operand=0 ended='' ssh_config='' session='' REPLY
    local value before='' first=1 i word step options=() operands=() others='' commands=()
    COMPREPLY=()
    _remote_runner_split
    program=${words[0]/#\~\//$HOME/}
    _remote_runner_commands
    for ((i = 0; i < ${#commands[@]}; i += 3)); do
        if [[ ${#words[@]} -gt 2 && ${words[1]} == "${commands[i]}" ]]; then
            command=${words[1]} first=2
        fi
    done
    _remote_runner_table "$command"
    for ((i = first; i < ${#words[@]} - 1; i++)); do
        word=${words[i]}
        if [[ -n $ended || $word != -?* ]]; then
            ((operand += 1))
        elif [[ $word == -- ]]; then
            ended=1
        else
            value=${words[i + 1]} step=1
            [[ $word != --*=* ]] || { value=${word#*=} word=${word%%=*} step=0; }
            _remote_runner_kind "$word"
            [[ -n $kind && $kind != flag ]] || continue
            case $word in
                -F | --ssh-config) ssh_config=${value/#\~\//$HOME/} ;;
                --screen) session=$value ;;
            esac
            ((i += step))
            # Its value is what is being typed.
            if ((i == ${#words[@]} - 1)); then
                value=${words[-1]}
                _remote_runner_values "$kind"
                _remote_runner_cut
                return
            fi
        fi
    done
    value=${words[-1]}
    if [[ -z $ended && $value == --*=* ]]; then
        _remote_runner_kind "${value%%=*}"
        before=${value%%=*}= value=${value#*=}
        _remote_runner_values "$kind"
    elif [[ -z $ended && $value == -* ]]; then
        _remote_runner_options
    elif [[ $first == 1 && ${#words[@]} == 2 ]]; then
        for ((i = 0; i < ${#commands[@]}; i += 3)); do
            _remote_runner_offer "${commands[i]}"
        done
        _remote_runner_describe "${commands[@]}"
    elif [[ -n ${operands[operand]-$others} ]]; then
        _remote_runner_values "${operands[operand]-$others}"
    elif [[ -z $ended && -z $value ]]; then
        _remote_runner_options
    fi
    _remote_runner_cut
}

_remote_runner_options() {
    local i
    for ((i = 0; i < ${#options[@]}; i += 3)); do
        _remote_runner_offer "${options[i]}"
    done
    _remote_runner_describe "${options[@]}"
}

# Leaves of each word only what takes the place of `raw`.
_remote_runner_cut() {
    local i kept
    _remote_runner_unquote "${cur%"$raw"}"
    kept=$REPLY
    for i in "${!COMPREPLY[@]}"; do
        COMPREPLY[i]=${COMPREPLY[i]#"$kept"}
    done
}

complete -F _remote_runner remote_runner
