#!/bin/sh
# `make run`: the daemon on this host's own interfaces, and netobs's own collector that prints what it exports.
# run.sh NETOBS. Environment: RUN_SECONDS (0: until Ctrl-C), RUN_INTERFACES (names or patterns between spaces),
# RUN_PORT (of the collector on 127.0.0.1; default: a free one). If no flow comes, it shows those of `netobs selftest`.
set -eu

netobs=$1
RUN_SECONDS=${RUN_SECONDS:-0}
RUN_INTERFACES=${RUN_INTERFACES:-}
RUN_PORT=${RUN_PORT:-}
SILENT_AFTER=30 # seconds

if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || {
		echo "run: loading BPF programs needs root, and there is no sudo here: run it as root" >&2
		exit 1
	}
	echo "run: loading BPF programs needs root: asking sudo"
	exec sudo -- env "RUN_SECONDS=$RUN_SECONDS" "RUN_INTERFACES=$RUN_INTERFACES" "RUN_PORT=$RUN_PORT" sh "$0" "$@"
fi

dir=$(mktemp -d)
listener=
daemon=
printer=
stopping=

alive() {
	[ -n "$1" ] && kill -0 "$1" 2>/dev/null
}

# The daemon first: its last flows are still to be printed.
finish() {
	status=0
	trap '' INT TERM HUP
	! alive "$daemon" || kill -TERM "$daemon"
	[ -z "$daemon" ] || wait "$daemon" 2>/dev/null || status=$?
	[ "$status" != 143 ] || status=0 # SIGTERM came before it was ready
	if alive "$listener"; then
		sleep 1 # for what is on its way
		kill -TERM "$listener" 2>/dev/null || true
	fi
	[ -z "$listener" ] || wait "$listener" 2>/dev/null || true # "Terminated" says nothing new
	[ -z "$printer" ] || wait "$printer" || true
	if [ -z "$stopping" ]; then
		status=1 # nobody asked
	elif [ ! -e "$dir/flow-seen" ]; then
		echo "run: no flow was seen: the interfaces carry no packets. Send some (ping, curl), or name others with" \
			"RUN_INTERFACES=\"eth0 tap*\"" >&2
		[ "$stopping" = interrupted ] || show_selftest || status=1
	fi
	rm -rf "$dir"
	trap - EXIT
	exit "$status"
}

# Somebody who tries netobs sees flows, whatever the host does.
show_selftest() {
	echo "run: these are flows of traffic of its own, which netobs selftest sends in network namespaces that only it has:"
	"$netobs" selftest --table percpu_array --flows
}

# lo is left out: each Message to the collector would be a flow to report. It is better than nothing, though.
default_interfaces() {
	for path in /sys/class/net/*; do
		[ "${path##*/}" = lo ] || [ "$(cat "$path/operstate")" = down ] || {
			echo '*'
			return
		}
	done
	echo lo
}

free_port() {
	"${netobs%/*}/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

write_configuration() {
	set -f # patterns are for netobs to match
	case " $RUN_INTERFACES " in *" lo "*) exclude='' ;; *) exclude='"lo"' ;; esac
	{
		printf '[capture]\ninterfaces = ['
		# shellcheck disable=SC2086 # a list of patterns
		printf '"%s", ' $RUN_INTERFACES
		printf ']\nexclude = [%s]\neviction_interval = "2s"\n' "$exclude"
		printf '[metering]\nactive_timeout = "10s"\nidle_timeout = "4s"\n'
		printf '[[collector]]\nname = "make-run"\nhost = "127.0.0.1"\nport = %s\n' "$RUN_PORT"
	} >"$dir/netobs.toml"
	set +f
}

# setsid: Ctrl-C reaches this script only, which ends the others in order.
start_listener() {
	mkfifo "$dir/flows"
	setsid awk -v seen="$dir/flow-seen" \
		'{ print; fflush() } /->/ && !found { found = 1; print >seen; close(seen) }' <"$dir/flows" &
	printer=$!
	PYTHONUNBUFFERED=1 setsid "$netobs" listen --host 127.0.0.1 --port "$RUN_PORT" >"$dir/flows" 2>"$dir/listen.log" &
	listener=$!
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		grep -qs listening "$dir/listen.log" && return
		alive "$listener" || break
		sleep 1 || true
	done
	echo "run: the collector did not start on port $RUN_PORT:" >&2
	cat "$dir/listen.log" >&2
	exit 1
}

trap finish EXIT
trap 'stopping=interrupted; exit' INT TERM HUP

RUN_INTERFACES=${RUN_INTERFACES:-$(default_interfaces)}
RUN_PORT=${RUN_PORT:-$(free_port)}
write_configuration
start_listener
echo "run: measuring interfaces: $RUN_INTERFACES; first flows in about 10 seconds; Ctrl-C ends"
setsid "$netobs" --conf "$dir/netobs.toml" &
daemon=$!

seconds=0
while alive "$daemon" && alive "$listener"; do
	sleep 1 || true # Ctrl-C ends it too
	seconds=$((seconds + 1))
	if [ "$seconds" = "$RUN_SECONDS" ] || { [ "$seconds" = "$SILENT_AFTER" ] && [ ! -e "$dir/flow-seen" ]; }; then
		stopping=yes
		exit 0
	fi
done
alive "$listener" || cat "$dir/listen.log" >&2
echo "run: $(alive "$daemon" && echo the collector || echo the daemon) ended by itself" >&2
