# inside.sh DIR CGROUP: process 1 of a host. Everything it started, and every mount, goes with it when standard input ends.
set -eu
dir=$1
read -r pid _ </proc/self/stat # as the machine around counts, while its /proc is still the one here
mount --make-rprivate /
umount -alt fuse.replicate # a mount of another test would not end while there is a copy of it
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
if [ -f "$dir/disk" ]; then
	mount -t tmpfs -o "size=$(cat "$dir/disk"),mode=711" tmpfs "$dir/data"
fi
base=$(cat "$dir/base")
for name in "$base"/*; do
	if [ "${name##*/}" = overlay2 ] && [ ! -f "$dir/disk" ]; then
		cp -al "$name" "$dir/data/" # layers are never written to
	else
		cp -a "$name" "$dir/data/"
	fi
done

mkdir -p /run/lab /run/sshd /run/etc /run/etc.work
mount --rbind "$dir" /run/lab
dir=/run/lab # the directory may lie in a home
mount -t tmpfs -o mode=700 tmpfs /root
mount -t tmpfs -o mode=755 tmpfs /home
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc.work overlay /etc

hostname "$(cat "$dir/name")"
ip link set lo up
echo 'nameserver 127.0.0.1' >/etc/resolv.conf # nobody answers there, and at once: there is no way out of the laboratory
for user in dev:10781 alice:10782; do
	name=${user%:*} id=${user#*:}
	echo "$name:x:$id:$id::/home/$name:/bin/bash" >>/etc/passwd
	echo "$name:*:19000:0:99999:7:::" >>/etc/shadow
	echo "$name:x:$id:" >>/etc/group
	install -d -m 700 -o "$id" -g "$id" "/home/$name"
done
sed -i 's/^docker:.*/&dev/' /etc/group # dev may use Docker, alice may not

sh "$dir/sshd.sh"
sh "$dir/dockerd.sh"
echo "$pid" >"$dir/pid.new"
mv "$dir/pid.new" "$dir/pid"
cat >/dev/null 3>&-
