#!/bin/sh
# Whether the program of this container is well; exit code 0 or 1. It costs a few milliseconds.
#
#   fog-health connected    process 1 has a TCP connection: a device to its broker
#   fog-health listening    process 1 accepts connections: a broker
#   fog-health ready        the gateway answers its page, which asks it over MQTT
set -u

# The numbers of the states are those of the kernel's table of connections.
has_socket() {
    for inode in $(ls -l /proc/1/fd 2>/dev/null | sed -n 's/.*socket:\[\([0-9]*\)\]$/\1/p'); do
        cat /proc/net/tcp /proc/net/tcp6 2>/dev/null \
            | awk -v state="$1" -v inode="$inode" \
                '$4 == state && $10 == inode { found = 1 } END { exit !found }' && return 0
    done
    return 1
}

case ${1-} in
    connected) has_socket 01 ;;
    listening) has_socket 0A ;;
    ready)
        python3 -c 'import sys, urllib.request
urllib.request.urlopen(f"http://{sys.argv[1]}/readyz", timeout=4)' \
            "${FOGMQTT_DASHBOARD__LISTEN:-127.0.0.1:8080}" 2>/dev/null
        ;;
    *)
        sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac
