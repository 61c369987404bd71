#!/bin/sh
# Installs what `make run` (argument: build), `make test` (test), `make test-matrix` (matrix), `make test-vm` (vm), or
# `make deb`, `make rpm` and `make test-packages` (packages) need and this machine lacks.
# It looks for the things themselves, not for packages: a tool that came another way is left alone.
set -eu

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # where a user's PATH lacks them
PYTHON=${PYTHON:-python3}
purpose=${1:-}
deb_missing=
rpm_missing=
unpackaged=

# need TEST DEB RPM: "-" where the distribution has no such package.
need() {
	eval "$1" >/dev/null 2>&1 && return
	deb_missing="$deb_missing $2"
	case $3 in
	-) unpackaged="$unpackaged $2" ;;
	*) rpm_missing="$rpm_missing $3" ;;
	esac
}

need_command() {
	need "command -v $1" "$2" "$3"
}

need_for_build() {
	need_command make make make
	need_command "$PYTHON" python3 python3
	# Debian takes ensurepip out of python3; other interpreters have it. venv asks for pip's wheels too.
	need "$PYTHON -c 'import ensurepip; ensurepip.version()'" "python3-venv" python3-pip
	need_command "${CLANG:-clang}" clang clang
	need_command "${LLVM_STRIP:-llvm-strip}" llvm llvm
	need "test -e /usr/include/bpf/bpf_helpers.h" libbpf-dev libbpf-devel
	need "test -e /usr/include/linux/bpf.h" linux-libc-dev kernel-headers
	need "ldconfig -p | grep -q 'libbpf\.so\.1 '" libbpf1 libbpf
}

need_for_test() {
	need_command git git git
	need_command gcc gcc gcc
	need "test -e /usr/include/stdio.h" libc6-dev glibc-devel
	need_command clang-format clang-format clang-tools-extra
	need_command shellcheck shellcheck ShellCheck
	need_command mandoc mandoc mandoc
	need_command man man-db man-db
	need_command ip iproute2 iproute
	need_command mkfs.ext4 e2fsprogs e2fsprogs
	need_command tc iproute2 iproute-tc
	need_command ethtool ethtool ethtool
	need_command bpftool bpftool bpftool
	for version in 16 19; do # besides the distribution's clang
		need_command "clang-$version" "clang-$version" -
		need_command "llvm-strip-$version" "llvm-$version" -
	done
	need_command tcpdump tcpdump tcpdump
	need "ldconfig -p | grep -q 'libpcap\.so\.[01]'" libpcap0.8 libpcap
	need_command tshark tshark wireshark-cli
	need_command text2pcap wireshark-common wireshark-cli # and with it mergecap and editcap
	need_command socat socat socat
	need_command openssl openssl openssl
	need_command iperf3 iperf3 iperf3
	need_command nfcapd nfdump nfdump
	need_command softflowd softflowd softflowd
	need_command nfacctd pmacct -
	need_command ipfixDump libfixbuf-tools -
	need_command node nodejs nodejs
	need_command npm npm npm
	need_command promtool prometheus -
}

# The distribution's own modules, for its own Python: what a package of netobs runs with, and pyroute2 for tests.
need_for_matrix() {
	[ -x /usr/bin/python3 ] || return 0
	need "/usr/bin/python3 -c 'import ensurepip; ensurepip.version()'" python3-venv python3-pip
	for module in click construct numpy pyroute2; do
		need "/usr/bin/python3 -c 'import $module'" "python3-$module" "python3-$module"
	done
	need "/usr/bin/python3 -c 'import tomllib' || /usr/bin/python3 -c 'import tomli'" python3-tomli python3-tomli
}

need_for_vm() {
	need_command qemu-system-x86_64 qemu-system-x86 qemu-system-x86-core
	need_command busybox busybox-static busybox
	need_command cpio cpio cpio
	need_command depmod kmod kmod
}

# The packages are built by the distribution's own python, whatever $PYTHON is.
need_for_packages() {
	need_command dpkg-buildpackage dpkg-dev -
	need_command dh debhelper -
	need_command dh_python3 dh-python -
	need "dpkg -s pybuild-plugin-pyproject" pybuild-plugin-pyproject - # it has no file of its own
	need_command lintian lintian -
	need_command rpmbuild rpm rpm-build
	need_command rpmlint rpmlint rpmlint
	# Debian has no such macros: packaging/rpm/macros.debian
	need "test -e /etc/debian_version -o -e /usr/lib/rpm/macros.d/macros.pyproject" rpm pyproject-rpm-macros
	need "test -e /etc/debian_version -o -e /usr/lib/rpm/macros.d/macros.systemd" rpm systemd-rpm-macros
	need "test -e /etc/debian_version || rpm -q python3-devel" rpm python3-devel
	for module in click construct numpy rpm setuptools; do
		need "/usr/bin/python3 -c 'import $module'" "python3-$module" "python3-$module"
	done
	need_command faketime faketime libfaketime
	need_command systemd-analyze systemd systemd
	need_command systemd-nspawn systemd-container systemd-container
	need_command debootstrap debootstrap debootstrap
}

# The names in $1, each once.
unique() {
	# shellcheck disable=SC2086 # a list of names
	printf '%s\n' $1 | sort -u | tr '\n' ' '
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo -- "$@"
	else
		echo "install-tools: not root and no sudo here; as root run: $*" >&2
		exit 1
	fi
}

# Debian starts what it installs. The tests start collectors of their own: leave no service running that was not there.
stop_services() { # stop_services PACKAGE...
	command -v systemctl >/dev/null || return 0
	for package in "$@"; do
		case $package in
		nfdump | softflowd | prometheus) services=$package ;;
		pmacct) services="pmacctd nfacctd sfacctd uacctd" ;;
		*) continue ;;
		esac
		for service in $services; do
			as_root systemctl disable --now "$service.service" >/dev/null 2>&1 || true
		done
	done
}

# shellcheck disable=SC2086 # lists of names, here and below
install_deb() {
	names=$(unique "$deb_missing")
	echo "install-tools: apt-get will install, with what they depend on: $names"
	as_root apt-get update -qq
	# tshark asks who may capture, iperf3 whether to start a server.
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $names
	stop_services $names
}

# shellcheck disable=SC2086
install_rpm() {
	[ -z "$unpackaged" ] || echo "install-tools: not in this distribution, their tests are skipped:$unpackaged"
	[ -n "$rpm_missing" ] || return 0
	names=$(unique "$rpm_missing")
	echo "install-tools: dnf will install, with what they depend on: $names"
	as_root dnf install -y $names
}

case $purpose in
build) need_for_build ;;
test) need_for_build && need_for_test ;;
matrix) need_for_build && need_for_test && need_for_matrix ;;
vm) need_for_build && need_for_test && need_for_vm ;;
packages) need_for_build && need_for_test && need_for_packages ;;
*)
	echo "usage: install-tools.sh build|test|matrix|vm|packages" >&2
	exit 2
	;;
esac

[ -n "$deb_missing" ] || exit 0
if command -v apt-get >/dev/null; then
	install_deb
elif command -v dnf >/dev/null; then
	install_rpm
else
	echo "install-tools: neither apt-get nor dnf here. Install by hand (Debian's names): $(unique "$deb_missing")" >&2
	exit 1
fi
