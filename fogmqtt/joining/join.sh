#!/bin/sh
# Makes this machine a board of the gateway @GATEWAY@: fogmqtt @VERSION@, its identity, and a service.
#
#   sudo sh join.sh CODE              install, join and start; again: update
#   sudo sh join.sh --uninstall       take all of it away
#   sh join.sh CODE --prefix DIR      for this user only, in a folder, without a service
#
# From a pipe it is: curl … | sudo sh -s -- CODE
#
# --root DIR writes the files of the system below DIR, and starts nothing.
set -eu

# All of it is read before anything is done, so a connection that breaks off does nothing.
main() {
    host='@HOST@'
    pin='@PIN@'
    wheel='@WHEEL@'
    prefix=/opt/fogmqtt
    root=
    code=
    action=install
    own=
    while [ $# -gt 0 ]; do
        case $1 in
            --prefix) [ $# -ge 2 ] || die "--prefix needs a folder"; prefix=$2; own=yes; shift ;;
            --root) [ $# -ge 2 ] || die "--root needs a folder"; root=$2; shift ;;
            --uninstall) action=uninstall ;;
            FOG1:*) code=$1 ;;
            *) die "'$1' is no code; use the line that fog-gateway invite printed" ;;
        esac
        shift
    done
    case $prefix in
        /*) ;;
        *) prefix=$(pwd)/$prefix ;;
    esac
    # Root runs nothing of what is in it, since the service may write there.
    if [ -n "$own$root" ]; then versions=$prefix/versions; else versions=/var/lib/fogmqtt; fi
    if [ -z "$own$root" ] && [ "$(id -u)" -ne 0 ]; then
        die "needs root for $prefix and the service; end the line with: sudo sh join.sh … , or give --prefix DIR"
    fi
    "$action"
}

install() {
    [ -n "$code" ] || die "give the code that fog-gateway invite printed"
    command -v curl >/dev/null || die "needs curl: apt install curl"
    command -v python3 >/dev/null || die "needs Python 3.11 or newer: apt install python3"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "needs Python 3.11 or newer"
    python3 -c 'import sys; sys.exit(sys.maxsize < 2**32)' \
        || die "64-bit system needed: this Python has 32 bits, and OpenCV and NumPy offer no packages for it"
    python3 -c 'import ensurepip, venv' 2>/dev/null || die "needs python3-venv: apt install python3-venv"
    board=$(printf '%s' "$code" | cut -d: -f2 | tr 'A-Z' 'a-z')
    say "this puts fogmqtt @VERSION@ into $prefix, joins the gateway @GATEWAY@ as $board,"
    if has_service; then
        say "and starts the service fog-device as the user fogmqtt. To undo it: sudo sh join.sh --uninstall"
    else
        say "and starts nothing. To undo it: sh join.sh --uninstall --prefix $prefix"
    fi
    mkdir -p "$prefix" 2>/dev/null && [ -w "$prefix" ] \
        || die "$prefix cannot be written; if the system is read-only, let it be written for this one command, or give --prefix DIR"
    download=$(mktemp -d)
    trap 'rm -rf "$download"' EXIT
    trap 'exit 1' HUP INT TERM
    curl -fsSk --pinnedpubkey "$pin" -o "$download/$wheel" "https://$host/$wheel" \
        || die "the gateway at $host gives no package; is an invitation still open? (fog-gateway invites)"
    if [ -x "$prefix/bin/fog-device" ]; then
        say "$("$prefix/bin/fog-device" --version | head -n 1) is here, and fogmqtt @VERSION@ takes its place"
    fi
    # What a failed try leaves can be taken away, too.
    printf '%s\n' "$board" >"$prefix/board"
    [ -x "$prefix/bin/python" ] || python3 -m venv "$prefix"
    pip="$prefix/bin/python -m pip install --quiet --disable-pip-version-check"
    say "installing"
    $pip "$download/$wheel[join]" || die "the packages cannot be installed; pip says why above"
    # The same number may stand for other files while fogmqtt is developed.
    $pip --no-deps --force-reinstall "$download/$wheel"
    launcher=$("$prefix/bin/python" -c 'from fogmqtt.joining.versions import LAUNCHER; print(LAUNCHER)')
    # What a gateway sent before is older than this.
    rm -rf "$versions"
    "$prefix/bin/fog-device" join "$code" --gateway "$host"
    if has_service; then
        "$prefix/bin/fog-device" --id "$board" service install ${root:+--root "$root"}
    else
        printf '#!/bin/sh\nexec sh "%s" "%s" "%s" @TRIAL@ --id "%s" "$@"\n' \
            "$launcher" "$prefix" "$versions" "$board" >"$prefix/start"
        chmod +x "$prefix/start"
        say "start the board with: $prefix/start"
    fi
}

uninstall() {
    [ -f "$prefix/board" ] || die "fogmqtt is not in $prefix"
    board=$(cat "$prefix/board")
    if [ -x "$prefix/bin/fog-device" ]; then
        if has_service; then
            "$prefix/bin/fog-device" --id "$board" service uninstall ${root:+--root "$root"}
        fi
        "$prefix/bin/fog-device" --id "$board" forget
    fi
    rm -rf "$prefix"
    if [ -z "$own$root" ]; then
        rm -rf /var/cache/fogmqtt "$versions"
        ! id fogmqtt >/dev/null 2>&1 || userdel fogmqtt
    fi
    say "$board is taken away; on the gateway: fog-gateway revoke $board"
}

has_service() {
    [ -z "$own" ] || [ -n "$root" ]
}

say() {
    echo "join.sh: $*"
}

die() {
    echo "join.sh: $*" >&2
    exit 1
}

main "$@"
