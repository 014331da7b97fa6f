#!/usr/bin/env bash
# Run a server as the deployment files want it: another root that is read-only, a user with no privileges, no network
# but loopback, no memory that is both writable and executable. To be started by `unshare --mount --net`, as root.
#
#   sandbox.sh PREFIX BASE PROJECT FILES DATA PROBE SERVER...
#
# PREFIX is the Python environment that stands for `/opt/pdp`, made with the Python in BASE.
# FILES holds what becomes `/etc/pdp` and `/run/pdp`; DATA becomes `/var/lib/pdp`. PROBE is a command line.
set -euo pipefail
umask 022
prefix=$1 base=$2 project=$3 files=$4 data=$5 probe=$6
shift 6

root=$(mktemp -d)
mount -t tmpfs -o mode=755 none "$root"
mkdir -p "$root"/{usr,proc,dev,opt/pdp,etc,run,var/lib/pdp,var/lib/pdp-record} "$root$prefix" "$root$base" "$root$project/pdp"
for name in bin lib lib64; do
  if [ -L "/$name" ]; then cp -P "/$name" "$root/"; elif [ -d "/$name" ]; then mkdir "$root/$name"; mount --bind "/$name" "$root/$name"; fi
done
for name in usr proc dev; do mount --rbind "/$name" "$root/$name"; done
# Not the whole project: it may lie in a folder that only its owner can enter.
for place in "$base" "$project/pdp"; do mount --bind "$place" "$root$place"; done
for place in "$root/opt/pdp" "$root$prefix"; do mount --bind "$prefix" "$place"; done
cp -a "$files"/. "$root/"
mount --bind "$data" "$root/var/lib/pdp"
# Where the manifests have a volume of its own for the record: as the platform makes it.
mount -t tmpfs -o uid=0,gid=65532,mode=2775 none "$root/var/lib/pdp-record"
for place in usr opt/pdp "${prefix#/}" "${base#/}" "${project#/}/pdp"; do mount -o remount,bind,ro "$root/$place"; done
mount -o remount,ro "$root"
ip link set lo up

locked=(/usr/bin/setpriv --reuid=65532 --regid=65532 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all)
# PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN: what systemd calls MemoryDenyWriteExecute.
strict='import ctypes, os, sys; assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0; os.execv(sys.argv[1], sys.argv[1:])'
inside() {
  exec chroot "$root" /usr/bin/env -i PYTHONPATH="$project" PYTHONDONTWRITEBYTECODE=1 \
    "${locked[@]}" /opt/pdp/bin/python3 -c "$strict" "$@"
}

exec 3< <(inside "$@")
server=$!
read -r line <&3
echo "$line"
# Words of a command line without quotes, as the deployment files have them.
# shellcheck disable=SC2086
(inside $probe) && echo "probe 0"
(inside /opt/pdp/bin/pdp doctor --config /etc/pdp/pdp.yaml --json) && echo "doctor 0"
(inside /usr/bin/touch /etc/pdp/x) 2>/dev/null || echo "read-only"
kill -TERM "$server"
wait "$server" && echo "stopped 0"
