#!/bin/sh
# Runs N chordkv nodes on loopback until Ctrl-C; see `make ring`.
#
#   ring.sh PROGRAM N
#
# Node k listens for peers on PEER_PORT+k-1 and for users on HTTP_PORT+k-1 (default 4000 and 8000).
# The nodes' standard input is a pipe that this script holds open. Whatever ends the script, even kill -9, ends the pipe,
# and with it the nodes: none is ever left over.
set -eu

program=$1
count=$2
peer_port=${PEER_PORT:-4000}
http_port=${HTTP_PORT:-8000}
dir=${RING_DIR:-target/ring}

case $count in
'' | *[!0-9]*) echo "make ring: N must be a number from 1 to 50, not '$count'" >&2; exit 2 ;;
esac
if [ "$count" -lt 1 ] || [ "$count" -gt 50 ]; then
    echo "make ring: N must be from 1 to 50, not $count" >&2
    exit 2
fi

# Keys stay in $dir/node-*: started again, the ring has them again.
mkdir -p "$dir"
rm -f "$dir"/node-*.log "$dir/alive"
alive=$dir/alive
mkfifo "$alive"
# Opened for both directions, so that opening does not wait for a reader.
exec 9<>"$alive"

pids=
end() {
    trap '' INT TERM
    # The end of the pipe tells the nodes to stop.
    exec 9>&-
    wait
    exit "$1"
}
trap 'echo; echo "stopping $count nodes"; end 0' INT TERM

start() { # k, further arguments
    k=$1
    shift
    "$program" node --listen "127.0.0.1:$((peer_port + k - 1))" --http "127.0.0.1:$((http_port + k - 1))" \
        --data-dir "$dir/node-$k" --log-level info --stop-with-stdin "$@" <"$alive" 2>"$dir/node-$k.log" 9>&- &
    pids="$pids $!"
}

k=1
while [ "$k" -le "$count" ]; do
    if [ "$k" -eq 1 ]; then start 1; else start "$k" --join "127.0.0.1:$peer_port"; fi
    k=$((k + 1))
done

# Whole: as many nodes as were started, in one ordered cycle. Only once each has said that it listens: until then whoever
# answers on its port is somebody else, such as a ring that runs already.
tries=0
while :; do
    listening=$(grep -l 'listening.*peers' "$dir"/node-*.log | wc -l)
    report=$("$program" ring --json --node "127.0.0.1:$http_port" 2>/dev/null || true)
    nodes=$(printf '%s\n' "$report" | grep -c '"incarnation"' || true)
    if [ "$listening" -eq "$count" ] && [ "$nodes" -eq "$count" ] &&
        printf '%s\n' "$report" | grep -q '"whole": *true'; then break; fi
    k=0
    for pid in $pids; do
        k=$((k + 1))
        if ! kill -0 "$pid" 2>/dev/null; then
            echo "make ring: node $k did not start:" >&2
            tail -n 1 "$dir/node-$k.log" >&2
            end 1
        fi
    done
    tries=$((tries + 1))
    if [ "$tries" -ge 1200 ]; then
        echo "make ring: the ring is not whole after a minute; see $dir/node-*.log" >&2
        end 1
    fi
    sleep 0.05
done

"$program" ring --node "127.0.0.1:$http_port"
missing=
k=$((count + 1))
if [ -e "$dir/node-$k" ]; then
    missing="
An earlier ring here had more nodes, and keys that they hold are not there without them: start as many, or rm -r $dir.
"
fi
cat <<END

$missing
Every node answers for every key, for example:
  curl -X PUT --data-binary 'world' http://127.0.0.1:$http_port/v1/kv/hello
  curl http://127.0.0.1:$((http_port + count - 1))/v1/kv/hello
Keys are in $dir/node-*, log lines in $dir/node-*.log. Ctrl-C stops all nodes; started again, the keys are there.
END
wait
# Only when every node has ended by itself.
end 0
