/*
 * What the generator sends: every packet is a function of its number and of the options, with no state, so a test
 * computes each flow's key, packets and octets without asking the generator (lab/traffic.py is the mirror).
 *
 * Packet p (0 .. packets-1) belongs to flow i = flow_base + f(p):
 *   round-robin  f(p) = p mod flows
 *   burst        f(p) = (p / burst) mod flows
 *   random       f(p) = draw(seed, 0, p) mod flows
 * Its frame has size_min + draw(seed, 1, p) mod (size_max - size_min + 1) bytes, Ethernet header included, FCS not.
 *
 * Flow i (32 bits) has, in host order:
 *   IPv4  source 198.18.0.0 + (i mod 65536)    destination 198.19.0.0 + (i / 65536 + 1) mod 65536
 *   IPv6  source 2001:db8:1:: + i              destination 2001:db8:2:: + (i / 65536 + 1) mod 65536
 *   TCP and UDP: source port 1024 + i mod 64512, destination port --dst-port; ICMP: echo request, identifier i mod
 * 65536
 *
 * Thread t of T sends the packets t * packets / T up to (t + 1) * packets / T, in order, so that threads share flows.
 * The payload is all zeros. All checksums are right.
 */
#ifndef NETOBS_TRAFFIC_PLAN_H
#define NETOBS_TRAFFIC_PLAN_H

#include <stdbool.h>
#include <stdint.h>

enum order {
	ORDER_ROUND_ROBIN,
	ORDER_RANDOM,
	ORDER_BURST
};

struct plan {
	char interface[16];
	uint64_t packets;
	uint64_t flows;
	uint32_t flow_base;
	enum order order;
	uint32_t burst; /* packets in a row of one flow, order burst only */
	uint32_t size_min, size_max;
	uint64_t seed;
	uint8_t protocol; /* IPPROTO_TCP, _UDP, _ICMP; ICMP with ipv6 means ICMPv6 */
	bool ipv6;
	int vlan; /* outer tag, -1 = none */
	int qinq; /* inner tag, -1 = none; the outer one then has TPID 0x88a8 */
	uint8_t priority; /* PCP of both tags */
	uint8_t tos, ttl;
	uint16_t dst_port;
	uint16_t tcp_flags; /* 12 bits */
	uint32_t gso; /* TCP payload octets of a segment; 0 = no super-packets */
	uint8_t src_mac[6], dst_mac[6];
	bool src_mac_given;
	double rate; /* packets per second of all threads, 0 = full speed */
	int threads;
	int cpus[64];
	int cpu_count; /* 0 = threads are not pinned */
};

/* The finaliser of splitmix64. */
static inline uint64_t mix64(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static inline uint64_t draw(uint64_t seed, uint64_t stream, uint64_t packet)
{
	return mix64(packet + mix64(seed * 2 + stream));
}

/* f(p): the flow of packet p, before flow_base is added. */
static inline uint64_t plan_flow(const struct plan *plan, uint64_t packet)
{
	switch (plan->order) {
	case ORDER_RANDOM:
		return draw(plan->seed, 0, packet) % plan->flows;
	case ORDER_BURST:
		return packet / plan->burst % plan->flows;
	default:
		return packet % plan->flows;
	}
}

static inline uint32_t plan_size(const struct plan *plan, uint64_t packet)
{
	if (plan->size_min == plan->size_max)
		return plan->size_min;
	return plan->size_min + draw(plan->seed, 1, packet) % (plan->size_max - plan->size_min + 1);
}

#endif
