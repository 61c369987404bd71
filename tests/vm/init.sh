#!/bin/sh
# Process 1 of the emulated machine, run by busybox. Makes the host's root writable in memory, and runs the job in it.
export PATH=/bin

finish() {
	echo "$1" >/results/status
	sync
	reboot -f # QEMU has -no-reboot: it ends
}

/bin/busybox --install -s /bin
mkdir -p /proc /dev /host /memory /machine /results
mount -t proc proc /proc
mount -t devtmpfs dev /dev
while read -r module; do # in an order in which each finds what it depends on
	insmod "/modules/$module" || echo "init: insmod $module failed"
done </modules/order

nine="trans=virtio,version=9p2000.L,msize=512000"
mount -t 9p -o "$nine" results /results || reboot -f
mount -t 9p -o "$nine,ro,cache=loose" host /host || finish "no root of the host"
mount -t tmpfs memory /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work root /machine || finish "no overlay"

mount -t proc proc /machine/proc
mount -t sysfs sys /machine/sys
mount -t devtmpfs dev /machine/dev
mount -t tmpfs run /machine/run
mount -t bpf bpf /machine/sys/fs/bpf
mkdir -p /machine/dev/pts /machine/dev/shm /machine/run/results "/machine/lib/modules/$(uname -r)"
mount -t devpts pts /machine/dev/pts
mount -t tmpfs shm /machine/dev/shm
mount --bind /results /machine/run/results
# For modprobe, by the path that the host has them at.
mount --bind "/machine$(cat /modules/tree)" "/machine/lib/modules/$(uname -r)"
# The kernel looks for modprobe here, not in the root of the process that needs a module.
mkdir /sbin
printf '#!/bin/sh\nexec chroot /machine /sbin/modprobe "$@"\n' >/sbin/modprobe
chmod +x /sbin/modprobe

: >/results/booted
chroot /machine /bin/sh /run/results/job
finish $?
