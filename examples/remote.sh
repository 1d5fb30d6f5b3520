#!/bin/sh
# Trains the classifier on other machines at once, one learning rate each, and lists what came of it:
#
#     ./remote.sh HOST [HOST]
#
# A HOST is what ssh calls a machine that has Docker.
set -eu
[ $# -gt 0 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
cd "$(dirname "$0")/iris"
rate=1
for host; do
	replicate run -H "$host" python train.py --learning_rate=0.0$rate --num_epochs=20 >"/tmp/iris-$rate.log" 2>&1 &
	pids="${pids:-} $!"
	rate=$((rate + 4))
done
failed=0
for pid in $pids; do
	wait "$pid" || failed=1
done
replicate ls -s loss.best
exit $failed
