#!/bin/sh
# `make install`: plain files, no pip. netobs goes into a folder of its own and uses the distribution's python modules.
# All directories come from the Makefile's variables.
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
	for directory in netobs netobs/*/; do
		directory=${directory%/}
		put 644 "$package/$directory" "$directory"/*.py "$directory"/*.csv "$directory"/*.o
	done
	put 644 "$package/netobs/templates" templates/*.toml
}

install_command() {
	$INSTALL -d "$DESTDIR$BINDIR"
	cat >"$DESTDIR$BINDIR/netobs" <<END
#!$INSTALL_PYTHON
import sys

sys.path.insert(0, "$LIBDIR/netobs")
from netobs.cli import main

sys.exit(main())
END
	chmod 755 "$DESTDIR$BINDIR/netobs"
}

install_configuration() {
	if [ -e "$DESTDIR$SYSCONFDIR/netobs.toml" ]; then
		echo "install: $DESTDIR$SYSCONFDIR/netobs.toml is there already: left as it is"
	else
		put 644 "$DESTDIR$SYSCONFDIR" conf/netobs.toml
	fi
}

check_modules() {
	[ -z "$DESTDIR" ] || return 0
	for module in click construct numpy pyroute2; do
		"$INSTALL_PYTHON" -c "import $module" 2>/dev/null ||
			echo "install: $INSTALL_PYTHON has no module $module: install python3-$module" >&2
	done
}

install_package
install_command
install_configuration
put 644 "$DESTDIR$MANDIR/man5" man/*.5
put 644 "$DESTDIR$MANDIR/man8" man/*.8
put 644 "$DESTDIR$UNITDIR" packaging/systemd/*.service
put 644 "$DESTDIR$DATADIR/doc/netobs" README.md
for file in conf/*.toml; do
	[ "$file" = conf/netobs.toml ] || put 644 "$DESTDIR$DATADIR/doc/netobs/examples" "$file"
done
check_modules
