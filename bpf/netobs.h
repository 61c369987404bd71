/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The only definition of everything that kernel and user space share: the Flow Record, the ledger, the settings.
 * netobs/flow/records.py and netobs/datapath/layout.py mirror it; a test compares them with the BTF of the object. */
#ifndef NETOBS_H
#define NETOBS_H

#include <linux/types.h>

#ifndef NETOBS_EXTRA
#define NETOBS_EXTRA 0
#endif
#ifndef NETOBS_INSIGHT
#define NETOBS_INSIGHT 0
#endif

enum netobs_direction { /* IE 61 flowDirection */
	NETOBS_INGRESS = 0,
	NETOBS_EGRESS = 1,
};

/* The Flow Key. Zeroed before it is filled: its bytes are compared and hashed as they are. */
struct flow_key {
	__u8 src_addr[16]; /* IPv4 as ::ffff:a.b.c.d */
	__u8 dst_addr[16];
	__u16 src_port; /* 0 for later fragments and for protocols without ports */
	__u16 dst_port; /* ICMP and ICMPv6: type << 8 | code */
	__u16 netns; /* netobs_settings.netns: an ifindex is unique within a network namespace only */
	__u8 protocol;
	__u8 direction;
	__u16 ethertype; /* of the IP packet, below all VLAN tags */
	__u16 vlan_id; /* of the outer tag, 0 = untagged */
	__u32 ifindex;
};
_Static_assert(sizeof(struct flow_key) == 48, "no padding");

/* Sets of fields of flow_extra that are measured together: bits of netobs_settings.extra_groups. */
enum extra_group {
	EXTRA_TCP_OPTIONS = 1, /* tcp_options */
	EXTRA_TCP_WINDOW = 2, /* min_tcp_window */
	EXTRA_IP = 4, /* fragment_flags, flow_label, ipv6_headers */
	EXTRA_LINK = 8, /* customer_vlan_id, customer_priority, mpls_labels */
	EXTRA_LAYER2_OCTETS = 16, /* layer2_octets */
	EXTRA_TCP = 32, /* flow_insight */
};

enum insight_numbers {
	NO_SAMPLE = 0xffffffff, /* of a time */
	ANSWERED_SYN = 1 << 30, /* of tcp_side.sample */
	ARMED_BY_SYN = 1 << 15, /* of tcp_pair.armed */
};

/* How well the connection goes: what [insight] switches on. Only objects with NETOBS_INSIGHT = 1 have it: in
 * flow_insights under the index of the slot, and behind the other metrics elsewhere. Times are of the way from here to
 * the destination and back, in us. */
struct flow_insight {
	__u64 rtt_sum;
	__u64 retransmitted_octets; /* of the payload, and one for a SYN or FIN */
	__u32 rtt_min; /* NO_SAMPLE if there is none, as handshake_rtt */
	__u32 rtt_max;
	__u32 rtt_samples;
	__u32 handshake_rtt; /* of the first SYN that was answered, and that was sent once */
	__u32 retransmitted_packets; /* on the wire, as all packets here */
	__u32 out_of_order_packets;
	__u32 zero_window_packets;
	__u32 syn_packets;
	__u32 rst_packets;
	__u16 fin_packets;
	__u16 hole_octets; /* for the kernel, as the two below: how long the hole is, 65535 at most */
	__u32 hole; /* a sequence number that packets have passed over */
	__u32 hole_since; /* when, in units of 1,024 ns; 0 = there is no hole */
};
_Static_assert(sizeof(struct flow_insight) == 64, "one cache line");

/* One side of a TCP connection at an Observation Point: what it waits for. */
struct tcp_side {
	__u32 expect; /* the acknowledgement number that answers */
	__u32 sent; /* CLOCK_MONOTONIC in units of 1,024 ns, modulo 2^32; 0 = it waits for nothing */
	__u32 sample; /* us, until the flow takes it; 0 = none; perhaps with ANSWERED_SYN */
};

/* Lossy on purpose: two connections with the same tag and bucket, or three in one bucket, take each other's place. */
struct tcp_pair {
	__u32 tag;
	__u16 armed[2]; /* when each side armed last, in units of 2^20 ns; perhaps with ARMED_BY_SYN */
	struct tcp_side sides[2]; /* that of the lower address first */
};

struct tcp_bucket {
	struct tcp_pair pairs[2];
};
_Static_assert(sizeof(struct tcp_bucket) == 64, "one cache line");

/* Fields that are measured only if a template asks for them. Only the object netobs_extra.bpf.o, made of the same
 * sources with NETOBS_EXTRA = 1, has them: in flow_extras under the index of the slot, and behind the other
 * metrics elsewhere. A field that no packet set, or whose group is off, is 0; min_tcp_window is then 65535. */
struct flow_extra {
	__u64 tcp_options[4]; /* IE 520: OR of the kinds, kind 0 is the lowest bit of the first word */
	__u64 layer2_octets; /* IE 352: frames on the wire, without preamble and check sequence */
	__u32 ipv6_headers; /* IE 515: OR, bits of the registry that RFC 9740 made */
	__u32 flow_label; /* of the first packet, like all fields below except min_tcp_window */
	__u16 min_tcp_window; /* as in the header, without window scaling */
	__u16 customer_vlan_id; /* of the tag behind the tag of vlan_id */
	__u8 customer_priority;
	__u8 fragment_flags; /* IE 197: 0x40 DF, 0x20 MF */
	__u8 mpls_depth; /* IE 202 */
	__u8 mpls_labels[3][3]; /* IE 70 to 72: label, traffic class, bottom of stack; the top of the stack first */
};
_Static_assert(sizeof(struct flow_extra) == 64, "one cache line");

struct flow_metrics {
	__u64 packets; /* wire packets: a GSO super-packet counts its segments */
	__u64 octets; /* IE 1: IP header and payload, as on the wire */
	__u64 first_ns; /* CLOCK_MONOTONIC; see flow_start for when a SYN moves it */
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
	__u32 end; /* both as in flow_start */
	__u32 syn;
#if NETOBS_INSIGHT
	__u32 next_seq; /* for the kernel: TCP, behind the highest sequence number so far; percpu_array has next_seqs */
	__u32 reserved;
#endif
#if NETOBS_EXTRA
	struct flow_extra extra;
#endif
#if NETOBS_INSIGHT
	struct flow_insight insight;
#endif
};
_Static_assert(sizeof(struct flow_metrics) == 64 + 64 * NETOBS_EXTRA + (8 + 64) * NETOBS_INSIGHT, "no padding");

struct flow_record {
	struct flow_key key;
	struct flow_metrics metrics;
};
_Static_assert(sizeof(struct flow_record) == 48 + sizeof(struct flow_metrics), "no padding, a multiple of 8");

enum flow_table { /* capture.flow_table */
	TABLE_PERCPU_ARRAY,
	TABLE_PERCPU_HASH,
	TABLE_RINGBUF,
};

/* percpu_array: everything that a packet of a known flow touches, in one cache line. The first 44 bytes identify the
 * flow: the Flow Key without the fields that follow from the others. */
struct flow_slot {
	__u8 src_addr[16];
	__u8 dst_addr[16];
	__u16 src_port;
	__u16 dst_port; /* as in flow_key */
	__u32 ifindex;
	__u16 place; /* VLAN id, SLOT_EGRESS, SLOT_IPV6, the low bits of flow_key.netns */
	__u8 protocol;
	__u8 used; /* 1 and the high bits of flow_key.netns, or 0 in a slot that was emptied */
	__u32 last; /* CLOCK_MONOTONIC >> SLOT_TIME_SHIFT, modulo 2^32 */
	__u64 counters; /* packets << SLOT_OCTETS_BITS | octets */
	__u16 tcp_flags;
	__u16 min_ip_length;
	__u16 max_ip_length;
	__u8 min_ttl;
	__u8 max_ttl;
};
_Static_assert(sizeof(struct flow_slot) == 64, "one cache line");

enum slot_encoding {
	SLOT_EGRESS_BIT = 12, /* of place */
	SLOT_IPV6_BIT = 13,
	SLOT_USED_SHIFT = 24, /* of used, in the word with place */
	SLOT_NETNS_BIT = 14,
	SLOT_NETNS_LOW_BITS = 2, /* in place */
	SLOT_NETNS_HIGH_BIT = 1, /* of used */
	SLOT_NETNS_BITS = 9,
	SLOT_TIME_SHIFT = 10, /* units of 1,024 ns: the number repeats after 73 minutes */
	SLOT_OCTETS_BITS = 36,
	SLOT_PROBES = 4, /* slots in a row in which a flow may be */
};

/* percpu_array: the fields that the first packet sets, and the times of SYN, FIN and RST, under the same index. A
 * SYN after the first FIN or RST opens a new connection on the old one's ports: the flow then starts with the last
 * such SYN, and has this packet's fields as those of the first packet. Any other SYN is a retransmission, and
 * changes nothing. */
struct flow_start {
	__u32 first; /* all times as flow_slot.last */
	__u32 end; /* of the first FIN or RST, if tcp_flags say that there was one */
	__u32 syn; /* of the last SYN, if there was one */
	__u8 tos;
	__u8 dot1q_priority;
	__u8 src_mac[6];
	__u8 dst_mac[6];
	__u8 reserved[6];
};
_Static_assert(sizeof(struct flow_start) == 32, "no padding, does not lie across cache lines");

/* Key of the overflow hash: the entry belongs to one CPU, which writes it without a lock. */
struct overflow_key {
	struct flow_key flow;
	__u32 cpu;
	__u32 reserved;
};
_Static_assert(sizeof(struct overflow_key) == 56, "no padding");

/* Every way in which a packet that was seen is not in a Flow Record. */
enum ledger_reason {
	LEDGER_NOT_IP, /* ARP, LLDP, ...: struct not_ip counts them by EtherType */
	LEDGER_MALFORMED, /* runt, bad version, IHL below 5, IP length beyond the frame */
	LEDGER_EXT_HEADERS, /* IPv6: more extension headers than are walked */
	LEDGER_NOT_SAMPLED,
	LEDGER_RING_FULL, /* fitted neither the table nor the ring buffer */
	LEDGER_REASONS,
};

struct ledger_count {
	__u64 packets;
	__u64 octets; /* of IP in ring_full, else of the frame with all its VLAN tags */
};

/* One for each possible CPU; only that CPU writes it. */
struct ledger {
	struct ledger_count seen; /* what found no row in interface_counts; the rest of what was seen is there */
	struct ledger_count reasons[LEDGER_REASONS];
	__u64 inside; /* preemptible: programs that are writing this CPU's data, or waiting for another to go on */
	__u64 turn; /* what the first of two programs on a hook read of netobs_state.turn */
	__u64 reserved[2]; /* to a multiple of 64: CPUs share no cache line */
};
_Static_assert(sizeof(struct ledger) == 128, "two cache lines");

enum interface_counting {
	INTERFACE_PROBES = 4, /* rows in a row in which an interface and direction may be */
	INTERFACE_NETNS_SHIFT = 33, /* of the namespace's number in interface_count.key */
};

/* Of one interface and direction: a packet touches this line instead of the ledger's. settings.interface_rows of them
 * for each possible CPU, and only that CPU writes the counters, which never go back. User space makes the rows of
 * removed interfaces free again. */
struct interface_count {
	__u64 key; /* settings.row_key + (ifindex << 1 | direction); 0 = free */
	struct ledger_count seen;
	/* What sets skbs apart from `seen`. Most packets touch none of these. */
	__u64 merged; /* packets more than skbs: a super-packet is one skb */
	__u64 link_octets; /* skb->len without the Ethernet header, less the octets in `seen`: negative, modulo 2^64 */
	__u64 tagged_skbs; /* those with a VLAN tag in the metadata, which is not in skb->len */
	__u64 repeated_octets; /* of the headers that segments repeat: what super-packets are longer on the wire */
	__u64 reserved;
};
_Static_assert(sizeof(struct interface_count) == 64, "one cache line");

enum not_ip_sizes {
	NOT_IP_ETHERTYPES = 16, /* with a counter each */
};

struct ethertype_count {
	struct ledger_count count;
	__u32 ethertype; /* below VLAN tags and SNAP; 0 = none, but a length (IEEE 802.3). Nothing if no packets */
	__u32 reserved;
};

/* The packets of LEDGER_NOT_IP by EtherType. One for each possible CPU; only that CPU writes it. */
struct not_ip {
	struct ethertype_count ethertypes[NOT_IP_ETHERTYPES];
	struct ledger_count others;
	__u64 reserved[6]; /* to a multiple of 64 */
};
_Static_assert(sizeof(struct not_ip) == 448, "seven cache lines");

enum slot_hash_sizes {
	HASH_KEYS = 5,
};

/* While one program takes the place of another, both are on the hook, and one of them counts. A packet passes the first,
 * then, on the same CPU, the second. */
enum netobs_turn {
	TURN_ALONE, /* there is no other program */
	TURN_FIRST = 1,
	TURN_SECOND = 2,
	TURN_NEVER = 3, /* the other one is not ready yet */
	TURN_SETTLED = 4, /* no packet is between the two that has passed the first before the turn was the other's */
};

/* Written once, before load. */
struct netobs_settings {
	__u32 sampling; /* one packet in N */
	__u32 flow_table; /* enum flow_table */
	__u32 slots; /* percpu_array: of one CPU and half, a power of two */
	__u32 slot_cpus; /* percpu_array: CPUs below this one have slots */
	__u32 precise_time; /* 1: clock read for each packet; 0: resolution of one tick */
	__u32 extra_groups; /* bits of enum extra_group; not looked at without NETOBS_EXTRA */
	__u32 preemptible; /* 1: programs of one CPU can interrupt each other (PREEMPT_RT) */
	__u32 netns; /* number of the network namespace that the programs are attached in; 0 = the first */
	__u32 slot_netns; /* percpu_array: used and the bits of netns, in the word with flow_slot.place */
	__u32 turn; /* enum netobs_turn: the one at which this program counts; TURN_ALONE = always */
	__u32 interface_rows; /* of a CPU in interface_counts, a power of two */
	__u32 interface_mask; /* interface_rows - 1 */
	__u32 pair_mask; /* buckets in tcp_pairs - 1, a power of two less one */
	__u32 reserved;
	__u64 row_key; /* of the namespace: interface_count.key without interface and direction */
	__u64 tick_ns; /* length of a jiffy */
	__u64 hash_keys[HASH_KEYS]; /* percpu_array: random odd numbers, so that nobody can make flows for one bucket */
};

enum netobs_counting { /* a bit of active_half */
	NETOBS_COUNTING_ENDED = 2,
};

/* Shared with user space while the programs run. */
struct netobs_state {
	__u32 active_half; /* the half of the table that packets go to; user space flips it, and owns the other half */
	__u32 turn; /* enum netobs_turn, perhaps with TURN_SETTLED: which of two programs on a hook counts */
	__u64 tick_offset_ns; /* CLOCK_MONOTONIC at jiffy 0 */
	__u64 clock_jiffies; /* what netobs_clock read, for user space to find the offset */
	__u64 clock_ns;
};

#endif
