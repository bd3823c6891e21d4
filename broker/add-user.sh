#!/bin/sh
# Adds a user to the broker, or gives one a new password, and writes the access list anew:
#
#   broker/add-user.sh device eya           a device; its id is its user name
#   broker/add-user.sh gateway mariem       a serving gateway; its id is its user name
#   broker/add-user.sh run mariem-run       one-off commands of the gateway mariem
#   broker/add-user.sh adopt mariem-adopt   `fog-gateway adopt` of the gateway mariem
#   broker/add-user.sh app camera           a program that submits images; its reply name is its user name
#   broker/add-user.sh dashboard page       a dashboard
#   broker/add-user.sh homeassistant ha     Home Assistant
#   broker/add-user.sh remove eya           the user is no longer let in
#
# It writes the files users, passwords and acl in the folder of this script, or in the one that FOGMQTT_BROKER_FILES
# names. The file roles says what each role may do; lines of your own go to acl.own. FOGMQTT_PREFIX is wire.prefix.
set -eu

here=$(dirname "$0")
folder=${FOGMQTT_BROKER_FILES:-$here}
prefix=${FOGMQTT_PREFIX:-fog/v1}
users=$folder/users
passwords=$folder/passwords
acl=$folder/acl
mark="# Written by broker/add-user.sh: it is written anew for each user. Lines of your own go to acl.own."

usage() {
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    echo "A name has 1 to 32 of a-z 0-9 _ - and begins with a letter or digit." >&2
    exit 2
}

fail() {
    echo "$0: $1" >&2
    exit 1
}

[ $# -eq 2 ] || usage
role=$1
name=$2
case $name in
    '' | [!a-z0-9]* | *[!a-z0-9_-]*) usage ;;
esac
[ ${#name} -le 32 ] || usage
case $role in
    device | gateway | run | adopt | app | dashboard | homeassistant | remove) ;;
    *) usage ;;
esac
[ "$role $name" != "device local" ] || fail "local is the gateway's own id; choose another name"
command -v mosquitto_passwd >/dev/null || fail "mosquitto_passwd is missing: sudo apt install mosquitto"
if [ -e "$acl" ] && [ "$(head -n 1 "$acl")" != "$mark" ]; then
    fail "$acl is not by this script: move lines of your own to $folder/acl.own, and remove it"
fi

umask 077
new=$(mktemp -d "$folder/.users.XXXXXX")
trap 'rm -rf "$new"' EXIT
trap 'exit 1' HUP INT TERM
touch "$users" "$passwords"

# The list of users: a role and a name in each line.
awk -v name="$name" '$2 != name' "$users" >"$new/users"
[ "$role" = remove ] || printf '%s %s\n' "$role" "$name" >>"$new/users"

# The password is in no command line, which every user of this machine could read.
awk -F : -v name="$name" '$1 != name' "$passwords" >"$new/passwords"
if [ "$role" != remove ]; then
    password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    printf '%s:%s\n' "$name" "$password" >"$new/password"
    mosquitto_passwd -U "$new/password"
    cat "$new/password" >>"$new/passwords"
fi

# The access list.
{
    echo "$mark"
    awk -v prefix="$prefix" '
        function put(line, word, kind,    i) {
            if (index(line, word)) {
                for (i = 1; i <= count; i++)
                    if (index(kind, " " role[i] " "))
                        print replaced(line, word, name[i])
            } else
                print line
        }
        function replaced(line, word, by,    at) {
            at = index(line, word)
            return at ? substr(line, 1, at - 1) by substr(line, at + length(word)) : line
        }
        FNR == NR { count++; role[count] = $1; name[count] = $2; next }
        /^#/ || NF != 3 { next }
        { lines++; of[lines] = $1; rule[lines] = "topic " $2 " " $3 }
        END {
            for (user = 1; user <= count; user++) {
                print "\nuser " name[user]
                for (n = 1; n <= lines; n++) {
                    if (of[n] != role[user])
                        continue
                    line = replaced(replaced(rule[n], "PREFIX", prefix), "NAME", name[user])
                    if (index(line, "DEVICE")) put(line, "DEVICE", " device ")
                    else if (index(line, "SERVER")) put(line, "SERVER", " gateway ")
                    else if (index(line, "GATEWAY")) put(line, "GATEWAY", " gateway run adopt ")
                    else put(line, "APP", " app ")
                }
            }
        }' "$new/users" "$here/roles"
    [ ! -e "$folder/acl.own" ] || { echo && cat "$folder/acl.own"; }
} >"$new/acl"

# If root starts Mosquitto, it reads the files as its own user after a SIGHUP.
if [ "$(id -u)" -eq 0 ] && id mosquitto >/dev/null 2>&1; then
    chown mosquitto "$new/passwords" "$new/acl"
fi
for file in passwords acl users; do
    mv "$new/$file" "$folder/$file"
done

if [ "$role" = remove ]; then
    echo "$name is removed. A running broker disconnects it after a SIGHUP."
    exit
fi
cat <<END
$name is in $passwords, as $role. Where $name runs:
  FOGMQTT_BROKER__USERNAME=$name
  FOGMQTT_BROKER__PASSWORD=$password
The password is not shown again. A running broker reads the files after a SIGHUP.
END
