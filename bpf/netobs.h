/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The one definition of everything that kernel and user space share: the Flow Record, the ledger, the settings.
 * netobs/records.py and netobs/capture/layout.py mirror it; a test compares them with the BTF of the object. */
#ifndef NETOBS_H
#define NETOBS_H

#include <linux/types.h>

enum netobs_direction { /* IE 61 flowDirection */
	NETOBS_INGRESS = 0,
	NETOBS_EGRESS = 1,
};

/* The Flow Key. Zeroed before it is filled: its bytes are compared and hashed as they are. */
struct flow_key {
	__u8 src_addr[16]; /* IPv4 as ::ffff:a.b.c.d */
	__u8 dst_addr[16];
	__u16 src_port; /* 0 for later fragments and for protocols without ports */
	__u16 dst_port;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 protocol;
	__u8 direction;
	__u16 ethertype; /* of the IP packet, below all VLAN tags */
	__u16 vlan_id; /* of the outer tag, 0 = untagged */
	__u32 ifindex;
};
_Static_assert(sizeof(struct flow_key) == 48, "no padding");

struct flow_metrics {
	__u64 packets; /* wire packets: a GSO super-packet counts its segments */
	__u64 octets; /* IE 1: IP header and payload, as on the wire */
	__u64 first_ns; /* CLOCK_MONOTONIC */
	__u64 last_ns;
	__u16 tcp_flags; /* OR of the low 12 bits of TCP header bytes 12 and 13 */
	__u16 min_ip_length; /* octets, of one wire packet */
	__u16 max_ip_length;
	__u8 tos; /* of the first packet, as dot1q_priority and the MACs */
	__u8 min_ttl;
	__u8 max_ttl;
	__u8 dot1q_priority;
	__u8 errno_; /* why a ring buffer record did not fit the table: E2BIG or EBUSY */
	__u8 flow_end_reason; /* IE 136, set by user space */
	__u8 src_mac[6];
	__u8 dst_mac[6];
};
_Static_assert(sizeof(struct flow_metrics) == 56, "no padding");

struct flow_record {
	struct flow_key key;
	struct flow_metrics metrics;
};
_Static_assert(sizeof(struct flow_record) == 104, "no padding, a multiple of 8");

/* Every way in which a packet that was seen is not in a Flow Record. */
enum ledger_reason {
	LEDGER_NOT_IP, /* ARP, MPLS, LLDP, ... */
	LEDGER_MALFORMED, /* runt, bad version, IHL below 5, IP length beyond the frame */
	LEDGER_NOT_SAMPLED,
	LEDGER_RING_FULL, /* did not fit the table, and the ring buffer neither */
	LEDGER_REASONS,
};

struct ledger_count {
	__u64 packets;
	__u64 octets; /* IP octets where the IP header was understood, else octets of the frame */
};

/* One for each possible CPU; only that CPU writes it. */
struct ledger {
	struct ledger_count seen;
	struct ledger_count reasons[LEDGER_REASONS];
	__u64 reserved[6]; /* to a multiple of 64: CPUs share no cache line */
};
_Static_assert(sizeof(struct ledger) == 128, "two cache lines");

/* Written once, before load. */
struct netobs_settings {
	__u32 sampling; /* one packet in N */
	__u32 precise_time; /* 1: clock read for each packet; 0: resolution of one tick */
};

#endif
