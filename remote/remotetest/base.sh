# base.sh DIR IMAGE: leaves in DIR/data what Docker has on its disk when it knows nothing but a base image of Debian with Python.
set -eu
build=$1 image=$2
mount --make-rprivate /
umount -alt fuse.replicate # a mount of another test would not end while there is a copy of it
mount -t proc proc /proc
rm -rf "$build"
mkdir -p "$build"
debootstrap --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates bookworm "$build/rootfs" >"$build/log" 2>&1 || {
	tail -3 "$build/log" >&2
	exit 1
}
ln -s python3 "$build/rootfs/usr/bin/python"
rm -rf "$build/rootfs/var/cache/apt/archives"/*.deb "$build/rootfs/var/lib/apt/lists"/*

mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/etc /run/etc.work
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc.work overlay /etc
dockerd --data-root "$build/data" --exec-root /run/docker --pidfile /run/docker.pid --host unix:///run/docker.sock \
	--bridge=none --iptables=false >"$build/log" 2>&1 &
daemon=$!
until /usr/bin/docker -H unix:///run/docker.sock version >/dev/null 2>&1; do
	kill -0 "$daemon" || { tail -3 "$build/log" >&2; exit 1; }
	sleep 0.1
done
tar -C "$build/rootfs" -c . | /usr/bin/docker -H unix:///run/docker.sock import \
	--change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin' --change 'CMD ["python3"]' - "$image"
kill "$daemon"
wait "$daemon"
