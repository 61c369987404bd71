/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Fields that are measured only if a template asks for them: packet -> struct flow_extra, and its merge into an
 * entry of a flow table. Pure inline functions: no map, no section. The verifier knows `groups`, and removes the
 * code of groups that are off. Without NETOBS_EXTRA this file is empty. */
#ifndef NETOBS_EXTRA_BPF_H
#define NETOBS_EXTRA_BPF_H

#include "parse.bpf.h"

#if NETOBS_EXTRA

#include "ip.bpf.h"
#include "link.bpf.h"

#define NO_TCP_WINDOW 0xffff
#define MAX_TCP_OPTIONS 40 /* one octet each */
#define TCP_OPTION_END 0
#define TCP_OPTION_NOP 1
#define TCP_OPTION_TIMESTAMP 8
#define TCP_USUAL_OPTIONS bpf_htonl(0x0101080a) /* NOP, NOP, timestamp of 10 octets: nearly all segments */
#define FRAGMENT_DF 0x40 /* IE 197 */
#define FRAGMENT_MF 0x20
#define IPV6_FLOW_LABEL 0xfffff
#define KEPT_LABELS 3

/* The options from `offset` to `end` (RFC 9293 section 3.1), up to a truncated one. */
static __always_inline void walk_tcp_options(struct __sk_buff *skb, __u64 *kinds, __u32 offset, __u32 end)
{
	__u8 kind, length;

	for (int i = 0; i < MAX_TCP_OPTIONS && offset < end; i++, offset += length) {
		if (bpf_skb_load_bytes(skb, offset, &kind, sizeof(kind)) < 0)
			break;
		kinds[kind >> 6] |= 1ULL << (kind & 63);
		if (kind == TCP_OPTION_END)
			break;
		length = 1;
		if (kind != TCP_OPTION_NOP &&
		    (bpf_skb_load_bytes(skb, offset + 1, &length, sizeof(length)) < 0 || length < 2))
			break;
	}
}

static __always_inline void read_tcp(struct cursor *cur, struct flow_extra *extra, __u32 available, __u32 groups)
{
	__be16 copy[TCP_HEADER / 2], *words;
	__u32 octets, end;
	__be32 first;

	if (available < TCP_HEADER)
		return;
	words = peek(cur, copy, sizeof(copy));
	if (!words)
		return;
	if (groups & EXTRA_TCP_WINDOW)
		extra->min_tcp_window = bpf_ntohs(words[7]);
	octets = (bpf_ntohs(words[6]) >> 12) * 4;
	if (!(groups & EXTRA_TCP_OPTIONS) || octets <= TCP_HEADER)
		return;
	end = cur->offset + (octets < available ? octets : available);
	cur->offset += TCP_HEADER;
	if (octets == TCP_HEADER + 12 && bpf_skb_load_bytes(cur->skb, cur->offset, &first, sizeof(first)) == 0 &&
	    first == TCP_USUAL_OPTIONS)
		extra->tcp_options[0] = 1 << TCP_OPTION_NOP | 1 << TCP_OPTION_TIMESTAMP;
	else
		walk_tcp_options(cur->skb, extra->tcp_options, cur->offset, end);
}

static __always_inline void read_ip(struct cursor *cur, struct flow_extra *extra, __u32 version)
{
	__be32 copy[2], *words = peek(cur, copy, sizeof(copy));

	if (!words)
		return;
	if (version == 4)
		extra->fragment_flags = bpf_ntohl(words[1]) >> 8 & (FRAGMENT_DF | FRAGMENT_MF);
	else
		extra->flow_label = bpf_ntohl(words[0]) & IPV6_FLOW_LABEL;
}

/* The tag behind the tag with the VLAN id, in the order of parse_vlan(). */
static __always_inline void read_customer_tag(struct __sk_buff *skb, struct flow_extra *extra)
{
	int tags = !!skb->vlan_present, is_next = tags && VLAN_VID(skb->vlan_tci);
	__u32 offset = 2 * ETH_ALEN;
	__u16 tci;

	for (; tags < MAX_VLAN_TAGS && is_vlan(load_be16(skb, offset)); tags++, offset += sizeof(struct vlan_header)) {
		tci = load_be16(skb, offset + 2);
		if (is_next) {
			extra->customer_vlan_id = VLAN_VID(tci);
			extra->customer_priority = VLAN_PRIORITY(tci);
			return;
		}
		is_next = VLAN_VID(tci);
	}
}

/* `offset`: of the stack, `labels` entries of it. */
static __always_inline void read_labels(struct __sk_buff *skb, struct flow_extra *extra, __u32 offset, __u32 labels)
{
	extra->mpls_depth = labels;
	for (__u32 i = 0; i < KEPT_LABELS && i < labels; i++, offset += MPLS_LABEL)
		bpf_skb_load_bytes(skb, offset, extra->mpls_labels[i], sizeof(extra->mpls_labels[i]));
}

/* The positions of a packet's headers, in one argument. */
#define WHERE(pkt)                                                                                                     \
	((__u16)(pkt)->ip_offset | (__u64)(__u16)(pkt)->transport_offset << 16 | (__u64)(pkt)->labels << 32 |          \
	 (__u64)(pkt)->protocol << 40 | (__u64)((pkt)->ethertype == ETH_P_IPV6) << 48 |                                \
	 (__u64)(pkt)->has_ethernet << 49 | (__u64)(pkt)->more_fragments << 50)
#define WHERE_IP(where) ((__u16)(where))
#define WHERE_TRANSPORT(where) ((__u16)((where) >> 16))
#define WHERE_LABELS(where) ((__u8)((where) >> 32))
#define WHERE_PROTOCOL(where) ((__u8)((where) >> 40))
#define WHERE_IS_IPV6(where) ((where) >> 48 & 1)
#define WHERE_HAS_ETHERNET(where) ((where) >> 49 & 1)
#define WHERE_MORE_FRAGMENTS(where) ((where) >> 50 & 1)

/* Fills `extra`, which is zero, from the headers; does not fill layer2_octets and ipv6_headers. */
static __always_inline void read_headers(struct __sk_buff *skb, struct flow_extra *extra, __u64 where,
					 __u32 transport_octets, __u32 groups)
{
	struct cursor cur = cursor_at(skb);

	extra->min_tcp_window = NO_TCP_WINDOW;
	if (groups & EXTRA_LINK &&
	    WHERE_IP(where) > ETH_HLEN) { /* else there is neither a tag nor a label in the frame */
		if (WHERE_HAS_ETHERNET(where))
			read_customer_tag(skb, extra);
		read_labels(skb, extra, WHERE_IP(where) - WHERE_LABELS(where) * MPLS_LABEL, WHERE_LABELS(where));
	}
	cur.offset = WHERE_IP(where);
	if (groups & EXTRA_IP) {
		extra->fragment_flags = WHERE_MORE_FRAGMENTS(where) ? FRAGMENT_MF : 0;
		read_ip(&cur, extra, WHERE_IS_IPV6(where) ? 6 : 4);
	}
	cur.offset = WHERE_TRANSPORT(where);
	if (groups & (EXTRA_TCP_OPTIONS | EXTRA_TCP_WINDOW) && WHERE_PROTOCOL(where) == IPPROTO_TCP)
		read_tcp(&cur, extra, transport_octets, groups);
}

/* Includes the header behind the last extension header, unless that is in another fragment. */
static __always_inline __u32 all_ipv6_headers(const struct packet *pkt)
{
	if (pkt->ethertype != ETH_P_IPV6)
		return 0;
	if (pkt->ipv6_headers & 1 << IPV6_BIT_LATER_FRAGMENT)
		return pkt->ipv6_headers;
	return pkt->ipv6_headers | ipv6_header_bits(pkt->protocol);
}

/* Each segment of a super-packet repeats everything before the IP header; none of them is padded. */
static __always_inline __u64 layer2_octets(const struct __sk_buff *skb, const struct packet *pkt)
{
	__u32 tag = skb->vlan_present ? sizeof(struct vlan_header) : 0;

	return skb->gso_size ? pkt->octets + (__u64)pkt->packets * (pkt->ip_offset + tag) : skb->len + tag;
}

/* These come from the packet that starts the flow anew. */
static __always_inline void first_extra_of_flow(struct flow_extra *extra, const struct flow_extra *packet)
{
	extra->flow_label = packet->flow_label;
	extra->customer_vlan_id = packet->customer_vlan_id;
	extra->customer_priority = packet->customer_priority;
	extra->fragment_flags = packet->fragment_flags;
	extra->mpls_depth = packet->mpls_depth;
	__builtin_memcpy(extra->mpls_labels, packet->mpls_labels, sizeof(extra->mpls_labels));
}

static __always_inline void next_extra(struct flow_extra *extra, const struct flow_extra *packet, __u32 groups)
{
	if (groups & EXTRA_TCP_OPTIONS)
		for (int i = 0; i < 4; i++)
			extra->tcp_options[i] |= packet->tcp_options[i];
	if (groups & EXTRA_LAYER2_OCTETS)
		extra->layer2_octets += packet->layer2_octets;
	if (groups & EXTRA_IP)
		extra->ipv6_headers |= packet->ipv6_headers;
	if (groups & EXTRA_TCP_WINDOW && packet->min_tcp_window < extra->min_tcp_window)
		extra->min_tcp_window = packet->min_tcp_window;
}

#endif
#endif
