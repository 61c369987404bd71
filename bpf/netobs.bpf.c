// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The datapath: TC hook -> headers -> flow table. The flow tables, entry points, in this order; the ledger is in
 * ledger.bpf.h, maps are in maps.bpf.h. */
#include <linux/bpf.h>
#include <linux/errno.h>
#include <bpf/bpf_helpers.h>

#include "common.bpf.h"
#include "extra.bpf.h"
#include "flow.bpf.h"
#include "insight.bpf.h"
#include "ip.bpf.h"
#include "ledger.bpf.h"
#include "maps.bpf.h"
#include "netobs.h"
#include "parse.bpf.h"

#define NEXT (-1) /* TCX_NEXT and TC_ACT_UNSPEC: the programs after us still run */

static __always_inline __u64 now_ns(void)
{
	if (settings.precise_time)
		return bpf_ktime_get_ns();
	return bpf_jiffies64() * settings.tick_ns + state.tick_offset_ns;
}

static __always_inline int counting_has_ended(void)
{
	return *(volatile __u32 *)&state.active_half & NETOBS_COUNTING_ENDED;
}

static __always_inline __u32 half_in_use(void)
{
	return *(volatile __u32 *)&state.active_half & 1;
}

#if NETOBS_EXTRA
enum packet_of_flow {
	PACKET_FIRST,
	PACKET_NEXT,
	PACKET_STARTS_ANEW, /* before it counts as a next one */
};

static __always_inline struct flow_extra *packet_extra(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&packet_extras, &cpu);
}

/* What read_headers() leaves out. */
static __always_inline void read_parsed(struct __sk_buff *skb, const struct packet *pkt, struct flow_extra *extra)
{
	if (settings.extra_groups & EXTRA_LAYER2_OCTETS)
		extra->layer2_octets = layer2_octets(skb, pkt);
	if (settings.extra_groups & EXTRA_IP)
		extra->ipv6_headers = all_ipv6_headers(pkt);
}

/* A function of its own, so that the verifier walks it once. */
__noinline int netobs_read_headers(struct __sk_buff *skb, __u64 where, __u32 transport_octets)
{
	struct flow_extra *extra = packet_extra();

	if (!extra)
		return 0;
	__builtin_memset(extra, 0, sizeof(*extra));
	read_headers(skb, extra, where, transport_octets, settings.extra_groups);
	return 0;
}

static __always_inline void read_extra(struct __sk_buff *skb, const struct packet *pkt)
{
	struct flow_extra *extra;

	netobs_read_headers(skb, WHERE(pkt), pkt->transport_octets);
	extra = packet_extra();
	if (extra)
		read_parsed(skb, pkt, extra);
}

/* For a record of its own. Where programs interrupt each other, packet_extras may have another packet's. */
static __noinline int record_extra(struct __sk_buff *skb, const struct packet *pkt, struct flow_extra *extra)
{
	const struct flow_extra *packet = packet_extra();

	if (settings.preemptible) {
		__builtin_memset(extra, 0, sizeof(*extra));
		read_headers(skb, extra, WHERE(pkt), pkt->transport_octets, settings.extra_groups);
		read_parsed(skb, pkt, extra);
	} else if (packet) {
		*extra = *packet;
	}
	return 0;
}

static __always_inline void count_extra(struct flow_extra *extra, enum packet_of_flow which)
{
	const struct flow_extra *packet = packet_extra();

	if (!extra || !packet)
		return;
	if (which == PACKET_FIRST)
		*extra = *packet;
	else if (which == PACKET_NEXT)
		next_extra(extra, packet, settings.extra_groups);
	else
		first_extra_of_flow(extra, packet);
}

#define READ_EXTRA(skb, pkt) read_extra(skb, pkt)
#define COUNT_EXTRA(extra, which) count_extra(extra, which)
#define RECORD_EXTRA(skb, pkt, extra) record_extra(skb, pkt, extra)
#else
#define READ_EXTRA(skb, pkt) ((void)0)
#define RECORD_EXTRA(skb, pkt, extra) ((void)0)
#define COUNT_EXTRA(extra, which) ((void)0)
#endif

#if NETOBS_INSIGHT
#define SEE_IN_SLOT(index, pkt, now, is_first) see_in_slot(index, pkt, now, is_first)
#define SEE_IN_ENTRY(metrics, pkt, now, is_first) see_in_entry(metrics, pkt, now, is_first)
#define FRESH_ENTRY() fresh_entry()
#else
#define FRESH_ENTRY() (&(struct flow_metrics){})
#define SEE_IN_SLOT(index, pkt, now, is_first) ((void)0)
#define SEE_IN_ENTRY(metrics, pkt, now, is_first) ((void)0)
#endif

/* A packet that did not fit the table, as a record of its own. 0, or an error if the ring is full as well. */
static __always_inline int add_to_ring(struct __sk_buff *skb, const struct packet *pkt, __u64 now, int error)
{
	struct flow_record *record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);

	if (!record)
		return -ENOSPC;
	make_key(&record->key, pkt, settings.netns);
	first_packet(skb, &record->metrics, pkt, now);
	RECORD_EXTRA(skb, pkt, &record->metrics.extra);
	SEE_IN_ENTRY(&record->metrics, pkt, now, 1);
	record->metrics.errno_ = -error;
	bpf_ringbuf_submit(record, 0);
	return 0;
}

/* A packet with SYN, FIN or RST, before it is counted in an entry. */
static __always_inline void connection_in_map(struct __sk_buff *skb, struct flow_metrics *metrics,
					      const struct packet *pkt, __u64 now)
{
	int anew = starts_anew(pkt, metrics->tcp_flags, now, &metrics->end, &metrics->syn);

	if (settings.flow_table == TABLE_PERCPU_HASH) { /* the paper's rule: each SYN opens a new connection */
		if (pkt->tcp_flags & TCP_SYN)
			metrics->first_ns = now;
	} else if (anew) {
		metrics->first_ns = now;
		metrics->tos = pkt->tos;
		metrics->dot1q_priority = VLAN_PRIORITY(pkt->vlan_tci);
		read_macs(skb, pkt, metrics->src_mac, metrics->dst_mac);
		COUNT_EXTRA(&metrics->extra, PACKET_STARTS_ANEW);
	}
}

/* Into a hash map, per-CPU or not: only this CPU writes the entry that it finds. */
static __always_inline int add_to_map(struct __sk_buff *skb, void *map, const void *key, const struct packet *pkt,
				      __u64 now)
{
	struct flow_metrics *metrics = bpf_map_lookup_elem(map, key), *fresh;

	if (metrics && metrics->packets) {
		if (pkt->tcp_flags & TCP_CONNECTION)
			connection_in_map(skb, metrics, pkt, now);
		SEE_IN_ENTRY(metrics, pkt, now, 0);
		next_packet(metrics, pkt, now);
		COUNT_EXTRA(&metrics->extra, PACKET_NEXT);
		return 0;
	}
	if (metrics) { /* another CPU made the entry, this one has not seen the flow yet */
		first_packet(skb, metrics, pkt, now);
		COUNT_EXTRA(&metrics->extra, PACKET_FIRST);
		SEE_IN_ENTRY(metrics, pkt, now, 1);
		return 0;
	}
	fresh = FRESH_ENTRY();
	if (!fresh)
		return -ENOSPC;
	first_packet(skb, fresh, pkt, now);
	COUNT_EXTRA(&fresh->extra, PACKET_FIRST);
	SEE_IN_ENTRY(fresh, pkt, now, 1);
	return bpf_map_update_elem(map, key, fresh, BPF_ANY);
}

static __noinline int add_to_hash(struct __sk_buff *skb, const struct packet *pkt, __u64 now)
{
	struct flow_key key;

	make_key(&key, pkt, settings.netns);
	/* Two calls and not a pointer: the verifier then knows the map and inlines the lookup. */
	if (half_in_use())
		return add_to_map(skb, &flow_hash_1, &key, pkt, now);
	return add_to_map(skb, &flow_hash_0, &key, pkt, now);
}

static __noinline int add_to_overflow(struct __sk_buff *skb, const struct packet *pkt, __u64 now, __u32 half)
{
	struct overflow_key key = { .cpu = bpf_get_smp_processor_id() };

	make_key(&key.flow, pkt, settings.netns);
	if (half)
		return add_to_map(skb, &overflow_1, &key, pkt, now);
	return add_to_map(skb, &overflow_0, &key, pkt, now);
}

/* As connection_in_map(). A function of its own, so that the common path stays short. */
static __noinline int connection_in_slot(struct __sk_buff *skb, __u32 index, struct flow_slot *slot,
					 const struct packet *pkt, __u64 now)
{
	struct flow_start *start = bpf_map_lookup_elem(&flow_starts, &index);

	if (start && starts_anew(pkt, slot->tcp_flags, now, &start->end, &start->syn)) {
		first_of_flow(skb, start, pkt, now);
		COUNT_EXTRA(bpf_map_lookup_elem(&flow_extras, &index), PACKET_STARTS_ANEW);
	}
	return 0;
}

static __always_inline int add_to_array(struct __sk_buff *skb, const struct packet *pkt, __u64 now)
{
	__u32 half = half_in_use(), cpu = bpf_get_smp_processor_id();
	__u32 base = (cpu * 2 + half) * settings.slots;
	struct slot_id id = slot_id_of(pkt, settings.slot_netns);
	__u32 hash = slot_hash(&id, settings.hash_keys), index;
	struct flow_start *start;
	struct flow_slot *slot;

	if (cpu >= settings.slot_cpus) /* came online after the table was sized */
		return add_to_overflow(skb, pkt, now, half);
	for (int i = 0; i < SLOT_PROBES; i++) {
		index = base + ((hash + i) & (settings.slots - 1));
		slot = bpf_map_lookup_elem(&flow_slots, &index);
		if (!slot)
			break;
		if (slot_matches(slot, &id)) {
			if (slot->counters & SLOT_COUNTERS_HIGH)
				break;
			if (pkt->tcp_flags & TCP_CONNECTION)
				connection_in_slot(skb, index, slot, pkt, now);
			goto next;
		}
		if (!slot->used) {
			start = bpf_map_lookup_elem(&flow_starts, &index);
			if (!start)
				break;
			first_in_slot(skb, slot, start, &id, pkt, now);
			COUNT_EXTRA(bpf_map_lookup_elem(&flow_extras, &index), PACKET_FIRST);
			SEE_IN_SLOT(index, pkt, now, 1);
			return 0;
		}
	}
	return add_to_overflow(skb, pkt, now, half);
next:
	SEE_IN_SLOT(index, pkt, now, 0);
	next_in_slot(slot, pkt, now);
	COUNT_EXTRA(bpf_map_lookup_elem(&flow_extras, &index), PACKET_NEXT);
	return 0;
}

/* The flow table: one packet in. 0, or an error where no level of it had room. */
static __always_inline int add_packet(struct __sk_buff *skb, const struct packet *pkt, __u64 now)
{
	int error = -EBUSY;

	if (enter()) {
		READ_EXTRA(skb, pkt);
		if (settings.flow_table == TABLE_PERCPU_ARRAY)
			error = add_to_array(skb, pkt, now);
		else if (settings.flow_table == TABLE_PERCPU_HASH)
			error = add_to_hash(skb, pkt, now);
	}
	leave();
	if (error)
		error = add_to_ring(skb, pkt, now, settings.flow_table == TABLE_RINGBUF ? 0 : error);
	return error;
}

/* Whether the other of two programs on this hook counts the packet. The first program says what it went by; so each
 * packet is counted once, also if the turn changes while it is between the two. */
static __always_inline int is_counted_by_other(void)
{
	struct ledger *ledger;
	__u32 turn;

	if (settings.turn == TURN_ALONE)
		return 0;
	ledger = this_ledger();
	if (!ledger)
		return 1;
	turn = *(volatile __u32 *)&state.turn;
	if (settings.turn == TURN_FIRST)
		*(volatile __u64 *)&ledger->turn = turn;
	else if (!(turn & TURN_SETTLED))
		turn = *(volatile __u64 *)&ledger->turn;
	return (turn & ~TURN_SETTLED) != settings.turn;
}

static __always_inline int is_sampled(void)
{
	return settings.sampling <= 1 || bpf_get_prandom_u32() % settings.sampling == 0;
}

/* Includes a VLAN tag in the metadata, which is common at ingress: a frame has the same octets in both directions. */
static __always_inline __u32 frame_octets(struct __sk_buff *skb)
{
	return skb->len + (skb->vlan_present ? sizeof(struct vlan_header) : 0);
}

static __always_inline void count_reason(const struct packet *pkt, enum ledger_reason reason)
{
	struct ledger *ledger = this_ledger();

	if (ledger)
		count(&ledger->reasons[reason], pkt->packets, pkt->octets);
}

static __always_inline int not_in_a_flow(struct __sk_buff *skb, struct packet *pkt, struct interface_count *row,
					 enum ledger_reason reason)
{
	pkt->packets = skb->gso_segs ?: 1;
	pkt->octets = frame_octets(skb);
	pkt->headers = 0;
	pkt->unlike = 1;
	count_seen(skb, pkt, row);
	count_reason(pkt, reason);
	return NEXT;
}

static __always_inline void count_ethertype(struct __sk_buff *skb, __u32 ethertype, int may_write)
{
	__u32 segments = skb->gso_segs ?: 1, octets = frame_octets(skb), cpu = bpf_get_smp_processor_id();
	struct not_ip *counts = bpf_map_lookup_elem(&not_ip, &cpu);
	struct ethertype_count *one;

	if (!counts)
		return;
	if (ethertype < ETH_P_802_3_MIN)
		ethertype = 0;
	for (int i = 0; may_write && i < NOT_IP_ETHERTYPES; i++) {
		one = &counts->ethertypes[i];
		if (!one->count.packets)
			one->ethertype = ethertype;
		if (one->ethertype == ethertype) {
			count(&one->count, segments, octets);
			return;
		}
	}
	count(&counts->others, segments, octets);
}

/* A function of its own, so that the common path stays short. */
static __noinline int not_parsed(struct __sk_buff *skb, struct packet *pkt, struct interface_count *row,
				 enum verdict verdict)
{
	if (verdict == PACKET_MALFORMED)
		return not_in_a_flow(skb, pkt, row, LEDGER_MALFORMED);
	if (verdict == PACKET_EXT_HEADERS)
		return not_in_a_flow(skb, pkt, row, LEDGER_EXT_HEADERS);
	count_ethertype(skb, pkt->ethertype, enter());
	leave();
	return not_in_a_flow(skb, pkt, row, LEDGER_NOT_IP);
}

static __always_inline int meter(struct __sk_buff *skb, enum netobs_direction direction, int has_ethernet)
{
	struct packet pkt = { .has_ethernet = has_ethernet, .direction = direction, .ifindex = skb->ifindex };
	struct interface_count *row;
	enum verdict verdict;

	if (counting_has_ended() || is_counted_by_other())
		return NEXT;
	row = row_of(skb->ifindex, direction);
	if (!is_sampled())
		return not_in_a_flow(skb, &pkt, row, LEDGER_NOT_SAMPLED);
	verdict = parse_packet(skb, &pkt);
	if (verdict != PACKET_IP)
		return not_parsed(skb, &pkt, row, verdict);

	count_seen(skb, &pkt, row);
	if (add_packet(skb, &pkt, now_ns()))
		count_reason(&pkt, LEDGER_RING_FULL);
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

/* For interfaces whose packets start with the IP header: tun, WireGuard, PPP, IP tunnels. */
SEC("tc") int netobs_l3_ingress(struct __sk_buff *skb)
{
	return meter(skb, NETOBS_INGRESS, 0);
}

SEC("tc") int netobs_l3_egress(struct __sk_buff *skb)
{
	return meter(skb, NETOBS_EGRESS, 0);
}

/* Not attached: user space runs it (BPF_PROG_TEST_RUN) to relate jiffies to CLOCK_MONOTONIC. */
SEC("tc") int netobs_clock(struct __sk_buff *skb __attribute__((unused)))
{
	state.clock_jiffies = bpf_jiffies64();
	state.clock_ns = bpf_ktime_get_ns();
	return NEXT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
