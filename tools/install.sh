#!/bin/sh
# `make install`: plain files, no pip. netobs goes into a folder of its own and uses the distribution's python modules.
# `make install-data` (argument: data): all but the python package and the command, for a distribution's package, which
# has these from the wheel. All directories come from the Makefile's variables.
set -eu

package=$DESTDIR$LIBDIR/netobs # netobs/ in it is the python package

put() { # put MODE DIRECTORY FILE...: files that do not exist (an empty pattern) are passed over
	mode=$1 directory=$2
	shift 2
	for file in "$@"; do
		[ -e "$file" ] || continue
		$INSTALL -d "$directory"
		$INSTALL -m "$mode" "$file" "$directory/"
	done
}

install_package() {
	rm -rf "$package" # modules of an older version
	# templates is a link, and not found here: below
	find netobs -name __pycache__ -prune -o -type d -print | while read -r directory; do
		put 644 "$package/$directory" "$directory"/*.py "$directory"/*.csv "$directory"/*.o
	done
	ln -rs "$DESTDIR$DATADIR/netobs/templates" "$package/netobs/templates"
}

install_command() {
	$INSTALL -d "$DESTDIR$BINDIR"
	cat >"$DESTDIR$BINDIR/netobs" <<END
#!$INSTALL_PYTHON
import sys

sys.path.insert(0, "$LIBDIR/netobs")
from netobs.__main__ import main

sys.exit(main())
END
	chmod 755 "$DESTDIR$BINDIR/netobs"
	sed 's/netobs\.__main__ import/netobs.helper.main import/' "$DESTDIR$BINDIR/netobs" >"$DESTDIR$BINDIR/netobs-helper"
	chmod 755 "$DESTDIR$BINDIR/netobs-helper"
}

install_configuration() {
	$INSTALL -d "$DESTDIR$SYSCONFDIR/netobs/templates"
	for file in conf/netobs.toml packaging/netobs-helper.toml; do
		if [ -e "$DESTDIR$SYSCONFDIR/${file##*/}" ]; then
			echo "install: $DESTDIR$SYSCONFDIR/${file##*/} is there already: left as it is"
		else
			put 644 "$DESTDIR$SYSCONFDIR" "$file"
		fi
	done
}

install_units() {
	$INSTALL -d "$DESTDIR$UNITDIR" "$DESTDIR$PREFIX/lib/sysusers.d" "$DESTDIR$PREFIX/lib/tmpfiles.d"
	# netobs@.service is netobs.service with another file, and is made here: there is one definition of the sandbox.
	# Comments stay as they are.
	# shellcheck disable=SC2016 # $ is the end of the line
	for unit in netobs.service netobs-helper.service; do
		sed -e "/^#/!s|/usr/bin/netobs|$BINDIR/netobs|g" -e "/^#/!s|/etc/netobs|$SYSCONFDIR/netobs|g" \
			packaging/systemd/$unit >"$DESTDIR$UNITDIR/$unit"
		chmod 644 "$DESTDIR$UNITDIR/$unit"
	done
	$INSTALL -m 644 packaging/systemd/netobs-helper.socket "$DESTDIR$UNITDIR/"
	sed -e '/^#/!s|/netobs\.toml|/netobs/%i.toml|g' -e '/^Description=/s|$| (%i)|' \
		"$DESTDIR$UNITDIR/netobs.service" >"$DESTDIR$UNITDIR/netobs@.service"
	chmod 644 "$DESTDIR$UNITDIR/netobs@.service"
	$INSTALL -m 644 packaging/systemd/netobs.sysusers "$DESTDIR$PREFIX/lib/sysusers.d/netobs.conf"
	$INSTALL -m 644 packaging/systemd/netobs.tmpfiles "$DESTDIR$PREFIX/lib/tmpfiles.d/netobs.conf"
	$INSTALL -m 644 packaging/systemd/netobs-helper.tmpfiles "$DESTDIR$PREFIX/lib/tmpfiles.d/netobs-helper.conf"
}

put_text() { # put_text DIRECTORY NAME: standard input
	$INSTALL -d "$DESTDIR$1"
	cat >"$DESTDIR$1/$2"
	chmod 644 "$DESTDIR$1/$2"
}

# What click writes for bash is the same from 8.0 to 8.5. For zsh and fish it is not: there a shell asks the click that is
# installed, when it first completes netobs.
install_completions() {
	"$INSTALL_PYTHON" -c "import click" 2>/dev/null || return 0 # check_modules says so
	_NETOBS_COMPLETE=bash_source PYTHONPATH=. PYTHONDONTWRITEBYTECODE=1 "$INSTALL_PYTHON" -c \
		'import sys; sys.argv = ["netobs"]; from netobs.cli.main import main; main()' |
		put_text "$DATADIR/bash-completion/completions" netobs
	put_text "$ZSHDIR" _netobs <<-'END'
		#compdef netobs
		eval "$(_NETOBS_COMPLETE=zsh_source netobs)"
		_netobs_completion "$@"
	END
	echo '_NETOBS_COMPLETE=fish_source netobs | source' | put_text "$DATADIR/fish/vendor_completions.d" netobs.fish
}

install_documents() {
	put 644 "$DESTDIR$MANDIR/man5" man/*.5
	put 644 "$DESTDIR$MANDIR/man8" man/*.8
	put 644 "$DESTDIR$DOCDIR" README.md docs/*.md
	put 644 "$DESTDIR$DOCDIR/prometheus" docs/prometheus/*
	for file in conf/*.toml; do
		[ "$file" = conf/netobs.toml ] || put 644 "$DESTDIR$DOCDIR/examples" "$file"
	done
}

check_modules() {
	for module in click construct numpy; do
		"$INSTALL_PYTHON" -c "import $module" 2>/dev/null ||
			echo "install: $INSTALL_PYTHON has no module $module: install python3-$module" >&2
	done
}

if [ "${1:-}" != data ]; then
	install_package
	install_command
fi
install_configuration
put 644 "$DESTDIR$DATADIR/netobs/templates" templates/*.toml
install_units
install_completions
install_documents
if [ -z "$DESTDIR" ]; then
	check_modules
	echo "install: for the service, as root: systemd-sysusers; systemd-tmpfiles --create; systemctl daemon-reload"
fi
