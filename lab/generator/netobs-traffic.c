/*
 * Traffic generator of the tests: sends exactly known flows of Ethernet frames from an AF_PACKET socket.
 *
 * The socket does not bypass the queueing discipline, so frames pass the TC egress hook of the interface. A frame that
 * the kernel refuses for lack of buffers is sent again: what is reported as sent is what the kernel accepted. The
 * egress hook has seen a refused frame too, so those are counted in "retries". plan.h says what each packet is.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "frame.h"
#include "options.h"

#define BATCH 64

struct sender {
	const struct plan *plan;
	struct layout at;
	pthread_t thread;
	int cpu; /* -1 = anywhere */
	int socket;
	uint64_t first, end; /* the packets that it sends */
	uint64_t sent, retries;
	struct wire wire;
	uint8_t *frames;
	uint32_t frame_bytes; /* room for one frame */
	struct virtio_net_hdr vnet[BATCH];
	struct iovec parts[BATCH][2];
	struct mmsghdr messages[BATCH];
};

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
	(void)number;
	stop = 1;
}

__attribute__((noreturn)) static void die(const struct plan *plan, const char *what)
{
	fprintf(stderr, "netobs-traffic: %s: %s: %s\n", plan->interface, what, strerror(errno));
	exit(1);
}

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static int open_socket(const struct plan *plan)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(plan->interface) };
	int on = 1, buffer_bytes = 8 << 20;
	int fd = socket(AF_PACKET, SOCK_RAW, 0);

	if (fd < 0)
		die(plan, "cannot open a packet socket (root is needed)");
	if (!address.sll_ifindex || bind(fd, (struct sockaddr *)&address, sizeof(address)))
		die(plan, "cannot use this interface");
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer_bytes, sizeof(buffer_bytes)))
		die(plan, "cannot set the send buffer");
	if (plan->gso && setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)))
		die(plan, "cannot send super-packets");
	return fd;
}

/* The interface must carry Ethernet frames; its address is the default source. */
static void read_interface(struct plan *plan)
{
	struct ifreq request = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strcpy(request.ifr_name, plan->interface);
	if (fd < 0 || ioctl(fd, SIOCGIFHWADDR, &request))
		die(plan, "cannot read the MAC address");
	close(fd);
	errno = EPROTOTYPE;
	if (request.ifr_hwaddr.sa_family != ARPHRD_ETHER && request.ifr_hwaddr.sa_family != ARPHRD_LOOPBACK)
		die(plan, "not an Ethernet interface");
	if (!plan->src_mac_given)
		memcpy(plan->src_mac, request.ifr_hwaddr.sa_data, ETH_ALEN);
}

static void prepare(struct sender *sender)
{
	const struct plan *plan = sender->plan;

	sender->at = frame_layout(plan);
	sender->frame_bytes = (plan->size_max + 63) & ~63u;
	sender->frames = calloc(BATCH, sender->frame_bytes);
	if (!sender->frames)
		die(plan, "no memory for the frames");
	sender->socket = open_socket(plan);
	for (int i = 0; i < BATCH; i++) {
		uint8_t *frame = sender->frames + (size_t)i * sender->frame_bytes;

		frame_init(plan, frame);
		sender->parts[i][0] = (struct iovec){ &sender->vnet[i], sizeof(sender->vnet[i]) };
		sender->parts[i][1] = (struct iovec){ frame, 0 };
		sender->messages[i].msg_hdr.msg_iov = &sender->parts[i][plan->gso ? 0 : 1];
		sender->messages[i].msg_hdr.msg_iovlen = plan->gso ? 2 : 1;
	}
}

static void fill(struct sender *sender, int count)
{
	const struct plan *plan = sender->plan;

	for (int i = 0; i < count; i++) {
		uint64_t packet = sender->first + sender->sent + i;
		uint32_t size = plan_size(plan, packet);

		frame_set(plan, &sender->at, sender->parts[i][1].iov_base, packet, size);
		sender->parts[i][1].iov_len = size;
		if (plan->gso)
			frame_vnet_header(plan, &sender->at, size, &sender->vnet[i]);
	}
}

static void account(struct sender *sender, int from, int count)
{
	for (int i = from; i < from + count; i++) {
		struct wire wire = frame_wire(sender->plan, &sender->at, sender->parts[i][1].iov_len);

		sender->wire.packets += wire.packets;
		sender->wire.ip_octets += wire.ip_octets;
		sender->wire.frame_octets += wire.frame_octets;
	}
	sender->sent += count;
}

/* Sends the first `count` messages, all of them unless a signal asks to stop. */
static void send_batch(struct sender *sender, int count)
{
	int done = 0;

	while (done < count && !stop) {
		int sent = sendmmsg(sender->socket, sender->messages + done, count - done, 0);

		if (sent > 0) {
			account(sender, done, sent);
			done += sent;
		} else if (errno == ENOBUFS || errno == EAGAIN) {
			sender->retries++;
			sched_yield();
		} else if (errno != EINTR) {
			die(sender->plan, "cannot send");
		}
	}
}

static void pace(const struct sender *sender, int64_t start_ns)
{
	int64_t due_ns = start_ns + sender->sent * 1e9 * sender->plan->threads / sender->plan->rate;
	struct timespec due = { due_ns / 1000000000, due_ns % 1000000000 };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
}

/* A batch at a given rate is at most about a millisecond of traffic. */
static int batch_size(const struct plan *plan)
{
	double share = plan->rate / plan->threads / 1000;

	return plan->rate == 0 || share > BATCH ? BATCH : share < 1 ? 1 : share;
}

static void *run(void *argument)
{
	struct sender *sender = argument;
	int64_t start_ns = now_ns();
	uint64_t packets = sender->end - sender->first;
	int batch = batch_size(sender->plan);

	if (sender->cpu >= 0) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(sender->cpu, &set);
		errno = pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
		if (errno)
			die(sender->plan, "cannot pin a thread to its CPU");
	}
	while (sender->sent < packets && !stop) {
		int count = packets - sender->sent < (uint64_t)batch ? (int)(packets - sender->sent) : batch;

		fill(sender, count);
		send_batch(sender, count);
		if (sender->plan->rate > 0)
			pace(sender, start_ns);
	}
	return NULL;
}

static uint64_t count_flows(const struct plan *plan, const struct sender *senders)
{
	uint8_t *seen = calloc(plan->flows, 1);
	uint64_t flows = 0;

	if (!seen)
		die(plan, "no memory to count the flows");
	for (int t = 0; t < plan->threads; t++) {
		for (uint64_t i = 0; i < senders[t].sent; i++) {
			uint8_t *flow = &seen[plan_flow(plan, senders[t].first + i)];

			flows += !*flow;
			*flow = 1;
		}
	}
	free(seen);
	return flows;
}

static void report(const struct plan *plan, const struct sender *senders, double seconds)
{
	uint64_t packets = 0, retries = 0;
	struct wire wire = { 0 };

	for (int t = 0; t < plan->threads; t++) {
		packets += senders[t].sent;
		retries += senders[t].retries;
		wire.packets += senders[t].wire.packets;
		wire.ip_octets += senders[t].wire.ip_octets;
		wire.frame_octets += senders[t].wire.frame_octets;
	}
	printf("{\"packets\": %llu, \"wire_packets\": %llu, \"flows\": %llu, \"ip_octets\": %llu, "
	       "\"frame_octets\": %llu, \"retries\": %llu, \"seconds\": %.6f, \"packets_per_second\": %.0f}\n",
	       (unsigned long long)packets, (unsigned long long)wire.packets,
	       (unsigned long long)count_flows(plan, senders), (unsigned long long)wire.ip_octets,
	       (unsigned long long)wire.frame_octets, (unsigned long long)retries, seconds,
	       seconds > 0 ? packets / seconds : 0.0);
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct sender *senders;
	struct plan plan;
	int64_t start_ns;

	options_parse(&plan, argc, argv);
	read_interface(&plan);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	senders = calloc(plan.threads, sizeof(*senders));
	if (!senders)
		die(&plan, "no memory for the threads");
	for (int t = 0; t < plan.threads; t++) {
		senders[t].plan = &plan;
		senders[t].cpu = plan.cpu_count ? plan.cpus[t % plan.cpu_count] : -1;
		senders[t].first = plan.packets * t / plan.threads;
		senders[t].end = plan.packets * (t + 1) / plan.threads;
		prepare(&senders[t]);
	}
	start_ns = now_ns();
	for (int t = 0; t < plan.threads; t++) {
		errno = pthread_create(&senders[t].thread, NULL, run, &senders[t]);
		if (errno)
			die(&plan, "cannot start a thread");
	}
	for (int t = 0; t < plan.threads; t++)
		pthread_join(senders[t].thread, NULL);
	report(&plan, senders, (now_ns() - start_ns) / 1e9);
	return 0;
}
