#!/bin/sh
# Runs the agent of a board, in the newest version that is known to work.
#
#   launch.sh BASE VERSIONS SECONDS ARGUMENT…
#
# BASE is the Python environment that was installed. The folder VERSIONS has those that a gateway sent
# later, and what is known of them:
#   base      BASE, as a link
#   current   the name of the one that runs; without it: base
#   trial     the name of one that must be online within SECONDS, or the one before runs again
#   begun     the trial has begun
#   online    made by an agent that is online
#   refused   the name of one that was not online in time, and why
# An agent that ends with exit code 75 is started again.
set -u

main() {
    base=$1 versions=$2 limit=$3
    shift 3
    child= stopping=
    trap 'pass TERM' TERM
    trap 'pass HUP' HUP
    # A terminal sends it to the agent by itself.
    trap '[ -t 0 ] || pass TERM' INT
    if ! { mkdir -p "$versions" && ln -sfn "$base" "$versions/base"; } 2>/dev/null; then
        echo "fog-device: $versions cannot be written, so no gateway can update this board" >&2
        exec "$base/bin/python" -m fogmqtt.cli.device "$@"
    fi
    code=75
    while [ "$code" -eq 75 ]; do
        if [ -s "$versions/trial" ]; then
            try "$@"
        else
            start "$(current)" "$@"
            await
        fi
        [ -z "$stopping" ] || exit "$code"
    done
    exit "$code"
}

try() {
    name=$(cat "$versions/trial")
    code=75
    if [ -e "$versions/begun" ]; then
        take_back "the board went off before it was online"
        return
    fi
    rm -f "$versions/online"
    : >"$versions/begun"
    start "$versions/$name" "$@"
    second=0
    while [ ! -e "$versions/online" ] && [ "$second" -lt "$limit" ] && kill -0 "$child" 2>/dev/null; do
        sleep 1
        second=$((second + 1))
    done
    if [ -n "$stopping" ]; then
        await
        rm -f "$versions/begun"
    elif [ -e "$versions/online" ]; then
        keep current "$name"
        rm -f "$versions/trial" "$versions/begun"
        await
    elif kill -0 "$child" 2>/dev/null; then
        end
        take_back "it was not online within $limit s"
    else
        await
        take_back "it ended with exit code $code before it was online"
    fi
}

# Goes back to the version before.
take_back() {
    keep refused "$name $1"
    rm -f "$versions/trial" "$versions/begun"
    echo "fog-device: fogmqtt $name is taken back: $1" >&2
    code=75
}

current() {
    found=$versions/$(cat "$versions/current" 2>/dev/null || echo base)
    # A new Python of the system may have made it useless.
    if [ -x "$found/bin/python" ]; then echo "$found"; else echo "$base"; fi
}

start() {
    environment=$1
    shift
    "$environment/bin/python" -m fogmqtt.cli.device "$@" --versions "$versions" &
    child=$!
}

await() {
    while :; do
        wait "$child"
        code=$?
        kill -0 "$child" 2>/dev/null || return
    done
}

# Ends an agent that may hang.
end() {
    kill -TERM "$child" 2>/dev/null
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
        kill -0 "$child" 2>/dev/null || break
        sleep 1
    done
    kill -KILL "$child" 2>/dev/null
    await
}

# Writes a file so that it is never there half.
keep() {
    printf '%s\n' "$2" >"$versions/$1.part" && mv "$versions/$1.part" "$versions/$1"
}

pass() {
    stopping=yes
    [ -z "$child" ] || kill "-$1" "$child" 2>/dev/null
}

main "$@"
