// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The datapath: TC hook -> headers -> flow table. Settings, maps, the flow table, entry points, in this order.
 *
 * All per-CPU data is written without atomics: a TC program runs with bottom halves off, so that on one CPU no other
 * run comes between. (PREEMPT_RT: local_bh_disable() takes a lock of the CPU that has the same effect.)
 */
#include <linux/bpf.h>
#include <linux/errno.h>
#include <bpf/bpf_helpers.h>

#include "ip.bpf.h"
#include "netobs.h"
#include "parse.bpf.h"

#define NEXT (-1) /* TCX_NEXT and TC_ACT_UNSPEC: the programs after us still run */
#define TCP_SYN 0x02

const volatile struct netobs_settings settings = { .sampling = 1 };

/* Which half of the table packets go to, 0 or 1: user space turns it, waits for a grace period, and has the other
 * half for itself. */
__u32 active_half;

/* Sized before load: max_entries is the number of possible CPUs. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ledger);
} ledgers SEC(".maps");

/* The paper's table, twice: a packet that is counted while its entry is being read and deleted would be lost. */
struct flow_hash {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1);
	__type(key, struct flow_key);
	__type(value, struct flow_metrics);
} flow_hash_0 SEC(".maps"), flow_hash_1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

static __always_inline void count(struct ledger_count *count, __u64 packets, __u64 octets)
{
	count->packets += packets;
	count->octets += octets;
}

static __always_inline __u64 now_ns(void)
{
	return settings.precise_time ? bpf_ktime_get_ns() : bpf_ktime_get_coarse_ns();
}

static __always_inline void first_packet(struct flow_metrics *metrics, const struct packet *pkt, __u64 now)
{
	metrics->packets = pkt->packets;
	metrics->octets = pkt->octets;
	metrics->first_ns = now;
	metrics->last_ns = now;
	metrics->tcp_flags = pkt->tcp_flags;
	metrics->min_ip_length = pkt->min_ip_length;
	metrics->max_ip_length = pkt->max_ip_length;
	metrics->tos = pkt->tos;
	metrics->min_ttl = pkt->ttl;
	metrics->max_ttl = pkt->ttl;
	metrics->dot1q_priority = pkt->dot1q_priority;
	metrics->errno_ = 0;
	metrics->flow_end_reason = 0;
	__builtin_memcpy(metrics->src_mac, pkt->src_mac, sizeof(pkt->src_mac));
	__builtin_memcpy(metrics->dst_mac, pkt->dst_mac, sizeof(pkt->dst_mac));
}

static __always_inline void next_packet(struct flow_metrics *metrics, const struct packet *pkt, __u64 now)
{
	metrics->packets += pkt->packets;
	metrics->octets += pkt->octets;
	metrics->last_ns = now;
	if (pkt->tcp_flags & TCP_SYN) /* a new connection: the paper's rule */
		metrics->first_ns = now;
	metrics->tcp_flags |= pkt->tcp_flags;
	if (pkt->min_ip_length < metrics->min_ip_length)
		metrics->min_ip_length = pkt->min_ip_length;
	if (pkt->max_ip_length > metrics->max_ip_length)
		metrics->max_ip_length = pkt->max_ip_length;
	if (pkt->ttl < metrics->min_ttl)
		metrics->min_ttl = pkt->ttl;
	if (pkt->ttl > metrics->max_ttl)
		metrics->max_ttl = pkt->ttl;
}

/* A packet that the table did not take, as a record of its own. 0, or an error where the ring is full too. */
static __always_inline int add_to_ring(const struct packet *pkt, __u64 now, int error)
{
	struct flow_record *record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);

	if (!record)
		return -ENOSPC;
	record->key = pkt->key;
	first_packet(&record->metrics, pkt, now);
	record->metrics.errno_ = -error;
	bpf_ringbuf_submit(record, 0);
	return 0;
}

static __always_inline int add_to_hash(void *hash, const struct packet *pkt, __u64 now)
{
	struct flow_metrics *metrics = bpf_map_lookup_elem(hash, &pkt->key), fresh;

	if (metrics) {
		if (metrics->packets) /* 0: another CPU made the entry, this one has not seen the flow yet */
			next_packet(metrics, pkt, now);
		else
			first_packet(metrics, pkt, now);
		return 0;
	}
	first_packet(&fresh, pkt, now);
	return bpf_map_update_elem(hash, &pkt->key, &fresh, BPF_ANY);
}

/* The flow table: one packet in. 0, or an error where no level of it had room. */
static __always_inline int add_packet(const struct packet *pkt, __u64 now)
{
	int error;

	/* Two calls and not a pointer: the verifier then knows the map and inlines the lookup. */
	if (*(volatile __u32 *)&active_half)
		error = add_to_hash(&flow_hash_1, pkt, now);
	else
		error = add_to_hash(&flow_hash_0, pkt, now);
	return error ? add_to_ring(pkt, now, error) : 0;
}

static __always_inline int is_sampled(void)
{
	return settings.sampling <= 1 || bpf_get_prandom_u32() % settings.sampling == 0;
}

static __always_inline int meter(struct __sk_buff *skb, enum netobs_direction direction, int has_ethernet)
{
	struct cursor cur = cursor_at(skb);
	__u32 cpu = bpf_get_smp_processor_id(), segments = cur.gso_segments ?: 1;
	struct ledger *ledger = bpf_map_lookup_elem(&ledgers, &cpu);
	struct packet pkt = {};
	enum verdict verdict;
	__u16 ethertype;

	if (!ledger)
		return NEXT;
	if (!is_sampled()) {
		count(&ledger->seen, segments, cur.length);
		count(&ledger->reasons[LEDGER_NOT_SAMPLED], segments, cur.length);
		return NEXT;
	}
	pkt.key.direction = direction;
	pkt.key.ifindex = skb->ifindex;
	if (has_ethernet)
		ethertype = parse_ethernet(&cur, &pkt);
	else
		ethertype = bpf_ntohs(skb->protocol);
	pkt.key.ethertype = ethertype;

	if (ethertype == ETH_P_IP)
		verdict = parse_ipv4(&cur, &pkt);
	else if (ethertype == ETH_P_IPV6)
		verdict = parse_ipv6(&cur, &pkt);
	else
		verdict = ethertype ? PACKET_NOT_IP : PACKET_MALFORMED;

	if (verdict != PACKET_IP) {
		count(&ledger->seen, segments, cur.length);
		count(&ledger->reasons[verdict == PACKET_NOT_IP ? LEDGER_NOT_IP : LEDGER_MALFORMED], segments,
		      cur.length);
		return NEXT;
	}
	count(&ledger->seen, pkt.packets, pkt.octets);
	if (add_packet(&pkt, now_ns()))
		count(&ledger->reasons[LEDGER_RING_FULL], pkt.packets, pkt.octets);
	return NEXT;
}

SEC("tc") int netobs_ingress(struct __sk_buff *skb)
{
	return meter(skb, NETOBS_INGRESS, 1);
}

SEC("tc") int netobs_egress(struct __sk_buff *skb)
{
	return meter(skb, NETOBS_EGRESS, 1);
}

/* For interfaces whose packets begin with the IP header: tun, WireGuard, PPP, IP tunnels. */
SEC("tc") int netobs_l3_ingress(struct __sk_buff *skb)
{
	return meter(skb, NETOBS_INGRESS, 0);
}

SEC("tc") int netobs_l3_egress(struct __sk_buff *skb)
{
	return meter(skb, NETOBS_EGRESS, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
