/*
 * Preloaded into a program: its CLOCK_REALTIME is that of the host, shifted by the seconds in the file $WALL_CLOCK.
 * All other clocks, timers and sleeps stay as they are (libfaketime does not leave clock_nanosleep alone).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long shift(void)
{
	char text[32] = "";
	const char *path = getenv("WALL_CLOCK");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	if (fd >= 0) {
		if (read(fd, text, sizeof(text) - 1) < 0)
			text[0] = '\0';
		close(fd);
	}
	return strtol(text, NULL, 10);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int result = (int)syscall(SYS_clock_gettime, clock, now);

	if (!result && clock == CLOCK_REALTIME)
		now->tv_sec += shift();
	return result;
}
