# dockerd.sh [ARG...]: starts the host's Docker anew.
set -eu
dir=$(dirname "$0")
if [ -f /run/docker.pid ]; then
	pid=$(cat /run/docker.pid)
	kill "$pid" 2>/dev/null || true
	while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
	rm -f /run/docker.pid
fi
PATH="$dir/bin:$PATH" setsid dockerd --data-root "$dir/data" --exec-root /run/docker --pidfile /run/docker.pid \
	--host unix:///var/run/docker.sock --cgroup-parent "$(cat "$dir/cgroup")" "$@" 3>&- </dev/null >>"$dir/dockerd.log" 2>&1 &
