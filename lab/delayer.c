/*
 * A wire with a delay between two interfaces: delayer NAME NAME DELAY_US LOSS_PPM SWAP_PPM
 *
 * Each frame that comes in at one interface goes out at the other DELAY_US later, in both directions; super-packets stay
 * whole. Of a million frames with a TCP payload from the first interface, LOSS_PPM are lost, and SWAP_PPM are sent half
 * a millisecond late, behind those that follow. At the end (SIGTERM) it prints how many: "passed lost late refused".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST_FRAMES 65536
#define MOST_OCTETS (66000 + sizeof(struct virtio_net_hdr))
#define LATE_NS 500000
#define SPIN_NS 200000 /* the kernel wakes a sleeper late by some tens of microseconds */

struct frame {
	long long due_ns;
	struct frame *next;
	size_t octets;
	char data[];
};

struct way {
	int in, out;
	struct frame *first, *last, *late;
};

static volatile sig_atomic_t ends;
static long passed, lost, delayed, refused;

static void end(int number)
{
	(void)number;
	ends = 1;
}

static long long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int open_at(const char *name)
{
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0), on = 1, octets = 64 << 20;

	at.sll_ifindex = (int)if_nametoindex(name);
	if (fd < 0 || !at.sll_ifindex || setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &octets, sizeof(octets)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &octets, sizeof(octets)) ||
	    bind(fd, (struct sockaddr *)&at, sizeof(at))) {
		perror(name);
		exit(1);
	}
	return fd;
}

/* The TCP payload of a frame, in octets. */
static long payload(const char *data, size_t octets)
{
	const struct ethhdr *eth = (const void *)(data + sizeof(struct virtio_net_hdr));
	const struct iphdr *ip = (const void *)(eth + 1);
	const struct tcphdr *tcp = (const void *)((const char *)ip + 20);

	if (octets < sizeof(struct virtio_net_hdr) + sizeof(*eth) + 40 || eth->h_proto != htons(ETH_P_IP) ||
	    ip->protocol != IPPROTO_TCP)
		return 0;
	return ntohs(ip->tot_len) - ip->ihl * 4 - tcp->doff * 4;
}

static int one_in_a_million(long times)
{
	return times && random() % 1000000 < times;
}

static void take(struct way *way, long long delay_ns, long loss, long swap)
{
	static char buffer[MOST_OCTETS];
	struct frame *frame;
	ssize_t octets;
	int has_data;

	while ((octets = recv(way->in, buffer, sizeof(buffer), 0)) > 0) {
		has_data = (loss || swap) && payload(buffer, (size_t)octets) > 0;
		if (has_data && one_in_a_million(loss)) {
			lost++;
			continue;
		}
		frame = malloc(sizeof(*frame) + (size_t)octets);
		if (!frame)
			exit(1);
		*frame = (struct frame){ .due_ns = now_ns() + delay_ns, .octets = (size_t)octets };
		memcpy(frame->data, buffer, (size_t)octets);
		if (has_data && !way->late && one_in_a_million(swap)) {
			frame->due_ns += LATE_NS;
			way->late = frame;
			delayed++;
			continue;
		}
		if (way->last)
			way->last->next = frame;
		else
			way->first = frame;
		way->last = frame;
	}
}

static void put(struct way *way, struct frame *frame)
{
	if (send(way->out, frame->data, frame->octets, 0) < 0)
		refused++;
	else
		passed++;
	free(frame);
}

/* Sends what is due; when the next one is. */
static long long give(struct way *way, long long now)
{
	struct frame *frame;

	while (way->first && way->first->due_ns <= now) {
		frame = way->first;
		way->first = frame->next;
		if (!way->first)
			way->last = NULL;
		put(way, frame);
	}
	if (way->late && way->late->due_ns <= now) {
		put(way, way->late);
		way->late = NULL;
	}
	now = way->first ? way->first->due_ns : 0;
	return way->late && (!now || way->late->due_ns < now) ? way->late->due_ns : now;
}

int main(int argc, char **argv)
{
	struct sigaction ending = { .sa_handler = end };
	struct way ways[2] = { 0 };
	struct pollfd fds[2];
	long long delay_ns;
	int a, b;

	if (argc != 6)
		return 2;
	sigaction(SIGTERM, &ending, NULL);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	prctl(PR_SET_TIMERSLACK, 1);
	a = open_at(argv[1]);
	b = open_at(argv[2]);
	delay_ns = atol(argv[3]) * 1000LL;
	ways[0] = (struct way){ .in = a, .out = b };
	ways[1] = (struct way){ .in = b, .out = a };
	fds[0] = (struct pollfd){ .fd = a, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = b, .events = POLLIN };
	puts("ready");
	fflush(stdout);
	while (!ends) {
		long long next = 0, wait;
		struct timespec time, *until = NULL;

		for (int i = 0; i < 2; i++) {
			long long due;

			take(&ways[i], delay_ns, i ? 0 : atol(argv[4]), i ? 0 : atol(argv[5]));
			due = give(&ways[i], now_ns());
			if (due && (!next || due < next))
				next = due;
		}
		if (next) {
			wait = next - now_ns() - SPIN_NS;
			if (wait <= 0)
				continue;
			time = (struct timespec){ .tv_sec = wait / 1000000000, .tv_nsec = wait % 1000000000 };
			until = &time;
		}
		if (ppoll(fds, 2, until, NULL) < 0 && errno != EINTR)
			return 1;
	}
	printf("%ld %ld %ld %ld\n", passed, lost, delayed, refused);
	return 0;
}
