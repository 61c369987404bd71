/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Headers between Ethernet and IP besides VLAN tags: LLC/SNAP, a PPPoE session, an MPLS label stack, in this
 * order. They are parsed only if the EtherType is not that of IP. */
#ifndef NETOBS_LINK_BPF_H
#define NETOBS_LINK_BPF_H

#include "parse.bpf.h"

#define MAX_MPLS_LABELS 16
#define MPLS_LABEL 4 /* octets of an entry of the stack */
#define SNAP_HEADER 8
#define PPPOE_HEADER 6
#define PPP_IP 0x0021
#define PPP_IPV6 0x0057
#define PPP_MPLS_UC 0x0281
#define PPP_MPLS_MC 0x0283

static __always_inline int is_mpls(__u32 ethertype)
{
	return ethertype == ETH_P_MPLS_UC || ethertype == ETH_P_MPLS_MC;
}

/* Whether a header that parse_link() knows may follow. */
static __always_inline int is_link(__u32 ethertype)
{
	return ethertype < ETH_P_802_3_MIN || ethertype == ETH_P_PPP_SES || is_mpls(ethertype);
}

/* The result: the EtherType, the position of its header, and the end of the frame without its padding. */
#define LINK(ethertype, offset, end) ((__u64)(end) << 32 | ((offset)&0x7fff) << 16 | ((ethertype)&0xffff))
#define LINK_GUESSED (1ULL << 31) /* no header says that it is IP */
#define LINK_LABELS_SHIFT 56 /* with NETOBS_EXTRA: entries of the label stack; no frame needs these bits of its end */
#define LINK_ETHERTYPE(link) ((__u16)(link))
#define LINK_OFFSET(link) ((__u32)(link) >> 16 & 0x7fff)
#define LINK_END(link) (NETOBS_EXTRA ? (__u32)((link) >> 32 & 0xffffff) : (__u32)((link) >> 32))

/* The EtherType in a SNAP header (RFC 1042). Without such a header it is `length`, which is not an EtherType. */
static __always_inline __u32 snap_ethertype(struct __sk_buff *skb, __u32 offset, __u32 length)
{
	__u8 snap[SNAP_HEADER];

	if (bpf_skb_load_bytes(skb, offset, snap, sizeof(snap)) < 0)
		return length;
	if (snap[0] != 0xaa || snap[1] != 0xaa || snap[2] != 3 || snap[3] || snap[4] || snap[5])
		return length;
	return snap[6] << 8 | snap[7];
}

/* A session of version and type 1 (RFC 2516). The PPP protocol may be one octet long (RFC 1661 section 6.5). */
static __always_inline __u64 pppoe_session(struct __sk_buff *skb, __u32 offset, __u32 end)
{
	__u32 length, protocol, next = ETH_P_PPP_SES;
	__u8 header[PPPOE_HEADER + 2];

	if (bpf_skb_load_bytes(skb, offset, header, sizeof(header)) < 0 || header[0] != 0x11 || header[1])
		return LINK(ETH_P_PPP_SES, offset, end);
	length = header[4] << 8 | header[5];
	offset += PPPOE_HEADER;
	if (offset + length < end)
		end = offset + length;
	protocol = header[6];
	if (!(protocol & 1)) {
		protocol = protocol << 8 | header[7];
		offset++;
	}
	offset++;
	if (protocol == PPP_IP)
		next = ETH_P_IP;
	else if (protocol == PPP_IPV6)
		next = ETH_P_IPV6;
	else if (protocol == PPP_MPLS_UC)
		next = ETH_P_MPLS_UC;
	else if (protocol == PPP_MPLS_MC)
		next = ETH_P_MPLS_MC;
	return LINK(next, offset, end);
}

/* A label stack (RFC 3032) does not tell the protocol behind it. The first four bits do, if it is IP. A control
 * word of a pseudowire starts with 0 or 1 (RFC 4385). */
static __always_inline __u64 mpls_payload(struct __sk_buff *skb, __u32 offset, __u32 end, __u32 ethertype)
{
	__u8 entry[8] = {}; /* half of it used: old verifiers forget a counter that shares its 8 bytes of stack */
	__u64 labels;

	for (labels = 0; labels < MAX_MPLS_LABELS && !(entry[2] & 1); labels++) {
		if (bpf_skb_load_bytes(skb, offset, entry, MPLS_LABEL) < 0)
			return LINK(ethertype, offset, end);
		offset += MPLS_LABEL;
	}
	if (!(entry[2] & 1) || bpf_skb_load_bytes(skb, offset, entry, 1) < 0)
		return LINK(ethertype, offset, end);
	if (entry[0] >> 4 == 4)
		ethertype = ETH_P_IP;
	else if (entry[0] >> 4 == 6)
		ethertype = ETH_P_IPV6;
	return LINK(ethertype, offset, end) | LINK_GUESSED | (NETOBS_EXTRA ? labels << LINK_LABELS_SHIFT : 0);
}

/* A function of its own, so that the verifier walks it once. */
__noinline __u64 netobs_link(struct __sk_buff *skb, __u32 offset, __u32 ethertype, __u32 end)
{
	__u32 length = ethertype;
	__u64 link;

	if (length < ETH_P_802_3_MIN) {
		ethertype = snap_ethertype(skb, offset, length);
		if (ethertype == length)
			return LINK(ethertype, offset, end);
		if (offset + length < end)
			end = offset + length;
		offset += SNAP_HEADER;
	}
	link = LINK(ethertype, offset, end);
	if (ethertype == ETH_P_PPP_SES)
		link = pppoe_session(skb, offset, end);
	if (is_mpls(LINK_ETHERTYPE(link)))
		link = mpls_payload(skb, LINK_OFFSET(link), LINK_END(link), LINK_ETHERTYPE(link));
	return link;
}

/* Moves the cursor to the IP header, if there is one; else `ethertype` becomes the unknown EtherType. Returns
 * whether the IP header is a guess. */
static __always_inline int parse_link(struct cursor *cur, struct packet *pkt)
{
	__u64 link = netobs_link(cur->skb, cur->offset, pkt->ethertype, cur->length);

	pkt->ethertype = LINK_ETHERTYPE(link);
	cur->offset = LINK_OFFSET(link);
	NOTE(pkt, labels, link >> LINK_LABELS_SHIFT);
	if (!cur->gso_size) /* a super-packet has no padding, and may be too long for these lengths */
		cur->length = LINK_END(link) > cur->offset ? LINK_END(link) : cur->offset;
	return !!(link & LINK_GUESSED);
}

#endif
