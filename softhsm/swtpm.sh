#!/bin/sh
# A software TPM for development: swtpm on two ports of the loopback, its state in a folder.
#
#   softhsm/swtpm.sh start DIR PORT    starts it and waits until it serves; PORT and PORT+1 must be free
#   softhsm/swtpm.sh stop DIR          ends it in order
#
# Not for production: the ports have no password, so every local user can use, flush or clear this TPM, and the state in DIR
# is not encrypted and is not safe against a power cut. Choose PORT below 32768: above, the system hands ports out to
# outgoing connections, of which each TPM command is one.
set -eu

usage() {
    echo "usage: $0 start DIR PORT | stop DIR" >&2
    exit 2
}

fail() {
    echo "$0: $1" >&2
    echo "hint: $2" >&2
    exit 1
}

# The process whose number is in the pid file, if it is a running swtpm of that folder.
running() {
    pid=$(cat "$1/pid" 2>/dev/null) || return 1
    tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF "tpmstate dir=$1 " || return 1
    echo "$pid"
}

answers() {
    TPM2TOOLS_TCTI="swtpm:host=127.0.0.1,port=$1" tpm2_getrandom 1 >/dev/null 2>&1
}

start() {
    command -v swtpm >/dev/null || fail "swtpm is not installed" "apt-get install swtpm tpm2-tools libtss2-tcti-swtpm0"
    command -v tpm2_getrandom >/dev/null || fail "tpm2-tools are not installed" "apt-get install tpm2-tools"
    mkdir -p -m 700 "$1"
    dir=$(cd "$1" && pwd)
    port=$2
    if running "$dir" >/dev/null; then
        fail "a TPM already runs in $dir" "$0 stop $dir"
    fi
    rm -f "$dir/pid"
    swtpm socket --tpm2 --daemon \
        --tpmstate "dir=$dir" \
        --server "type=tcp,port=$port,bindaddr=127.0.0.1" \
        --ctrl "type=tcp,port=$((port + 1)),bindaddr=127.0.0.1" \
        --flags not-need-init,startup-clear \
        --pid "file=$dir/pid" \
        --log "file=$dir/log,level=1" ||
        fail "swtpm does not start" "are the ports $port and $((port + 1)) free? see $dir/log"
    tries=0
    until running "$dir" >/dev/null && answers "$port"; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || fail "swtpm does not serve after 5 s" "see $dir/log"
        sleep 0.05
    done
    echo "tcti = \"swtpm:host=127.0.0.1,port=$port\""
}

stop() {
    [ -d "$1" ] || fail "there is no folder $1" "give the folder that was started"
    dir=$(cd "$1" && pwd)
    pid=$(running "$dir") || exit 0
    kill "$pid"
    tries=0
    while running "$dir" >/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || fail "swtpm ($pid) does not end after 5 s" "kill -9 $pid; its state survives that"
        sleep 0.05
    done
    rm -f "$dir/pid"
}

case "${1-}" in
start)
    [ $# -eq 3 ] || usage
    case "$3" in
    '' | *[!0-9]*) usage ;;
    esac
    start "$2" "$3"
    ;;
stop)
    [ $# -eq 2 ] || usage
    stop "$2"
    ;;
*) usage ;;
esac
