#!/bin/sh
# Makes a host of the namespaces it was started in, then stays as the host's init: it reaps whatever is orphaned there.
# Talks with boot.py: prints its pid as the machine sees it, reads a line once eth0 is here, prints a line at the end.
# Usage: init.sh FOLDER NAME
set -eu

# A child to be waited for, without which the shell would end; after `kill -9 -1` in the host there is a new one.
idle() {
    sleep infinity >/dev/null 2>&1 &
    echo $! >/run/testbed/sleeper
}

read -r pid _ </proc/self/stat # still the machine's /proc
mount --all --fstab "$1/fstab"
mount -o remount,bind,ro / # what is not the host's own is the machine's
if mountpoint -q /dev; then
    mount -o remount,bind,ro /dev # its devices can be used, but not replaced
fi
echo "$2" >/proc/sys/kernel/hostname
echo "$pid"
read -r _
ip -batch /run/testbed/addresses
/usr/sbin/sshd
idle
echo up
exec </dev/null >/dev/null 2>&1
cd /
while :; do
    wait
    idle
done
