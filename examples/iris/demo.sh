#!/bin/sh
# The main job end to end, in build/demo: train twice, list, mount, compare, copy the best commit out. `make demo` runs it.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
demo=$root/build/demo
PATH=$root/bin:$PATH
PYTHONPATH=$root/python
REPLICATE_BINARY=$root/bin/replicate
XDG_CACHE_HOME=$demo/cache
export PATH PYTHONPATH REPLICATE_BINARY XDG_CACHE_HOME

say() { printf '\n# %s\n' "$*"; }
run() {
	printf '$ %s\n' "$*"
	"$@"
}

mounted() { grep -q " $demo/iris/mnt fuse.replicate" /proc/mounts; }
cleanup() { if mounted; then replicate umount "$demo/iris/mnt"; fi; }
trap cleanup EXIT
cleanup
rm -rf "$demo"
mkdir -p "$demo"
cp -R "$here" "$demo/iris"
cd "$demo/iris"

say "train twice: a commit each epoch"
run python3 train.py --learning_rate=0.01
run python3 train.py --learning_rate=0.2

say "list the experiments"
run replicate ls

say "mount them: experiments and commits are directories"
mkdir mnt
run replicate mount mnt
run ls mnt mnt/latest mnt/experiments
run ls mnt/latest/commits | head -n 5
echo ...
run head -n 4 mnt/latest/metrics.csv

say "what changed between the first and the last commit of the last run"
first=$(ls -d mnt/latest/commits/* | head -n 1)
last=$(ls -d mnt/latest/commits/* | tail -n 1)
run diff -r --brief "$first" "$last" || true

say "copy the best commit out, and use the model in it"
best=$(replicate ls -q -s loss.best | head -n 1)
short=$(printf %.7s "$best")
rm -rf "$demo/best"
run cp -r "mnt/experiments/$short/best/" "$demo/best"
run python3 predict.py "$demo/best/model.json"

run replicate umount mnt

cat <<END

It works. Go on from here:

    cd ${demo#"$PWD"/}/iris
    export PATH=$root/bin:\$PATH PYTHONPATH=$root/python
    replicate show $short            # one experiment
    replicate diff $short@1 $short   # what changed since its step 1
    replicate mount mnt              # then: ls, cd, cp, diff, grep
    replicate umount mnt
END
