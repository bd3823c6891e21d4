#!/bin/sh
# Installs or updates a fogmqtt device on this board. Run it as root, as often as needed.
#
#   sudo devices/install.sh ID BROKER_URL      e.g.  sudo devices/install.sh eya mqtt://10.0.0.5:1883
#
# Existing files in /etc/fogmqtt are kept.
set -eu

log() { echo "install.sh: $*"; }
die() { echo "install.sh: $*" >&2; exit 1; }

[ $# -eq 2 ] || die "usage: install.sh ID BROKER_URL"
id=$1
url=$2
here=$(cd "$(dirname "$0")" && pwd)
config=/etc/fogmqtt/device.yaml

command -v python3 >/dev/null || die "needs Python 3.11 or newer: apt install python3"
python3 -c 'import sys; sys.exit(sys.maxsize < 2**32)' \
  || die "64-bit system needed: this Python has 32 bits, and OpenCV and NumPy offer no packages for it"
[ "$(id -u)" -eq 0 ] || die "needs root: sudo $0 $id $url"
echo "$id" | grep -Eqx '[a-z0-9][a-z0-9_-]{0,31}' \
  || die "'$id' is not an id: use 1 to 32 of the characters a-z, 0-9, _ and -, and begin with a letter or digit"
echo "$url" | grep -Eqx '(mqtts?|wss?)://[][A-Za-z0-9.:_/-]+(,(mqtts?|wss?)://[][A-Za-z0-9.:_/-]+)*' \
  || die "'$url' is not a broker url: use mqtt://host:1883, mqtts://host:8883 or wss://host/mqtt"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "needs Python 3.11 or newer"
python3 -c 'import ensurepip, venv' 2>/dev/null || die "needs python3-venv: apt install python3-venv"

if ! id fogmqtt >/dev/null 2>&1; then
  log "adding the user fogmqtt"
  useradd --system --user-group --no-create-home --shell /usr/sbin/nologin fogmqtt
fi

log "installing into /opt/fogmqtt"
[ -x /opt/fogmqtt/bin/python ] || python3 -m venv /opt/fogmqtt
/opt/fogmqtt/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "$here/.."

mkdir -p /etc/fogmqtt
if [ ! -e "$config" ]; then
  log "writing $config"
  sed -e "s|^  url: [^ ]*|  url: $url|" -e "s|^device:|device:\n  id: $id|" \
    "$here/raspberry-pi.yaml" >"$config"
else
  log "keeping $config"
fi
if [ ! -e /etc/fogmqtt/secrets ]; then
  (umask 077 && echo "#FOGMQTT_BROKER__PASSWORD=" >/etc/fogmqtt/secrets)
fi

install -m 644 "$here/fog-device.service" /etc/systemd/system/fog-device.service
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  systemctl enable --quiet fog-device
  systemctl restart fog-device
  log "$id is running; read its log with: journalctl -fu fog-device"
else
  log "systemd is not running here; start the device with: /opt/fogmqtt/bin/fog-device --config $config"
fi
