#!/bin/sh
# Makes a private certificate authority, the broker's certificate, and one for each client:
#
#   broker/make-certs.sh broker raspberry.local 192.168.1.10    all names that clients use
#   broker/make-certs.sh client mariem eya oumayma manar        one for each user name
#
# The files go to broker/certs, or to the folder that FOGMQTT_CERTS names. Existing files are kept:
# remove a file to renew it. ca.key can sign any identity: do not copy it to the boards.
set -eu

DAYS=825
CA_DAYS=3650

usage() {
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

make_key_and_request() { # NAME
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
        -subj "/CN=$1" -keyout "$dir/$1.key" -out "$dir/$1.csr" 2>/dev/null
}

make_ca() {
    [ -e "$dir/ca.crt" ] && return
    cat >"$dir/ca.cnf" <<END
[req]
distinguished_name = name
x509_extensions = ca
prompt = no
[name]
CN = fogmqtt private CA
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
END
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days $CA_DAYS \
        -config "$dir/ca.cnf" -keyout "$dir/ca.key" -out "$dir/ca.crt" 2>/dev/null
    rm "$dir/ca.cnf"
    echo "made $dir/ca.crt"
}

sign() { # NAME USAGE [SUBJECT_ALT_NAMES]
    if [ -e "$dir/$1.crt" ]; then
        echo "kept $dir/$1.crt"
        return
    fi
    make_key_and_request "$1"
    {
        echo "basicConstraints = critical, CA:FALSE"
        echo "keyUsage = critical, digitalSignature"
        echo "extendedKeyUsage = $2"
        echo "subjectKeyIdentifier = hash"
        echo "authorityKeyIdentifier = keyid"
        [ -z "${3:-}" ] || echo "subjectAltName = $3"
    } >"$dir/$1.ext"
    openssl x509 -req -in "$dir/$1.csr" -CA "$dir/ca.crt" -CAkey "$dir/ca.key" -CAcreateserial \
        -days $DAYS -sha256 -extfile "$dir/$1.ext" -out "$dir/$1.crt" 2>/dev/null
    rm "$dir/$1.csr" "$dir/$1.ext"
    echo "made $dir/$1.crt"
}

alternative_names() { # NAME...
    names=
    for name in "$@"; do
        case $name in
            *:*) kind=IP ;;
            *[!0-9.]*) kind=DNS ;;
            *) kind=IP ;;
        esac
        names="$names${names:+,}$kind:$name"
    done
    echo "$names"
}

[ $# -ge 2 ] || usage
what=$1
shift
dir=${FOGMQTT_CERTS:-$(dirname "$0")/certs}
umask 077
mkdir -p "$dir"
case $what in
    broker)
        make_ca
        sign broker serverAuth "$(alternative_names "$@")"
        ;;
    client)
        for name in "$@"; do
            case $name in
                '' | [!a-z0-9]* | *[!a-z0-9_-]* | ?????????????????????????????????*)
                    echo "$0: $name is not an id: use 1 to 32 of the characters a-z 0-9 _ -" >&2
                    exit 2
                    ;;
            esac
            case $name in
                ca | broker)
                    echo "$0: this script uses the file name $name; choose another user name" >&2
                    exit 2
                    ;;
            esac
        done
        make_ca
        for name in "$@"; do
            sign "$name" clientAuth
        done
        ;;
    *) usage ;;
esac
# If root starts Mosquitto, it opens its key as its own user.
if [ "$(id -u)" -eq 0 ] && id mosquitto >/dev/null 2>&1; then
    chown mosquitto "$dir"
    [ ! -e "$dir/broker.key" ] || chown mosquitto "$dir/broker.key" "$dir/broker.crt" "$dir/ca.crt"
fi
