/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The one definition of what the packet capture agent's programs share with user space.
 * netobs/pcap/tap/layout.py mirrors it; a test compares the two by the BTF of the object. */
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

/* In front of the octets of a packet, in its record in the ring buffer of the CPU. */
struct packet_meta {
	__u32 filters; /* bit n: filter n selects it; 0: its octets could not be read, and it counts as lost */
	__u32 ifindex;
	__u16 vlan_tci; /* of a tag that the kernel keeps beside the octets */
	__u16 vlan_proto; /* its TPID, 0x8100 or 0x88a8; 0 = there is none */
	__u8 direction; /* enum netobs_direction of netobs.h */
	__u8 link; /* enum packet_link */
	__u16 reserved;
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u32 caplen; /* octets of the packet that were copied, without the tag beside */
	__u32 length; /* octets that it has, without the tag beside; a GSO super-packet counts once */
};
_Static_assert(sizeof(struct packet_meta) == 32, "no padding, a multiple of 8");

enum packet_size {
	PACKET_SNAPLEN = 262144, /* the largest: as tcpdump */
	PACKET_LEAST_SNAPLEN = 16, /* the Ethernet addresses, and a tag that is put back */
	PACKET_TAG_OCTETS = 4,
	PACKET_LEAST_RING = 131072, /* bytes: a power of two that takes a packet of 65,600 octets */
};

/* One for each possible CPU; only that CPU writes it. */
struct packet_counters {
	__u64 copied; /* packets that are in the ring buffer of this CPU */
	__u64 lost; /* packets that a filter selected and that did not fit there */
	__u64 own; /* packets of the agent's own streams: selected, and left out */
	__u64 unannounced; /* bytes of records since the reader was last woken */
	__u64 reserved[4]; /* to 64: CPUs share no cache line */
};
_Static_assert(sizeof(struct packet_counters) == 64, "one cache line");

/* Whose packets were lost: the value is their number. */
struct packet_loss {
	__u32 filters; /* as in packet_meta */
	__u32 ifindex;
};
_Static_assert(sizeof(struct packet_loss) == 8, "no padding");

/* The far end of one of the agent's own TCP streams. */
struct packet_peer {
	__u8 address[16]; /* IPv4 as ::ffff:a.b.c.d */
	__u16 port;
	__u16 reserved;
};
_Static_assert(sizeof(struct packet_peer) == 20, "no padding");

/* What user space changes while the programs run. */
struct packet_state {
	__u32 snaplen; /* octets that are copied of a packet at most, the tag beside included */
	__u32 wakeup_bytes; /* the reader is woken when a CPU has written so many bytes since it was last woken */
	__u16 own_port; /* the agent's own TCP port; 0 = it has none */
	__u16 reserved;
};
_Static_assert(sizeof(struct packet_state) == 12, "no padding");

#endif
