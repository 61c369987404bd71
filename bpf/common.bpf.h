/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Parses the bulk of all traffic in few instructions: Ethernet without a tag in the frame, IPv4 or IPv6 without
 * options, extension headers or fragments, TCP or UDP, linear, no super-packet. parse.bpf.h parses all other
 * packets, and gives the same result for these (a test compares the two). */
#ifndef NETOBS_COMMON_BPF_H
#define NETOBS_COMMON_BPF_H

#include "ip.bpf.h"
#include "link.bpf.h"
#include "parse.bpf.h"

#define IPV4_PLAIN 0x45 /* version 4, five words of header */
#define IPV4_FRAGMENT 0x3fff /* more fragments, or an offset */
#define UDP_HEADER_WORDS 4
#define TCP_FLAGS_WORD 6
#define TCP_WORDS (TCP_FLAGS_WORD + 1 + NETOBS_INSIGHT) /* that are read: the window, too */

/* Ports and flags at `transport`; `octets` are left in the packet from there on. 0 if it is not plain. */
static __always_inline int common_transport(struct packet *pkt, const __be16 *transport, void *end, __u32 octets)
{
	if (pkt->protocol == IPPROTO_TCP) {
		if ((void *)(transport + TCP_WORDS) > end || octets < 2 * TCP_WORDS)
			return 0;
		NOTE_TCP(pkt, (const __be32 *)transport, octets);
		pkt->tcp_flags = bpf_ntohs(transport[TCP_FLAGS_WORD]) & TCP_FLAGS;
	} else if (pkt->protocol != IPPROTO_UDP || octets < 2 * UDP_HEADER_WORDS) {
		return 0;
	}
	pkt->src_port = bpf_ntohs(transport[0]);
	pkt->dst_port = bpf_ntohs(transport[1]);
	return 1;
}

static __always_inline int common_ipv4(struct packet *pkt, const struct iphdr *ip, void *end, __u32 available)
{
	__u32 octets = bpf_ntohs(ip->tot_len);

	if (*(__u8 *)ip != IPV4_PLAIN || ip->frag_off & bpf_htons(IPV4_FRAGMENT) || octets > available)
		return 0;
	pkt->protocol = ip->protocol;
	if (octets < sizeof(*ip) || !common_transport(pkt, (const __be16 *)(ip + 1), end, octets - sizeof(*ip)))
		return 0;
	set_ipv4_addresses(pkt, ip);
	NOTE(pkt, transport_offset, ETH_HLEN + sizeof(*ip));
	NOTE(pkt, transport_octets, octets - sizeof(*ip));
	pkt->tos = ip->tos;
	pkt->ttl = ip->ttl;
	pkt->octets = octets;
	pkt->unlike = available - octets; /* padding */
	return 1;
}

static __always_inline int common_ipv6(struct packet *pkt, const struct ipv6hdr *ip, void *end, __u32 available)
{
	__u32 payload = bpf_ntohs(ip->payload_len), octets = sizeof(*ip) + payload, first = bpf_ntohs(*(__be16 *)ip);

	if (first >> 12 != 6 || octets > available || octets > 0xffff) /* as lengths, 65,536 would be 0 */
		return 0;
	pkt->protocol = ip->nexthdr;
	if (!common_transport(pkt, (const __be16 *)(ip + 1), end, payload))
		return 0;
	set_ipv6_addresses(pkt, ip);
	NOTE(pkt, transport_offset, ETH_HLEN + sizeof(*ip));
	NOTE(pkt, transport_octets, payload);
	pkt->tos = first >> 4;
	pkt->ttl = ip->hop_limit;
	pkt->octets = octets;
	pkt->unlike = available - octets; /* padding */
	return 1;
}

/* Fills `pkt`, which is zero. Returns 0 for packets that are not plain; `pkt` may then already have ports and
 * flags. */
static __always_inline int parse_common(struct __sk_buff *skb, struct packet *pkt)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end, *ip = data + ETH_HLEN;
	__u32 available = skb->len - ETH_HLEN, taken = 0;
	const __be16 *frame = data;

	if (skb->gso_size || ip + sizeof(struct iphdr) + UDP_HEADER > end)
		return 0;
	pkt->ethertype = bpf_ntohs(frame[ETH_HLEN / 2 - 1]);
	if (pkt->ethertype == ETH_P_IP)
		taken = common_ipv4(pkt, ip, end, available);
	else if (pkt->ethertype == ETH_P_IPV6 && ip + sizeof(struct ipv6hdr) + UDP_HEADER <= end)
		taken = common_ipv6(pkt, ip, end, available);
	if (!taken)
		return 0;
	NOTE(pkt, ip_offset, ETH_HLEN);
	pkt->packets = 1;
	pkt->min_ip_length = pkt->max_ip_length = pkt->octets;
	if (skb->vlan_present) {
		pkt->vlan_tci = skb->vlan_tci;
		pkt->unlike = 1;
	}
	return 1;
}

/* Any packet. A function of its own, so that the common path stays short. */
static __noinline enum verdict parse_any(struct __sk_buff *skb, struct packet *pkt)
{
	struct cursor cur = cursor_at(skb);
	__u32 ethertype = pkt->has_ethernet ? parse_ethernet(&cur, pkt) : bpf_ntohs(skb->protocol);
	enum verdict verdict;
	int guessed;

	pkt->tcp_flags = pkt->src_port = pkt->dst_port = 0; /* parse_common may have set them */
	pkt->unlike = 1;
	if (ethertype == FRAME_ENDS)
		return PACKET_MALFORMED;
	pkt->ethertype = ethertype;
	guessed = is_link(ethertype) && parse_link(&cur, pkt);
	if (pkt->ethertype == ETH_P_IP)
		verdict = parse_ipv4(&cur, pkt);
	else if (pkt->ethertype == ETH_P_IPV6)
		verdict = parse_ipv6(&cur, pkt);
	else
		return PACKET_NOT_IP;
	if (verdict != PACKET_MALFORMED || !guessed)
		return verdict;
	pkt->ethertype = ethertype;
	return PACKET_NOT_IP;
}

/* Fills `pkt`, which is zero except for has_ethernet and the fields that come from no header. */
static __always_inline enum verdict parse_packet(struct __sk_buff *skb, struct packet *pkt)
{
	if (pkt->has_ethernet && parse_common(skb, pkt))
		return PACKET_IP;
	return parse_any(skb, pkt);
}

#endif
