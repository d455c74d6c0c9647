#!/usr/bin/env bash
# A Prefect server on this machine with both work pools, every deployment and one worker a pool.
# Runs in the foreground; Ctrl-C stops all of it. The server's data lies under UP_HOME.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN="$PWD/${VENV:-.venv}/bin"
UP_HOME="${UP_HOME:-$PWD/out/prefect}"
PORT="${PORT:-4200}"
mkdir -p "$UP_HOME"
export PREFECT_HOME="$UP_HOME" PREFECT_API_URL="http://127.0.0.1:$PORT/api"
export PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1 PREFECT_FLOWS_HEARTBEAT_FREQUENCY=30

children=()
stop() { trap - EXIT INT TERM; kill "${children[@]}" 2>/dev/null || true; wait; }
trap stop EXIT INT TERM

"$BIN/prefect" server start --host 127.0.0.1 --port "$PORT" >"$UP_HOME/server.log" 2>&1 &
children+=($!)
for _ in $(seq 120); do
    "$BIN/python" -c "import urllib.request as u; u.urlopen('$PREFECT_API_URL/health', timeout=2)" 2>/dev/null && break
    kill -0 "${children[0]}" 2>/dev/null || { echo "the server stopped; see $UP_HOME/server.log"; exit 1; }
    sleep 1
done

for pool in cpu-pool gpu-pool; do
    "$BIN/prefect" work-pool inspect "$pool" >/dev/null 2>&1 || "$BIN/prefect" work-pool create "$pool" --type process
done
"$BIN/prefect" work-pool set-concurrency-limit gpu-pool 1
"$BIN/prefect" --no-prompt deploy --all

for pool in cpu-pool gpu-pool; do
    PROJECT_ROOT="$PWD" "$BIN/prefect" worker start --pool "$pool" --name "$pool-worker" >"$UP_HOME/$pool.log" 2>&1 &
    children+=($!)
done
echo "Prefect UI: http://127.0.0.1:$PORT   logs: $UP_HOME/*.log   stop: Ctrl-C"
wait
