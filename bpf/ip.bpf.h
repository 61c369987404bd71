/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* IPv4 and IPv6 -> struct packet: lengths, addresses, fragments, extension headers. */
#ifndef NETOBS_IP_BPF_H
#define NETOBS_IP_BPF_H

#include "gso.bpf.h"
#include "parse.bpf.h"

#define MAPPED_IPV4 0xffff0000ULL /* bytes 8 to 11 of ::ffff:a.b.c.d, little-endian */
#define MAX_EXTENSION_HEADERS 64
#define MAX_JUMBO_OPTIONS 16 /* options of a hop-by-hop header that are searched for the jumbo payload option */
#define IPV6_JUMBO_OPTION 6
#define IPV6_JUMBO_HEADER 8 /* hop-by-hop header that the stack adds to a super-packet above 64 KiB (BIG TCP) */

/* An IP packet while its headers are walked. */
struct ip_packet {
	__u32 offset; /* of its header in the frame */
	__u32 octets;
	__u8 later_fragment;
};

static __always_inline void set_ipv4_addresses(struct packet *pkt, const struct iphdr *ip)
{
	pkt->src_addr[0] = pkt->dst_addr[0] = 0;
	pkt->src_addr[1] = MAPPED_IPV4 | (__u64)ip->saddr << 32;
	pkt->dst_addr[1] = MAPPED_IPV4 | (__u64)ip->daddr << 32;
}

static __always_inline void set_ipv6_addresses(struct packet *pkt, const struct ipv6hdr *ip)
{
	/* Word by word: the header is not aligned, and a memcpy would be done byte by byte. */
	pkt->src_addr[0] = ((const __u64 *)&ip->saddr)[0];
	pkt->src_addr[1] = ((const __u64 *)&ip->saddr)[1];
	pkt->dst_addr[0] = ((const __u64 *)&ip->daddr)[0];
	pkt->dst_addr[1] = ((const __u64 *)&ip->daddr)[1];
}

static __always_inline void finish_ip(struct cursor *cur, struct packet *pkt, const struct ip_packet *ip)
{
	__u32 header = cur->offset - ip->offset, transport = 0, payload;

	pkt->packets = 1;
	pkt->octets = ip->octets;
	pkt->min_ip_length = pkt->max_ip_length = ip->octets > 0xffff ? 0xffff : ip->octets;
	if (!ip->later_fragment && ip->octets > header) {
		transport = parse_transport(cur, pkt, ip->octets - header);
		NOTE(pkt, transport_offset, cur->offset);
		NOTE(pkt, transport_octets, ip->octets - header);
	}
	if (!cur->gso_size)
		return;
	payload = netobs_inner_payload(cur->skb, cur->offset, pkt->protocol, pkt->dst_port);
	count_segments(cur, pkt, ip->octets, (payload ?: cur->offset + transport) - ip->offset, ip->offset);
}

static __always_inline enum verdict parse_ipv4(struct cursor *cur, struct packet *pkt)
{
	struct iphdr copy, *hdr = peek(cur, &copy, sizeof(copy));
	__u32 available = cur->length - cur->offset, header;
	struct ip_packet ip = { .offset = cur->offset };
	__u8 first;

	if (!hdr)
		return PACKET_MALFORMED;
	first = *(__u8 *)hdr;
	header = (first & 0x0f) * 4;
	/* A super-packet has no padding, and beyond 64 KiB its length field is 0. */
	ip.octets = cur->gso_size ? available : bpf_ntohs(hdr->tot_len);
	if (first >> 4 != 4 || header < sizeof(copy) || ip.octets < header || ip.octets > available)
		return PACKET_MALFORMED;
	ip.later_fragment = (hdr->frag_off & bpf_htons(IPV4_OFFSET)) != 0;
	NOTE(pkt, ip_offset, cur->offset);

	set_ipv4_addresses(pkt, hdr);
	pkt->protocol = hdr->protocol;
	pkt->tos = hdr->tos;
	pkt->ttl = hdr->ttl;
	cur->offset += header;
	finish_ip(cur, pkt, &ip);
	return PACKET_IP;
}

static __always_inline int is_extension(__u8 next)
{
	switch (next) {
	case NEXTHDR_HOP:
	case NEXTHDR_ROUTING:
	case NEXTHDR_FRAGMENT:
	case NEXTHDR_AUTH:
	case NEXTHDR_DEST:
	case NEXTHDR_MOBILITY:
	case NEXTHDR_HIP:
	case NEXTHDR_SHIM6:
		return 1;
	}
	return 0;
}

/* The end of the walk over the extension headers. With NETOBS_EXTRA, the upper half has the bits for flow_extra. */
#define WALK_OFFSET(walk) ((walk)&0xffff)
#define WALK_PROTOCOL(walk) ((walk) >> 16 & 0xff)
#define WALK_LATER_FRAGMENT (1 << 24)
#define WALK_JUMBO (1 << 25)
#define WALK_TOO_LONG (1 << 26)
#define WALK_MORE_FRAGMENTS (1 << 27)

/* The bits of IE 515 (RFC 9740, registry "ipv6ExtensionHeaders Bits"). */
enum ipv6_header_bit {
	IPV6_BIT_DEST = 0,
	IPV6_BIT_HOP = 1,
	IPV6_BIT_NO_NEXT = 2,
	IPV6_BIT_UNKNOWN = 3, /* the rest is unreadable: encrypted (ESP) or compressed (IPComp) */
	IPV6_BIT_FIRST_FRAGMENT = 4,
	IPV6_BIT_ROUTING = 5,
	IPV6_BIT_LATER_FRAGMENT = 6,
	IPV6_BIT_MOBILITY = 12,
	IPV6_BIT_ESP = 13,
	IPV6_BIT_AUTH = 14,
	IPV6_BIT_HIP = 16,
	IPV6_BIT_SHIM6 = 17,
	IPV6_BIT_TEST_1 = 18, /* 253 and 254: for experiments and tests */
	IPV6_BIT_TEST_2 = 19,
};

/* The bits of a Next Header value; none for a fragment header, whose content decides. */
static __always_inline __u32 ipv6_header_bits(__u8 next)
{
	switch (next) {
	case NEXTHDR_DEST:
		return 1 << IPV6_BIT_DEST;
	case NEXTHDR_HOP:
		return 1 << IPV6_BIT_HOP;
	case NEXTHDR_ROUTING:
		return 1 << IPV6_BIT_ROUTING;
	case NEXTHDR_AUTH:
		return 1 << IPV6_BIT_AUTH;
	case NEXTHDR_MOBILITY:
		return 1 << IPV6_BIT_MOBILITY;
	case NEXTHDR_HIP:
		return 1 << IPV6_BIT_HIP;
	case NEXTHDR_SHIM6:
		return 1 << IPV6_BIT_SHIM6;
	case NEXTHDR_NONE:
		return 1 << IPV6_BIT_NO_NEXT;
	case NEXTHDR_ESP:
		return 1 << IPV6_BIT_ESP | 1 << IPV6_BIT_UNKNOWN;
	case NEXTHDR_IPCOMP:
		return 1 << IPV6_BIT_UNKNOWN;
	case NEXTHDR_TEST_1:
		return 1 << IPV6_BIT_TEST_1;
	case NEXTHDR_TEST_2:
		return 1 << IPV6_BIT_TEST_2;
	}
	return 0;
}

static __always_inline __u32 extension_size(__u8 protocol, const __u8 *header)
{
	if (protocol == NEXTHDR_FRAGMENT)
		return 8;
	if (protocol == NEXTHDR_AUTH) /* RFC 4302 section 2.2 */
		return (header[1] + 2) * 4;
	return (header[1] + 1) * 8;
}

#define WALK_GOES_ON (1 << 28) /* the next header is an extension header, too */

/* Reads the extension header `protocol` (RFC 8200 section 4) at `offset`. Returns a step of the walk, with the size of the
 * header in place of the offset; 0 where the header does not end before `end`. A function of its own, so that the verifier
 * checks it once, and not again for each header. */
__noinline __u64 netobs_extension(struct __sk_buff *skb, __u32 offset, __u32 protocol, __u32 end)
{
	__u32 flags = 0, bits = 0, size;
	__u8 header[8];

	if (offset + 8 > end || bpf_skb_load_bytes(skb, offset, header, sizeof(header)) < 0)
		return 0;
	size = extension_size(protocol, header);
	if (offset + size > end)
		return 0;
	if (protocol == NEXTHDR_FRAGMENT && ((header[2] << 8 | header[3]) & 0xfff8))
		flags |= WALK_LATER_FRAGMENT;
	else if (is_extension(header[0]))
		flags |= WALK_GOES_ON;
	if (NETOBS_EXTRA && protocol == NEXTHDR_FRAGMENT) {
		bits = 1 << (flags & WALK_LATER_FRAGMENT ? IPV6_BIT_LATER_FRAGMENT : IPV6_BIT_FIRST_FRAGMENT);
		flags |= header[3] & 1 ? WALK_MORE_FRAGMENTS : 0;
	} else if (NETOBS_EXTRA) {
		bits = ipv6_header_bits(protocol);
	}
	if (protocol == NEXTHDR_HOP && header[2] == IPV6_TLV_JUMBO && size == IPV6_JUMBO_HEADER)
		flags |= WALK_JUMBO;
	return (__u64)bits << 32 | flags | header[0] << 16 | size;
}

/* Walks the extension headers from `offset` to `end`. Stops after a later fragment's header and before a truncated
 * header: the result then has the protocol reached so far, and no transport header follows. More than
 * MAX_EXTENSION_HEADERS are too many. */
__noinline __u64 netobs_walk_extensions(struct __sk_buff *skb, __u32 offset, __u32 protocol, __u32 end)
{
	__u64 walk = 0, step;

	for (int i = 0; i < MAX_EXTENSION_HEADERS; i++) {
		step = netobs_extension(skb, offset, protocol, end);
		if (!step)
			break;
		offset += WALK_OFFSET(step);
		protocol = WALK_PROTOCOL(step);
		walk |= step & ~(__u64)0xffffff;
		if (!(step & WALK_GOES_ON))
			break;
		if (i == MAX_EXTENSION_HEADERS - 1)
			walk |= WALK_TOO_LONG;
	}
	return walk | (offset & 0xffff) | (protocol & 0xff) << 16;
}

/* 0 if there are too many. */
static __always_inline int parse_extensions(struct cursor *cur, struct packet *pkt, struct ip_packet *ip)
{
	__u64 walk = netobs_walk_extensions(cur->skb, cur->offset, pkt->protocol, ip->offset + ip->octets);

	cur->offset = WALK_OFFSET(walk);
	pkt->protocol = WALK_PROTOCOL(walk);
	ip->later_fragment = !!(walk & WALK_LATER_FRAGMENT);
	NOTE(pkt, more_fragments, !!(walk & WALK_MORE_FRAGMENTS));
	NOTE(pkt, ipv6_headers, walk >> 32);
	if (cur->gso_size && walk & WALK_JUMBO) {
		/* Not on the wire: the stack takes that header away when it segments. */
		ip->octets -= IPV6_JUMBO_HEADER;
		ip->offset += IPV6_JUMBO_HEADER;
		NOTE(pkt, ipv6_headers, (walk >> 32) & ~(1 << IPV6_BIT_HOP));
	}
	return !(walk & WALK_TOO_LONG);
}

/* The payload length in the jumbo payload option (RFC 2675 section 2) of the hop-by-hop header at `offset`. 0 if
 * there is no such option, or if its length is too short for that header. */
__noinline __u32 netobs_jumbo_payload(struct __sk_buff *skb, __u32 offset)
{
	__u32 size = (load_u8(skb, offset + 1) + 1) * 8, at = 2, length = 0;
	__u8 option[8];

	for (int i = 0; i < MAX_JUMBO_OPTIONS && at + IPV6_JUMBO_OPTION <= size; i++) {
		if (bpf_skb_load_bytes(skb, offset + at, option, IPV6_JUMBO_OPTION) < 0)
			return 0;
		if (option[0] == IPV6_TLV_JUMBO && option[1] == 4) {
			length = (__u32)option[2] << 24 | option[3] << 16 | option[4] << 8 | option[5];
			break;
		}
		at += option[0] == IPV6_TLV_PAD1 ? 1 : 2 + option[1];
	}
	return length < size ? 0 : length;
}

/* Octets of the IP packet; 0 if its lengths contradict each other. `available`: octets to the end of the frame. */
static __always_inline __u32 ipv6_octets(const struct cursor *cur, const struct ipv6hdr *hdr, __u32 available)
{
	__u32 payload = bpf_ntohs(hdr->payload_len);

	if (available < sizeof(*hdr))
		return 0;
	if (cur->gso_size) /* no padding, and beyond 64 KiB the length field is 0 (BIG TCP) */
		return available;
	if (!payload && hdr->nexthdr == NEXTHDR_HOP) {
		payload = netobs_jumbo_payload(cur->skb, cur->offset + sizeof(*hdr));
		if (!payload)
			return 0;
	}
	return payload > available - sizeof(*hdr) ? 0 : sizeof(*hdr) + payload;
}

static __always_inline enum verdict parse_ipv6(struct cursor *cur, struct packet *pkt)
{
	struct ipv6hdr copy, *hdr = peek(cur, &copy, sizeof(copy));
	struct ip_packet ip = { .offset = cur->offset };
	__u16 first;

	if (!hdr)
		return PACKET_MALFORMED;
	first = bpf_ntohs(*(__be16 *)hdr);
	ip.octets = ipv6_octets(cur, hdr, cur->length - cur->offset);
	if (first >> 12 != 6 || !ip.octets)
		return PACKET_MALFORMED;

	set_ipv6_addresses(pkt, hdr);
	pkt->protocol = hdr->nexthdr;
	pkt->tos = first >> 4;
	pkt->ttl = hdr->hop_limit;
	NOTE(pkt, ip_offset, cur->offset);
	cur->offset += sizeof(copy);
	if (is_extension(pkt->protocol) && !parse_extensions(cur, pkt, &ip))
		return PACKET_EXT_HEADERS;
	finish_ip(cur, pkt, &ip);
	return PACKET_IP;
}

#endif
