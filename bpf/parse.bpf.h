/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Packet headers -> struct packet. Pure inline functions: no map, no section. */
#ifndef NETOBS_PARSE_BPF_H
#define NETOBS_PARSE_BPF_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "netobs.h"

#define MAX_VLAN_TAGS 4 /* the one in the metadata is one of them: the bound is the same at ingress and egress */
#define FRAME_ENDS 0x10000 /* instead of an EtherType: the frame ends before it */

#define VLAN_VID(tci) ((tci)&0x0fff)
#define VLAN_PRIORITY(tci) (((tci) >> 13) & 7)
#define ETHERTYPE_QINQ_OLD 0x9100 /* before 802.1ad: still seen */
#define IPV4_OFFSET 0x1fff
#define TCP_HEADER 20
#define TCP_FLAGS 0x0fff /* reserved bits included: RFC 9565 exports what was on the wire */
#define NEXTHDR_HOP 0
#define NEXTHDR_ROUTING 43
#define NEXTHDR_FRAGMENT 44
#define NEXTHDR_ESP 50
#define NEXTHDR_AUTH 51
#define NEXTHDR_NONE 59
#define NEXTHDR_DEST 60
#define NEXTHDR_IPCOMP 108
#define NEXTHDR_MOBILITY 135
#define NEXTHDR_HIP 139
#define NEXTHDR_SHIM6 140
#define NEXTHDR_TEST_1 253
#define NEXTHDR_TEST_2 254

/* The contribution of one skb to a flow. Only words and numbers, never passed to a helper: it lives in registers. */
struct packet {
	__u64 src_addr[2]; /* as in memory: network order, IPv4 as ::ffff:a.b.c.d */
	__u64 dst_addr[2];
	__u32 packets; /* on the wire: more than one for a super-packet */
	__u32 octets; /* all of them together */
	__u32 unlike; /* not 0: the frame is other than one IP packet behind an Ethernet header */
	__u32 ifindex;
	__u16 src_port;
	__u16 dst_port;
	__u16 icmp; /* type << 8 | code */
	__u16 ethertype;
	__u16 vlan_tci;
	__u16 tcp_flags;
	__u16 min_ip_length; /* of the wire packets */
	__u16 max_ip_length;
	__u16 headers; /* of a super-packet's frame, which each of its segments has on the wire */
	__u8 protocol;
	__u8 direction;
	__u8 has_ethernet;
	__u8 ttl;
	__u8 tos;
#if NETOBS_EXTRA
	__u8 labels; /* entries of an MPLS label stack, right before the IP header */
	__u8 more_fragments; /* flag M of an IPv6 fragment header */
	__u32 ipv6_headers; /* as in flow_extra */
	__u32 ip_offset; /* of the IP header in the frame */
	__u32 transport_offset;
	__u32 transport_octets; /* from there to the end of the IP packet; 0 in a later fragment */
#endif
#if NETOBS_INSIGHT
	__u32 seq; /* TCP: as in the header, like ack and window */
	__u32 ack;
	__u32 payload; /* octets, of a super-packet all of them */
	__u16 window;
	__u8 has_tcp; /* a whole header */
#endif
};

/* Keeps a value of the parser for extra.bpf.h. */
#if NETOBS_EXTRA
#define NOTE(pkt, field, value) ((pkt)->field = (value))
#else
#define NOTE(pkt, field, value) ((void)0)
#endif

enum verdict {
	PACKET_IP,
	PACKET_NOT_IP, /* `ethertype` names the protocol */
	PACKET_MALFORMED,
	PACKET_EXT_HEADERS, /* more IPv6 extension headers than are walked */
};

/* Position in the packet. Linear headers are read in place; others are copied. The fields of the skb are read once:
 * otherwise clang would compute pointers into the context, which the verifier forbids. */
struct cursor {
	struct __sk_buff *skb;
	void *data;
	void *end; /* of the linear part */
	__u32 offset;
	__u32 length; /* of the whole frame */
	__u32 gso_size;
	__u32 gso_segments;
};

static __always_inline struct cursor cursor_at(struct __sk_buff *skb)
{
	struct cursor cur = {
		.skb = skb,
		.data = (void *)(long)skb->data,
		.end = (void *)(long)skb->data_end,
		.length = skb->len,
		.gso_size = skb->gso_size,
		.gso_segments = skb->gso_segs,
	};
	return cur;
}

/* The next `size` bytes at the cursor, or NULL if the frame ends before. `copy` is used for non-linear data. */
static __always_inline void *peek(const struct cursor *cur, void *copy, __u32 size)
{
	__u32 offset = cur->offset & 0x7fff; /* for the verifier: headers end far below */
	void *start = cur->data + offset;

	if (start + size <= cur->end)
		return start;
	if (bpf_skb_load_bytes(cur->skb, offset, copy, size) < 0)
		return NULL;
	return copy;
}

struct vlan_header {
	__be16 tci;
	__be16 ethertype;
};

static __always_inline int is_vlan(__u16 ethertype)
{
	return ethertype == ETH_P_8021Q || ethertype == ETH_P_8021AD || ethertype == ETHERTYPE_QINQ_OLD;
}

/* The outer tag counts: the one in the metadata if there is one, else the first in the frame. A priority tag (802.1Q
 * clause 9.6: VLAN id 0) gives the priority only, and the next tag the VLAN id. Returns the EtherType of what follows
 * the tags. */
static __always_inline __u32 parse_vlan(struct cursor *cur, struct packet *pkt, __u32 ethertype)
{
	struct vlan_header copy, *tag;
	int tags = 0;

	if (cur->skb->vlan_present) {
		pkt->vlan_tci = cur->skb->vlan_tci;
		tags = 1;
	}
	for (; tags < MAX_VLAN_TAGS && is_vlan(ethertype); tags++) {
		tag = peek(cur, &copy, sizeof(copy));
		if (!tag)
			return FRAME_ENDS;
		if (!tags)
			pkt->vlan_tci = bpf_ntohs(tag->tci);
		else if (!VLAN_VID(pkt->vlan_tci))
			pkt->vlan_tci |= VLAN_VID(bpf_ntohs(tag->tci));
		ethertype = bpf_ntohs(tag->ethertype);
		cur->offset += sizeof(copy);
	}
	return ethertype;
}

static __always_inline __u32 parse_ethernet(struct cursor *cur, struct packet *pkt)
{
	__be16 copy[7], *words = peek(cur, copy, sizeof(copy)); /* struct ethhdr is packed: read byte by byte */

	if (!words)
		return FRAME_ENDS;
	cur->offset += sizeof(copy);
	return parse_vlan(cur, pkt, bpf_ntohs(words[6]));
}

#if NETOBS_INSIGHT
/* `words`: the first four of a TCP header, or NULL; `octets`: of it and the payload. */
static __always_inline void note_tcp(struct packet *pkt, const __be32 *words, __u32 octets)
{
	__u32 header;

	if (!words)
		return;
	header = (bpf_ntohl(words[3]) >> 28) * 4;
	if (header < TCP_HEADER || header > octets)
		return;
	pkt->seq = bpf_ntohl(words[1]);
	pkt->ack = bpf_ntohl(words[2]);
	pkt->window = bpf_ntohl(words[3]);
	pkt->payload = octets - header;
	pkt->has_tcp = 1;
}

static __always_inline void read_tcp_numbers(const struct cursor *cur, struct packet *pkt, __u32 octets)
{
	__be32 copy[4];

	note_tcp(pkt, peek(cur, copy, sizeof(copy)), octets);
}
#define NOTE_TCP(pkt, words, octets) note_tcp(pkt, words, octets)
#define READ_TCP_NUMBERS(cur, pkt, octets) read_tcp_numbers(cur, pkt, octets)
#else
#define NOTE_TCP(pkt, words, octets) ((void)0)
#define READ_TCP_NUMBERS(cur, pkt, octets) ((void)0)
#endif

/* Ports, ICMP type and code, TCP flags. `octets` are left in the IP packet: bytes after it are padding, not header.
 * A truncated header leaves zeros: the packet still counts in the flow of its addresses.
 * Returns the octets of the header, as repeated in each segment of a super-packet. */
static __always_inline __u32 parse_transport(struct cursor *cur, struct packet *pkt, __u32 octets)
{
	__be16 copy[7], *words;

	switch (pkt->protocol) {
	case IPPROTO_TCP:
		if (octets < sizeof(copy))
			break;
		words = peek(cur, copy, sizeof(copy));
		if (!words)
			return 0;
		pkt->src_port = bpf_ntohs(words[0]);
		pkt->dst_port = bpf_ntohs(words[1]);
		pkt->tcp_flags = bpf_ntohs(words[6]) & TCP_FLAGS;
		READ_TCP_NUMBERS(cur, pkt, octets);
		return (bpf_ntohs(words[6]) >> 12) * 4;
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_SCTP:
	case IPPROTO_DCCP:
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (octets < 2)
			return 0;
		words = peek(cur, copy, 2);
		if (!words)
			return 0;
		pkt->icmp = bpf_ntohs(words[0]);
		return 0;
	default:
		return 0;
	}
	if (octets < 4)
		return 0;
	words = peek(cur, copy, 4);
	if (!words)
		return 0;
	pkt->src_port = bpf_ntohs(words[0]);
	pkt->dst_port = bpf_ntohs(words[1]);
	return pkt->protocol == IPPROTO_SCTP ? 12 : 8;
}

#endif
