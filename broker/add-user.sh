#!/bin/sh
# broker/add-user.sh NAME: set a new password for a device, a gateway or a program.
# The password file is broker/passwords, or the file that FOGMQTT_PASSWORDS names.
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
# If root starts Mosquitto, it reads the file as its own user after a SIGHUP.
if [ "$(id -u)" -eq 0 ] && id mosquitto >/dev/null 2>&1; then
    chown mosquitto "$file"
fi

cat <<END
$name is in $file. Where $name runs:
  FOGMQTT_BROKER__USERNAME=$name
  FOGMQTT_BROKER__PASSWORD=$password
The password is not shown again. A running broker reads the file after a SIGHUP.
END
