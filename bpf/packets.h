/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The one definition of what the packet capture agent's programs share with user space.
 * netobs/pcap/layout.py mirrors it; a test compares the two by the BTF of the object. */
#ifndef PACKETS_H
#define PACKETS_H

#include <linux/types.h>

enum packet_link { /* what a packet begins with */
	PACKET_LINK_ETHERNET = 0,
	PACKET_LINK_IP = 1,
};

/* Slots of the program array: a filter hands over to the copier of the same direction and link. An empty filter slot
 * selects nothing. */
enum packet_slot {
	PACKET_FILTER_INGRESS = 0,
	PACKET_FILTER_EGRESS,
	PACKET_FILTER_L3_INGRESS,
	PACKET_FILTER_L3_EGRESS,
	PACKET_COPY_INGRESS,
	PACKET_COPY_EGRESS,
	PACKET_COPY_L3_INGRESS,
	PACKET_COPY_L3_EGRESS,
	PACKET_SLOTS,
};

/* In front of the bytes of a packet in the perf buffer. A packet that is longer than a perf record may be comes as
 * several records in a row, each with this in front. */
struct packet_meta {
	__u32 filters; /* bit n: filter n selects it */
	__u32 ifindex;
	__u16 vlan_tci; /* of a tag that the kernel keeps beside the bytes */
	__u16 vlan_proto; /* its TPID, 0x8100 or 0x88a8; 0 = there is none */
	__u8 direction; /* enum netobs_direction of netobs.h */
	__u8 link; /* enum packet_link */
	__u16 part; /* 0 for the first record of a packet, then 1, 2, ... */
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u32 caplen; /* octets of the packet that were copied, in all its records, without the tag beside */
	__u32 length; /* octets that it has, without the tag beside; a GSO super-packet counts once */
};
_Static_assert(sizeof(struct packet_meta) == 32, "no padding, a multiple of 8");

#endif
