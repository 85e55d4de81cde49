#!/bin/bash
# PID 1 of one host of hosts.py, in namespaces of its own. Told by variables: NAME, ADDRESS (its IP), GATEWAY, KEYS (a
# folder), KEPT (paths, one a line, that stay visible where a private folder covers them), BIN (put on PATH), SHM (size).
# A line on its standard input says that eth0 is there; its end ends the host, so that no host outlives the tests.
set -eu

hostname "$NAME"
mount -t tmpfs -o size=1m tmpfs /mnt
count=0
while IFS= read -r path; do
    mkdir "/mnt/$count"
    mount --rbind "$path" "/mnt/$count"
    count=$((count + 1))
done <<<"$KEPT"

mount -t tmpfs -o size=4g,mode=1777 tmpfs /tmp
mount -t tmpfs -o size="$SHM",mode=1777 tmpfs /dev/shm
mount -t tmpfs -o size=64m,mode=755 tmpfs /run
mount -t tmpfs -o size=1g,mode=700 tmpfs /root

count=0
while IFS= read -r path; do
    mkdir -p "$path"
    mount --rbind "/mnt/$count" "$path"
    count=$((count + 1))
done <<<"$KEPT"
umount --recursive --lazy /mnt

# Ray finds its own address by the name of its host. No name server can be reached: asking shall fail at once.
printf '127.0.0.1 localhost\n%s %s\n' "$ADDRESS" "$NAME" >/run/hosts
mount --bind /run/hosts /etc/hosts
echo 'nameserver 127.0.0.1' >/run/resolv.conf
mount --bind /run/resolv.conf "$(realpath /etc/resolv.conf)"

mkdir -m 700 /root/.ssh
mkdir -p /run/sshd /run/lock
install -m 600 "$KEYS/user.pub" /root/.ssh/authorized_keys
printf 'export PATH=%s:$PATH\n' "$BIN" >/root/.bashrc
cat >/run/sshd_config <<END
ListenAddress $ADDRESS
HostKey $KEYS/host
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
PidFile none
MaxStartups 50
MaxSessions 50
Subsystem sftp internal-sftp
END

read -r _
ip link set lo up
ip address add "$ADDRESS/24" dev eth0
ip link set eth0 up
ip route add default via "$GATEWAY"
cd /root
env -i HOME=/root PATH="$PATH" /usr/sbin/sshd -D -e -f /run/sshd_config </dev/null &
read -r _ || true
