#!/bin/sh
# Boots ROOT as a container: boot.sh ROOT WORK CGROUP MACHINE. Run it in a mount namespace of its own, which keeps the
# mounts away from the host and takes them along when it ends. What the container writes goes to memory.
set -eu

root=$1
work=$2
cgroup=$3
machine=$4

# Without a cgroup of its own, the container's services would live among the host's.
mkdir "$cgroup"
echo $$ >"$cgroup/cgroup.procs"
mount -t tmpfs -o size=2G,mode=755 container "$work"
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay -o "lowerdir=$root,upperdir=$work/upper,workdir=$work/work" container "$work/root"
# Debian 13 boots with cgroup2 only. nspawn's seccomp filter would deny bpf() to services, whatever capabilities they have.
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
status=133 # what nspawn ends with when the container reboots
while [ "$status" = 133 ]; do
	status=0
	systemd-nspawn --directory="$work/root" --register=no --keep-unit --boot --console=pipe --machine="$machine" \
		--capability=all --network-namespace-path="/run/netns/$machine" \
		--system-call-filter=bpf || status=$?
done
exit "$status"
