#!/bin/sh
# Makes a SoftHSM token for development and tests, in a folder of its own:
#
#   softhsm/token.sh FOLDER LABEL PIN_FILE
#
#   FOLDER/softhsm2.conf   the configuration: point SOFTHSM2_CONF to it
#   FOLDER/tokens/         the token; `sync_dir` of the device's configuration
#   FOLDER/so-pin          the security officer's PIN, made here, needed to set a new user PIN
#   PIN_FILE               the user's PIN, one line; made here if it is not there yet
#
# It may be run again: a token of that label is left as it is. It never touches a folder that holds another token, because
# initialising erases. PINs are handed on in the environment, which only the same user can read, never in arguments.
#
# SoftHSM keeps keys in files. It is a stand-in for a device, not a protection: do not keep real keys in it.
set -eu
umask 077

if [ $# -ne 3 ]; then
    echo "usage: $0 FOLDER LABEL PIN_FILE" >&2
    exit 2
fi
folder=$1 label=$2 pin_file=$3
module=${SOFTHSM_MODULE:-/usr/lib/softhsm/libsofthsm2.so}

for need in pkcs11-tool od; do
    command -v "$need" >/dev/null || { echo "$0: no $need: install the packages softhsm2, opensc and coreutils" >&2; exit 1; }
done
[ -r "$module" ] || { echo "$0: no $module: install softhsm2, or set SOFTHSM_MODULE" >&2; exit 1; }

# 20 random digits: within the limits of every token.
random_pin() {
    od -An -N20 -tu1 /dev/urandom | tr -s ' \n' '\n\n' | sed '/^$/d; s/.*\(.\)$/\1/' | tr -d '\n'
    echo
}

mkdir -p "$folder/tokens"
folder=$(cd "$folder" && pwd)
export SOFTHSM2_CONF="$folder/softhsm2.conf"
if [ ! -e "$SOFTHSM2_CONF" ]; then
    cat >"$SOFTHSM2_CONF" <<CONF
directories.tokendir = $folder/tokens
# The only store that Debian builds.
objectstore.backend = file
log.level = ERROR
# Without this, a token can vanish from its slot while it is in use.
slots.removable = false
# The worker process never forks.
library.reset_on_fork = false
CONF
fi

if pkcs11-tool --module "$module" --list-token-slots 2>/dev/null | grep -q "token label *: $label\$"; then
    exit 0
fi
if [ -n "$(ls -A "$folder/tokens")" ]; then
    echo "$0: $folder/tokens holds another token, or a damaged one: take another folder" >&2
    exit 1
fi

[ -e "$pin_file" ] || random_pin >"$pin_file"
[ -e "$folder/so-pin" ] || random_pin >"$folder/so-pin"
SIGNET_PIN=$(cat "$pin_file") SIGNET_SO_PIN=$(cat "$folder/so-pin")
export SIGNET_PIN SIGNET_SO_PIN
pkcs11-tool --module "$module" --init-token --label "$label" --so-pin env:SIGNET_SO_PIN >/dev/null 2>&1 ||
    { echo "$0: the token could not be initialised in $folder/tokens" >&2; exit 1; }
pkcs11-tool --module "$module" --token-label "$label" --login --login-type so --so-pin env:SIGNET_SO_PIN \
    --init-pin --new-pin env:SIGNET_PIN >/dev/null 2>&1 ||
    { echo "$0: the PIN could not be set: it needs 4 to 255 characters" >&2; exit 1; }
