/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How well a TCP connection goes, seen between its ends: round-trip times by SEQ and ACK, retransmissions, zero windows.
 * Without NETOBS_INSIGHT this file is empty.
 *
 * A packet with new octets arms its side of the connection's `tcp_pair`: the acknowledgement number that will answer it,
 * and the time. The first packet of the other side that acknowledges it is the answer, and the time between is a sample,
 * which the next packet of the armed side takes into its flow. */
#ifndef NETOBS_INSIGHT_BPF_H
#define NETOBS_INSIGHT_BPF_H

#include "flow.bpf.h"
#include "maps.bpf.h"

#if NETOBS_INSIGHT

#define TCP_FIN 0x01
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define LONGEST_US 10000000 /* an armed side waits no longer; then another packet arms it */
#define REORDERED_US 3000 /* a late packet is out of order within this time, if no round-trip time is known */
#define PLAUSIBLE (1 << 30) /* octets: an acknowledgement number further away belongs to something else */

/* Clang would leave the register of a result that nobody uses as it was, and the verifier refuses a function that returns
 * a pointer to the stack. */
#define IS_USED(result) asm volatile("" : "+r"(result))
#define CALL(function)                                                                                                 \
	do {                                                                                                           \
		int result_ = function;                                                                                \
		IS_USED(result_);                                                                                      \
	} while (0)

static __always_inline int nothing(void)
{
	int result = 0;

	IS_USED(result);
	return result;
}

/* In units of 1,024 ns, never 0. */
static __always_inline __u32 clock_1024ns(void)
{
	__u32 now = bpf_ktime_get_ns() >> SLOT_TIME_SHIFT;

	return now ?: 1;
}

static __always_inline __u32 us_of(__u32 units)
{
	return (__u64)units * 1024 / 1000;
}

static __always_inline int is_before(__u32 seq, __u32 other)
{
	return (__s32)(seq - other) < 0;
}

static __always_inline void first_insight(struct flow_insight *insight)
{
	__builtin_memset(insight, 0, sizeof(*insight));
	insight->rtt_min = insight->handshake_rtt = NO_SAMPLE;
}

/* The octets of sequence space that a packet takes (RFC 9293 section 3.4). */
static __always_inline __u32 sequence_octets(const struct packet *pkt)
{
	return pkt->payload + !!(pkt->tcp_flags & TCP_SYN) + (pkt->tcp_flags & TCP_FIN);
}

/* An end of the connection as a number. */
static __always_inline __u64 end_of(const __u64 *addr, __u16 port, __u16 ethertype)
{
	__u64 end = addr[1] ^ port;

	return ethertype == ETH_P_IPV6 ? end + addr[0] * settings.hash_keys[3] : end;
}

/* The same for both directions, and other for nearly all other connections: the product of both ends, each with a key. */
static __always_inline __u64 connection_hash(const struct packet *pkt)
{
	__u64 key = settings.hash_keys[0], place = pkt->ifindex | (__u64)VLAN_VID(pkt->vlan_tci) << 32;
	__u64 all = (end_of(pkt->src_addr, pkt->src_port, pkt->ethertype) + key) *
		    (end_of(pkt->dst_addr, pkt->dst_port, pkt->ethertype) + key);

	all ^= all >> 32;
	return (all + (place | (__u64)settings.netns << 44)) * settings.hash_keys[1];
}

/* Which side of its connection sends this packet. */
static __always_inline int side_of(const struct packet *pkt)
{
	if (pkt->src_addr[1] != pkt->dst_addr[1])
		return pkt->src_addr[1] > pkt->dst_addr[1];
	if (pkt->src_addr[0] != pkt->dst_addr[0])
		return pkt->src_addr[0] > pkt->dst_addr[0];
	return pkt->src_port > pkt->dst_port;
}

static __always_inline void add_sample(struct flow_insight *insight, __u32 sample)
{
	__u32 us = sample & ~ANSWERED_SYN;

	if (sample & ANSWERED_SYN && insight->handshake_rtt == NO_SAMPLE)
		insight->handshake_rtt = us;
	insight->rtt_sum += us;
	insight->rtt_samples++;
	if (us < insight->rtt_min)
		insight->rtt_min = us;
	if (us > insight->rtt_max)
		insight->rtt_max = us;
}

static __noinline int answered(struct tcp_pair *pair, int number)
{
	struct tcp_side *side = &pair->sides[number & 1];
	__u32 us = us_of(clock_1024ns() - side->sent);

	if (us <= LONGEST_US)
		side->sample = (us ?: 1) | (pair->armed[number & 1] & ARMED_BY_SYN ? ANSWERED_SYN : 0);
	side->sent = 0;
	return nothing();
}

/* So that the clock is read rarely: one packet in a tick, or in a millisecond, arms at most. */
#define TICK(now) ((__u16)((now) >> 20) & 0x7fff)

static __always_inline void arm(struct tcp_pair *pair, int number, const struct packet *pkt, __u32 end, __u16 tick)
{
	struct tcp_side *side = &pair->sides[number & 1];

	pair->armed[number & 1] = tick | (pkt->tcp_flags & TCP_SYN ? ARMED_BY_SYN : 0);
	side->expect = end;
	side->sent = clock_1024ns();
}

/* Whether something would be lost with it: an answer that is awaited, or a sample. */
static __always_inline int is_busy(const struct tcp_pair *pair)
{
	return pair->sides[0].sent || pair->sides[1].sent || pair->sides[0].sample || pair->sides[1].sample;
}

static __noinline int arm_anew(struct tcp_bucket *bucket, __u32 tag, const struct packet *pkt, __u32 end, __u16 tick)
{
	struct tcp_pair *pair = &bucket->pairs[tag & 1];

	if (is_busy(pair) && !is_busy(&bucket->pairs[(tag & 1) ^ 1]))
		pair = &bucket->pairs[(tag & 1) ^ 1];
	__builtin_memset(pair, 0, sizeof(*pair));
	pair->tag = tag;
	arm(pair, side_of(pkt), pkt, end, tick);
	return nothing();
}

/* Whether what fills the hole now is merely out of order: it comes sooner than it could have been sent again. */
static __always_inline int is_young_hole(const struct flow_insight *insight)
{
	__u32 least = insight->rtt_min == NO_SAMPLE ? REORDERED_US : insight->rtt_min;

	return insight->hole_since && us_of(clock_1024ns() - insight->hole_since) < least;
}

/* A packet that starts before the highest sequence number so far: sent again, or overtaken on its way. */
static __noinline int late(struct flow_insight *insight, const struct packet *pkt, __u32 next, __u32 end)
{
	__u32 octets = is_before(next, end) ? next - pkt->seq : end - pkt->seq, packets = pkt->packets;
	__u32 into = pkt->seq - insight->hole;
	int is_young;

	if (octets == 1 && pkt->seq + 1 == next && !(pkt->tcp_flags & TCP_CONNECTION))
		return nothing(); /* a keep-alive or window probe (RFC 9293 sections 3.8.4 and 3.8.6.1) */
	if (octets < pkt->payload)
		packets = ((__u64)octets * packets + pkt->payload - 1) / pkt->payload;
	if (insight->hole_since && into < insight->hole_octets) {
		is_young = is_young_hole(insight);
		if (!into) {
			insight->hole += octets;
			insight->hole_octets -= octets < insight->hole_octets ? octets : insight->hole_octets;
			if (!insight->hole_octets)
				insight->hole_since = 0;
		}
		if (is_young) {
			insight->out_of_order_packets += packets;
			return nothing();
		}
	}
	insight->retransmitted_packets += packets;
	insight->retransmitted_octets += octets;
	return nothing();
}

/* A packet that starts behind the highest sequence number so far. One hole is remembered until it is filled, or too old
 * for its packet to be merely out of order. */
static __noinline int leaves_hole(struct flow_insight *insight, __u32 next, __u32 octets)
{
	if (is_young_hole(insight))
		return nothing();
	insight->hole = next;
	insight->hole_octets = octets > 0xffff ? 0xffff : octets;
	insight->hole_since = clock_1024ns();
	return nothing();
}

static __noinline int count_connection(struct flow_insight *insight, const struct packet *pkt)
{
	insight->syn_packets += !!(pkt->tcp_flags & TCP_SYN);
	insight->fin_packets += !!(pkt->tcp_flags & TCP_FIN);
	insight->rst_packets += !!(pkt->tcp_flags & TCP_RST);
	return nothing();
}

/* Where the insight of a packet's flow is: beside a slot, or in an entry of a hash or a record. The compiler knows which:
 * the maps of slots are only there if the table is percpu_array. */
struct place {
	struct flow_metrics *entry;
	__u32 slot;
	__u32 in_slot;
};

static __always_inline struct flow_insight *insight_at(struct place *place)
{
	__u32 slot = place->slot;

	return place->in_slot ? bpf_map_lookup_elem(&flow_insights, &slot) : &place->entry->insight;
}

static __always_inline __u32 *next_seq_at(struct place *place)
{
	__u32 slot = place->slot;

	return place->in_slot ? bpf_map_lookup_elem(&next_seqs, &slot) : &place->entry->next_seq;
}

/* Follows the sequence numbers; whether the packet has new octets only. `first`: of the flow in this half of the
 * table, so that nothing is known of it. */
static __always_inline int follow_sequence(struct place *place, const struct packet *pkt, __u32 end, int first)
{
	__u32 *next = next_seq_at(place), before;
	struct flow_insight *insight;

	if (!next)
		return 0;
	before = *next;
	if (first || (pkt->tcp_flags & TCP_SYN && end != before) || pkt->seq == before) {
		*next = end;
		return end != pkt->seq;
	}
	insight = insight_at(place);
	if (!insight)
		return 0;
	if (is_before(pkt->seq, before)) {
		CALL(late(insight, pkt, before, end));
		if (is_before(before, end))
			*next = end;
		return 0;
	}
	CALL(leaves_hole(insight, before, pkt->seq - before));
	*next = end;
	return 1;
}

/* The flags that are counted, and a window of 0. */
static __always_inline void see_header(struct place *place, const struct packet *pkt)
{
	struct flow_insight *insight;

	if (!(pkt->tcp_flags & TCP_CONNECTION) && pkt->window)
		return;
	insight = insight_at(place);
	if (!insight)
		return;
	if (pkt->tcp_flags & TCP_CONNECTION)
		CALL(count_connection(insight, pkt));
	if (!pkt->window && !(pkt->tcp_flags & (TCP_SYN | TCP_RST)))
		insight->zero_window_packets += pkt->packets;
}

/* One TCP packet of a flow. */
static __always_inline void see_tcp(struct place *place, const struct packet *pkt, int first, __u16 tick)
{
	__u32 octets = pkt->tcp_flags & TCP_RST ? 0 : sequence_octets(pkt), end = pkt->seq + octets, bucket_index, tag;
	struct tcp_side *mine, *other;
	struct flow_insight *insight;
	struct tcp_bucket *bucket;
	struct tcp_pair *pair;
	__u64 hash;
	int side, may_arm;

	see_header(place, pkt);
	may_arm = (first || octets) && follow_sequence(place, pkt, end, first) && settings.sampling <= 1;

	hash = connection_hash(pkt);
	tag = hash;
	bucket_index = hash >> 32 & settings.pair_mask;
	bucket = bpf_map_lookup_elem(&tcp_pairs, &bucket_index);
	if (!bucket)
		return;
	side = side_of(pkt);
	pair = &bucket->pairs[0];
	if (pair->tag != tag)
		pair = &bucket->pairs[1];
	if (pair->tag != tag) {
		if (may_arm)
			CALL(arm_anew(bucket, tag, pkt, end, tick));
		return;
	}
	mine = &pair->sides[side & 1];
	other = &pair->sides[(side ^ 1) & 1];
	if (other->sent && pkt->tcp_flags & TCP_ACK && pkt->ack - other->expect < PLAUSIBLE)
		CALL(answered(pair, !side));
	if (mine->sample) {
		insight = insight_at(place);
		if (insight)
			add_sample(insight, mine->sample);
		mine->sample = 0;
	}
	if (!octets)
		return;
	if (mine->sent && is_before(pkt->seq, mine->expect)) /* sent again: nobody knows which one is answered (Karn) */
		mine->sent = 0;
	else if (may_arm && (pair->armed[side & 1] & ~ARMED_BY_SYN) != tick &&
		 (!mine->sent || us_of(clock_1024ns() - mine->sent) > LONGEST_US))
		arm(pair, side, pkt, end, tick);
}

static __always_inline void see(struct place *place, const struct packet *pkt, int first, __u16 tick)
{
	struct flow_insight *insight;

	if (first) {
		insight = insight_at(place);
		if (insight)
			first_insight(insight);
	}
	if (settings.extra_groups & EXTRA_TCP && pkt->has_tcp)
		see_tcp(place, pkt, first, tick);
}

static __noinline int see_new_slot(__u32 index, const struct packet *pkt, __u64 now)
{
	struct place place = { .slot = index, .in_slot = 1 };

	see(&place, pkt, 1, TICK(now));
	return nothing();
}

static __always_inline void see_in_slot(__u32 index, const struct packet *pkt, __u64 now, int first)
{
	struct place place = { .slot = index, .in_slot = 1 };

	if (first)
		CALL(see_new_slot(index, pkt, now));
	else
		see(&place, pkt, 0, TICK(now));
}

static __noinline int see_entry(struct flow_metrics *metrics, const struct packet *pkt, __u64 now, int first)
{
	struct place place = { .entry = metrics };

	see(&place, pkt, first, TICK(now));
	return nothing();
}

/* The same for an entry of a hash or a record of its own. */
static __always_inline void see_in_entry(struct flow_metrics *metrics, const struct packet *pkt, __u64 now, int first)
{
	CALL(see_entry(metrics, pkt, now, first));
}

/* Where an entry of a hash is made: it is too large for the stack. */
static __always_inline struct flow_metrics *fresh_entry(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&fresh_entries, &cpu);
}

#endif
#endif
