/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A GSO or GRO super-packet stands for several packets on the wire, and each of them repeats all headers. The
 * functions here count them, by the rule of the kernel's qdisc_pkt_len_init(). */
#ifndef NETOBS_GSO_BPF_H
#define NETOBS_GSO_BPF_H

#include "parse.bpf.h"

#define ETHERTYPE_TEB 0x6558 /* transparent Ethernet bridging: GRE and Geneve */
#define GRE_CHECKSUM 0x8000
#define GRE_KEY 0x2000
#define GRE_SEQUENCE 0x1000
#define IPV6_HEADER 40
#define UDP_HEADER 8
#define TUNNEL_HEADER 8 /* of VXLAN, and the fixed part of Geneve */
#define UDP_PORT_VXLAN 4789
#define UDP_PORT_VXLAN_LINUX 8472
#define UDP_PORT_GENEVE 6081

static __always_inline __u16 load_be16(struct __sk_buff *skb, __u32 offset)
{
	__be16 value = 0;

	bpf_skb_load_bytes(skb, offset, &value, sizeof(value));
	return bpf_ntohs(value);
}

static __always_inline __u8 load_u8(struct __sk_buff *skb, __u32 offset)
{
	__u8 value = 0;

	bpf_skb_load_bytes(skb, offset, &value, sizeof(value));
	return value;
}

/* The start of a tunnel's inner network header (the low half), and its EtherType (the high half). */
#define INNER(ethertype, offset) ((__u32)(ethertype) << 16 | (__u16)(offset))

static __always_inline __u32 inner_ethernet(struct __sk_buff *skb, __u32 offset)
{
	__u16 ethertype = load_be16(skb, offset + 2 * ETH_ALEN);

	if (!is_vlan(ethertype))
		return INNER(ethertype, offset + ETH_HLEN);
	return INNER(load_be16(skb, offset + ETH_HLEN + 2), offset + ETH_HLEN + sizeof(struct vlan_header));
}

static __always_inline __u32 inner_of_gre(struct __sk_buff *skb, __u32 offset)
{
	__u16 flags = load_be16(skb, offset), ethertype = load_be16(skb, offset + 2);

	offset += 4 + !!(flags & GRE_CHECKSUM) * 4 + !!(flags & GRE_KEY) * 4 + !!(flags & GRE_SEQUENCE) * 4;
	return ethertype == ETHERTYPE_TEB ? inner_ethernet(skb, offset) : INNER(ethertype, offset);
}

static __always_inline __u32 inner_of_geneve(struct __sk_buff *skb, __u32 offset)
{
	__u16 ethertype = load_be16(skb, offset + 2);

	offset += TUNNEL_HEADER + (load_u8(skb, offset) & 0x3f) * 4;
	return ethertype == ETHERTYPE_TEB ? inner_ethernet(skb, offset) : INNER(ethertype, offset);
}

static __always_inline __u32 inner_network(struct __sk_buff *skb, __u32 offset, __u32 protocol, __u32 dst_port)
{
	switch (protocol) {
	case IPPROTO_IPIP:
		return INNER(ETH_P_IP, offset);
	case IPPROTO_IPV6:
		return INNER(ETH_P_IPV6, offset);
	case IPPROTO_GRE:
		return inner_of_gre(skb, offset);
	case IPPROTO_UDP:
		if (dst_port == UDP_PORT_VXLAN || dst_port == UDP_PORT_VXLAN_LINUX)
			return inner_ethernet(skb, offset + UDP_HEADER + TUNNEL_HEADER);
		if (dst_port == UDP_PORT_GENEVE)
			return inner_of_geneve(skb, offset + UDP_HEADER);
	}
	return 0;
}

/* The start of a tunnelled super-packet's payload, behind the inner transport header. 0 if the transport header at
 * `offset` does not belong to a known tunnel. A function of its own, so that the verifier walks it once. */
__noinline __u32 netobs_inner_payload(struct __sk_buff *skb, __u32 offset, __u32 protocol, __u32 dst_port)
{
	__u32 inner = inner_network(skb, offset, protocol, dst_port), ethertype = inner >> 16;

	offset = inner & 0xffff;
	if (ethertype == ETH_P_IP) {
		protocol = load_u8(skb, offset + 9);
		offset += (load_u8(skb, offset) & 0x0f) * 4;
	} else if (ethertype == ETH_P_IPV6) {
		protocol = load_u8(skb, offset + 6);
		offset += IPV6_HEADER;
	} else {
		return 0;
	}
	if (protocol == IPPROTO_TCP)
		return offset + (load_u8(skb, offset + 12) >> 4) * 4;
	return offset + (protocol == IPPROTO_UDP ? UDP_HEADER : 0);
}

/* Turns the `total` octets of a super-packet into the octets of its segments on the wire; each repeats `headers`, and
 * the `link` octets before them. */
static __always_inline void count_segments(const struct cursor *cur, struct packet *pkt, __u32 total, __u32 headers,
					   __u32 link)
{
	__u32 size = cur->gso_size, segments = cur->gso_segments, payload, last;

	payload = total > headers ? total - headers : 0;
	if (!size || !payload)
		return;
	if (!segments) /* not set in packets from a guest or a packet socket (SKB_GSO_DODGY) */
		segments = (payload + size - 1) / size;
	pkt->packets = segments;
	pkt->octets = total + (segments - 1) * headers;
	pkt->headers = headers + link;
	last = payload % size;
	pkt->max_ip_length = headers + (payload < size ? payload : size);
	pkt->min_ip_length = last ? headers + last : pkt->max_ip_length;
}

#endif
