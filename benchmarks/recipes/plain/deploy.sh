#!/usr/bin/env bash
# The deploy, by hand: a master connection a host, rsync, screen; all hosts in parallel, step by step.
set -euo pipefail

read -ra hosts <<<"$HOSTS"
ssh_options=(-F "$SSH_CONFIG" -o ControlMaster=auto -o ControlPersist=60s -o "ControlPath=$CONTROL/%C")

remote() { ssh "${ssh_options[@]}" "$2" "$1" </dev/null; }
put() { rsync -a -e "ssh ${ssh_options[*]}" files/ "$1:$BASE/"; }

# each STEP...: the step on all hosts at once; fails if it failed on one.
each() {
    local pids=() pid failed=0
    for host in "${hosts[@]}"; do
        "$@" "$host" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid" || failed=1
    done
    return "$failed"
}

each remote "$QUIT; mkdir -p $BASE"
each put
each remote "$START_SERVER"
each remote "$START_CLIENT"
