# sshd.sh: starts the host's sshd anew. The connections that it has stay.
set -eu
dir=$(dirname "$0")
if [ -f /run/sshd.pid ]; then
	pid=$(cat /run/sshd.pid)
	kill "$pid"
	while kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
	rm -f /run/sshd.pid
fi
/usr/sbin/sshd -f "$dir/sshd_config" -E "$dir/sshd.log" 3>&- </dev/null >/dev/null 2>&1
for _ in $(seq 1000); do # it writes this when it listens
	[ -s /run/sshd.pid ] && exit
	sleep 0.01
done
echo 'sshd does not start' >&2
exit 1
