#!/bin/sh
# guard.sh DIR CGROUP: keeps one host of the laboratory in namespaces of its own for as long as standard input stays open, and leaves
# nothing behind. Descriptor 3 is the lock of the laboratory's place: whoever gets it next finds the place empty.
dir=$1 cgroup=$2
unshare --fork --kill-child --pid --net --mount --uts --ipc bash "$dir/inside.sh" "$dir" "$cgroup"
exec </dev/null
for root in /sys/fs/cgroup /sys/fs/cgroup/*; do
	if [ -d "$root$cgroup" ]; then
		find "$root$cgroup" -depth -type d -exec rmdir {} \; 2>/dev/null
	fi
done
rm -rf --one-file-system "$dir"
ls -d "${dir%/*}"/*/guard.sh >/dev/null 2>&1 || rm -rf --one-file-system "${dir%/*}" # the last host turns off the light
