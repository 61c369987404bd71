#!/bin/sh
# `make deb` and `make rpm`: package.sh deb|rpm. Builds a copy of the sources in build/, and leaves the package in dist/.
# It uses no network. The same sources make the same package, byte for byte, in whatever folder and on whatever day.
set -eu

# The distribution's own tools, and nothing of a make or a virtual environment that this may run in.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C TZ=UTC0
unset MAKEFLAGS MFLAGS MAKELEVEL OUT PYTHONPATH PYTHONHOME VIRTUAL_ENV SOURCE_DATE_EPOCH
umask 022

kind=${1:-}
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' netobs/__init__.py)
work=build/$kind
copy=$work/netobs-$version

die() {
	echo "package: $*" >&2
	exit 1
}

need() { # need COMMAND...
	for command in "$@"; do
		command -v "$command" >/dev/null || die "$command not found: run tools/install-tools.sh packages"
	done
}

same_version() { # same_version VERSION FILE
	[ "$1" = "$version" ] || die "the newest entry of $2 is for version '$1', netobs/__init__.py has $version: add an entry"
}

# The files of the repository: what git knows or would add; without git (a release archive) all but what make makes.
sources() {
	if [ -e .git ] && command -v git >/dev/null; then
		git -c safe.directory="$PWD" ls-files -z --cached --others --exclude-standard
	else
		find . \( -name '.[!.]*' ! -name .ci ! -name '.git*' ! -name .clang-format ! -name .editorconfig \
			! -name .pre-commit-config.yaml -o -name .git -o -name __pycache__ \
			-o -name '*.egg-info' -o -path ./build -o -path ./dist -o -path ./bench/results -o -name '*.bpf.o' \) -prune \
			-o ! -type d -print0
	fi
}

copy_sources() { # copy_sources SECONDS: all files get this time
	rm -rf "$work"
	mkdir -p "$copy" dist
	# A file that was deleted, but not from git's index, is passed over.
	sources | tar -c --null --files-from=- --no-recursion --ignore-failed-read 2>/dev/null | tar -x -C "$copy"
	chmod -R u=rwX,go=rX "$copy"
	find "$copy" -exec touch -h -d "@$1" {} +
}

within() ( # within DIRECTORY COMMAND...
	cd "$1"
	shift
	"$@"
)

logged() { # logged COMMAND...: a build says much that matters only when it fails
	"$@" >>"$PWD/$work/build.log" 2>&1 || {
		cat "$work/build.log" >&2
		die "the build failed"
	}
}

deliver() { # deliver FILE...
	mv "$@" dist/
	for file in "$@"; do
		echo "package: dist/${file##*/}"
	done
}

build_deb() {
	need dpkg-buildpackage dh
	changelog=packaging/deb/changelog
	package_version=$(dpkg-parsechangelog -l "$changelog" -S Version)
	same_version "${package_version%-*}" "$changelog"
	copy_sources "$(dpkg-parsechangelog -l "$changelog" -S Timestamp)"
	mv "$copy/packaging/deb" "$copy/debian"
	logged within "$copy" dpkg-buildpackage -us -uc -b
	deliver "$work"/*.deb
}

build_rpm() {
	need rpmbuild
	spec=packaging/rpm/netobs.spec
	newest=$(sed -n '/^%changelog/,$s/^\* //p' "$spec" | head -n 1) # DAY MONTH DATE YEAR NAME <ADDRESS> - VERSION-RELEASE
	package_version=${newest##* - }
	same_version "${package_version%-*}" "$spec"
	changelog_date=$(echo "$newest" | cut -d ' ' -f 1-4)
	SOURCE_DATE_EPOCH=$(date -u -d "$changelog_date" +%s)
	export SOURCE_DATE_EPOCH
	copy_sources "$SOURCE_DATE_EPOCH"
	sed -i "s/^\(Version: *\).*/\1$version/" "$copy/$spec"
	touch -d "@$SOURCE_DATE_EPOCH" "$copy/$spec"
	mkdir "$work/SOURCES"
	tar -c --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$work" "${copy##*/}" |
		gzip -9n >"$work/SOURCES/${copy##*/}.tar.gz"
	cp -p "$copy/packaging/systemd/netobs.sysusers" "$work/SOURCES/"
	touch -d "@$SOURCE_DATE_EPOCH" "$work"/SOURCES/*
	cp -p "$copy/$spec" "$work/"
	set -- --define "_topdir $PWD/$work"
	if [ -e /etc/debian_version ]; then
		set -- "$@" --nodeps --load "$PWD/$copy/packaging/rpm/macros.debian"
	fi
	# The source package carries the spec with all macros expanded: relative paths, or it would tell where it was made.
	logged within "$work" rpmbuild "$@" --define "_topdir ." -bs netobs.spec
	logged rpmbuild "$@" -bb "$work/netobs.spec"
	deliver "$work"/SRPMS/*.rpm "$work"/RPMS/*/*.rpm
}

case $kind in
deb) build_deb ;;
rpm) build_rpm ;;
*)
	echo "usage: package.sh deb|rpm" >&2
	exit 2
	;;
esac
