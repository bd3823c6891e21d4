#!/bin/sh
# broker/add-user.sh NAME: give a device, a gateway or a program a new password.
# The file is broker/passwords, or what FOGMQTT_PASSWORDS names.
set -eu

usage() {
    echo "usage: $0 NAME    (1 to 32 of a-z 0-9 _ -; a device's id is its user name)" >&2
    exit 2
}

[ $# -eq 1 ] || usage
name=$1
printf '%s\n' "$name" | LC_ALL=C grep -Eqx '[a-z0-9][a-z0-9_-]{0,31}' || usage
command -v mosquitto_passwd >/dev/null || {
    echo "$0: mosquitto_passwd is missing: sudo apt install mosquitto" >&2
    exit 1
}

file=${FOGMQTT_PASSWORDS:-$(dirname "$0")/passwords}
password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
umask 077
[ -e "$file" ] || : >"$file"
mosquitto_passwd -b "$file" "$name" "$password"
# Started by root, Mosquitto reads the file as its own user when it is told to reload.
if [ "$(id -u)" -eq 0 ] && id mosquitto >/dev/null 2>&1; then
    chown mosquitto "$file"
fi

cat <<END
$name is in $file. Where $name runs:
  FOGMQTT_BROKER__USERNAME=$name
  FOGMQTT_BROKER__PASSWORD=$password
This is the only time that the password is shown. A running broker takes it after a SIGHUP.
END
