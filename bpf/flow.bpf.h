/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Updates an entry of a flow table with a packet. Pure inline functions: no map, no section. */
#ifndef NETOBS_FLOW_BPF_H
#define NETOBS_FLOW_BPF_H

#include "netobs.h"
#include "parse.bpf.h"

#define TCP_SYN 0x02
#define TCP_ENDS 0x05 /* FIN, RST */
#define TCP_CONNECTION (TCP_SYN | TCP_ENDS) /* the flags that may move the start of a flow */

/* Only for the first packet of a flow, so that not every packet carries the header along. */
static __always_inline void read_macs(struct __sk_buff *skb, const struct packet *pkt, __u8 *src, __u8 *dst)
{
	if (!pkt->has_ethernet)
		return;
	bpf_skb_load_bytes(skb, 0, dst, ETH_ALEN);
	bpf_skb_load_bytes(skb, ETH_ALEN, src, ETH_ALEN);
}

static __always_inline void make_key(struct flow_key *key, const struct packet *pkt, __u16 netns)
{
	__builtin_memcpy(key->src_addr, pkt->src_addr, sizeof(key->src_addr));
	__builtin_memcpy(key->dst_addr, pkt->dst_addr, sizeof(key->dst_addr));
	key->src_port = pkt->src_port;
	key->dst_port = pkt->dst_port | pkt->icmp;
	key->netns = netns;
	key->protocol = pkt->protocol;
	key->direction = pkt->direction;
	key->ethertype = pkt->ethertype;
	key->vlan_id = VLAN_VID(pkt->vlan_tci);
	key->ifindex = pkt->ifindex;
}

static __always_inline void first_packet(struct __sk_buff *skb, struct flow_metrics *metrics, const struct packet *pkt,
					 __u64 now)
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
	metrics->dot1q_priority = VLAN_PRIORITY(pkt->vlan_tci);
	metrics->errno_ = 0;
	metrics->flow_end_reason = 0;
	__builtin_memset(metrics->src_mac, 0, 2 * ETH_ALEN);
	read_macs(skb, pkt, metrics->src_mac, metrics->dst_mac);
	metrics->end = metrics->syn = now >> SLOT_TIME_SHIFT;
#if NETOBS_INSIGHT
	metrics->next_seq = metrics->reserved = 0;
#endif
}

/* The same for flow_metrics and flow_slot, whose layouts differ. */
static __always_inline void widen(const struct packet *pkt, __u16 *tcp_flags, __u16 *min_ip_length,
				  __u16 *max_ip_length, __u8 *min_ttl, __u8 *max_ttl)
{
	*tcp_flags |= pkt->tcp_flags;
	if (pkt->min_ip_length < *min_ip_length)
		*min_ip_length = pkt->min_ip_length;
	if (pkt->max_ip_length > *max_ip_length)
		*max_ip_length = pkt->max_ip_length;
	if (pkt->ttl < *min_ttl)
		*min_ttl = pkt->ttl;
	if (pkt->ttl > *max_ttl)
		*max_ttl = pkt->ttl;
}

static __always_inline void next_packet(struct flow_metrics *metrics, const struct packet *pkt, __u64 now)
{
	metrics->packets += pkt->packets;
	metrics->octets += pkt->octets;
	metrics->last_ns = now;
	widen(pkt, &metrics->tcp_flags, &metrics->min_ip_length, &metrics->max_ip_length, &metrics->min_ttl,
	      &metrics->max_ttl);
}

/* Updates `end` and `syn` for a packet with SYN, FIN or RST; `flags`: of earlier packets. Returns whether the flow
 * starts anew with it. Times have the resolution in which they are stored: within a tick, none is later than
 * another. */
static __always_inline int starts_anew(const struct packet *pkt, __u16 flags, __u64 now, __u32 *end, __u32 *syn)
{
	__u32 time = now >> SLOT_TIME_SHIFT;

	if (pkt->tcp_flags & TCP_ENDS && !(flags & TCP_ENDS))
		*end = time;
	if (!(pkt->tcp_flags & TCP_SYN))
		return 0;
	*syn = time;
	return flags & TCP_ENDS && time != *end;
}

/* The identifying words of a slot. */
struct slot_id {
	__u64 src[2];
	__u64 dst[2];
	__u64 ports; /* and ifindex */
	__u32 place; /* and protocol, used */
};

/* `netns`: netobs_settings.slot_netns. */
static __always_inline struct slot_id slot_id_of(const struct packet *pkt, __u32 netns)
{
	struct slot_id id = {
		.src = { pkt->src_addr[0], pkt->src_addr[1] },
		.dst = { pkt->dst_addr[0], pkt->dst_addr[1] },
		.ports = pkt->src_port | (__u32)(pkt->dst_port | pkt->icmp) << 16 | (__u64)pkt->ifindex << 32,
		.place = VLAN_VID(pkt->vlan_tci) | pkt->direction << SLOT_EGRESS_BIT |
			 (pkt->ethertype == ETH_P_IPV6) << SLOT_IPV6_BIT | pkt->protocol << 16 | netns,
	};
	return id;
}

/* Multiply and fold. Each word has a key of its own, so that nobody who does not know the keys can choose addresses that
 * cancel out. Multiplication carries upwards only: what varies in an address, its host part, is turned to the low end. */
static __always_inline __u32 slot_hash(const struct slot_id *id, const volatile __u64 *keys)
{
	__u64 hosts = __builtin_bswap64(id->src[1]) * keys[0] + __builtin_bswap64(id->dst[1]) * keys[1];
	__u64 rest = (id->ports ^ (__u64)id->place << 40) * keys[2];
	__u64 all = hosts ^ hosts >> 32 ^ rest ^ rest >> 31, prefixes;

	if (id->place & 1 << SLOT_IPV6_BIT) {
		prefixes = __builtin_bswap64(id->src[0]) * keys[3] + __builtin_bswap64(id->dst[0]) * keys[4];
		all ^= prefixes ^ prefixes >> 29;
	}
	return all * 0x9fb21c651e98df25ULL >> 40;
}

static __always_inline int slot_matches(const struct flow_slot *slot, const struct slot_id *id)
{
	const __u64 *words = (const __u64 *)slot;

	return words[1] == id->src[1] && words[3] == id->dst[1] && words[4] == id->ports &&
	       *(const __u32 *)(words + 5) == id->place && words[0] == id->src[0] && words[2] == id->dst[0];
}

static __always_inline void first_of_flow(struct __sk_buff *skb, struct flow_start *start, const struct packet *pkt,
					  __u64 now)
{
	start->first = now >> SLOT_TIME_SHIFT;
	start->tos = pkt->tos;
	start->dot1q_priority = VLAN_PRIORITY(pkt->vlan_tci);
	__builtin_memset(start->src_mac, 0, 2 * ETH_ALEN);
	read_macs(skb, pkt, start->src_mac, start->dst_mac);
}

static __always_inline void first_in_slot(struct __sk_buff *skb, struct flow_slot *slot, struct flow_start *start,
					  const struct slot_id *id, const struct packet *pkt, __u64 now)
{
	__u64 *words = (__u64 *)slot;

	words[0] = id->src[0];
	words[1] = id->src[1];
	words[2] = id->dst[0];
	words[3] = id->dst[1];
	words[4] = id->ports;
	words[5] = id->place | now >> SLOT_TIME_SHIFT << 32;
	words[6] = (__u64)pkt->packets << SLOT_OCTETS_BITS | pkt->octets;
	words[7] = pkt->tcp_flags | (__u32)pkt->min_ip_length << 16 | (__u64)pkt->max_ip_length << 32 |
		   (__u64)pkt->ttl << 48 | (__u64)pkt->ttl << 56;
	start->end = start->syn = now >> SLOT_TIME_SHIFT;
	first_of_flow(skb, start, pkt, now);
}

/* Packets or octets near the limit of their bits: later packets go to the overflow hash until the next eviction. */
#define SLOT_COUNTERS_HIGH (1ULL << 63 | 1ULL << (SLOT_OCTETS_BITS - 1))

static __always_inline void next_in_slot(struct flow_slot *slot, const struct packet *pkt, __u64 now)
{
	slot->counters += (__u64)pkt->packets << SLOT_OCTETS_BITS | pkt->octets;
	slot->last = now >> SLOT_TIME_SHIFT;
	widen(pkt, &slot->tcp_flags, &slot->min_ip_length, &slot->max_ip_length, &slot->min_ttl, &slot->max_ttl);
}

#endif
