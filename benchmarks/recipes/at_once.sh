#!/usr/bin/env bash
# at_once.sh h1,h2,... COMMAND...: the command for each host, with its name for HOST, all at once; fails if one fails.
set -uo pipefail
IFS=, read -ra hosts <<<"$1"
shift
pids=() failed=0
for host in "${hosts[@]}"; do
    "${@//HOST/$host}" &
    pids+=($!)
done
for pid in "${pids[@]}"; do
    wait "$pid" || failed=1
done
exit "$failed"
