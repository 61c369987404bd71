// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The packet capture agent: TC hook -> filter -> ring buffer. State, maps, copying, entry points, in this order.
 * What is on the hook only calls the filter, a program that user space makes of what the clients want to have and
 * puts into its slot; that one calls the copier for packets that it selects. Nothing here changes a packet, nor
 * what the kernel keeps with it for others (skb->cb, mark, ...). As in netobs.bpf.c, per-CPU data is written
 * without atomics. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "common.bpf.h"
#include "netobs.h"
#include "packets.h"

#define NEXT (-1) /* TCX_NEXT and TC_ACT_UNSPEC: the programs after us still run */
#define MAX_LOSSES 4096 /* sets of filters, on interfaces, that lost packets */
#define MAX_STREAMS 1024

struct packet_state packet_state = { 0 };

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, PACKET_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} packet_programs SEC(".maps");

/* From the filter to the copier: which filters select the packet. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} packet_matches SEC(".maps");

struct packet_ring { /* user space makes one for each CPU, of the size that it wants, while packets are selected */
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(map_flags, BPF_F_NUMA_NODE);
	__uint(max_entries, PACKET_LEAST_RING);
};

struct { /* sized before load: one for each possible CPU */
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct packet_ring);
} packet_rings SEC(".maps");

struct { /* sized before load: one for each possible CPU */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct packet_counters);
} packet_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_LOSSES);
	__type(key, struct packet_loss);
	__type(value, __u64);
} packet_losses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_STREAMS);
	__type(key, struct packet_peer);
	__type(value, __u32);
} own_streams SEC(".maps");

static __always_inline int is_stream_with(const __u64 *address, __u16 port)
{
	struct packet_peer peer = { .port = port };

	__builtin_memcpy(peer.address, address, sizeof(peer.address));
	return bpf_map_lookup_elem(&own_streams, &peer) != NULL;
}

/* A stream that carries packets is not captured: each packet would make another. */
static __noinline int is_own_stream(struct __sk_buff *skb, int has_ethernet, __u16 own_port)
{
	struct packet pkt = { .has_ethernet = has_ethernet };

	if (parse_packet(skb, &pkt) != PACKET_IP || pkt.protocol != IPPROTO_TCP)
		return 0;
	/* Two tests: on the loopback, and between two agents, both ports may be that one. */
	if (pkt.src_port == own_port && is_stream_with(pkt.dst_addr, pkt.dst_port))
		return 1;
	return pkt.dst_port == own_port && is_stream_with(pkt.src_addr, pkt.src_port);
}

/* A record begins with a header of 8 bytes, which the kernel keeps. */
#define RECORD_HEADER 8

/* Octets that a record has room for. The size of a reservation is a constant to the verifier, so that a packet takes
 * the next of these: at most a third too much, and little for the usual lengths. Each is a multiple of 8. */
static const __u32 rooms[] = {
	72,   96,   128,  192,   256,   384,   512,   768,   1024,  1280,  1536,   2048,   3072,
	4096, 6144, 9216, 12288, 16384, 24576, 32768, 49152, 65600, 98304, 131072, 196608, PACKET_SNAPLEN,
};

/* 0, or an error where the ring buffer has no room for ``room`` octets, or the packet cannot be read. */
static __always_inline int copy_into(struct __sk_buff *skb, void *ring, const struct packet_meta *meta,
				     struct packet_counters *counters, __u32 octets, const __u32 room)
{
	__u64 flags = BPF_RB_NO_WAKEUP, bytes = RECORD_HEADER + sizeof(*meta) + room;
	struct packet_meta *record = bpf_ringbuf_reserve(ring, sizeof(*meta) + room, 0);
	__u32 last = octets - 1;
	int error = 0;

	if (!record)
		return -1;
	*record = *meta;
	barrier_var(last); /* else clang, which knows it, leaves out what the verifier needs to see */
	if (last < room) {
		barrier_var(last); /* else clang adds 1 before the comparison, and Linux 5.10 forgets what that was */
		error = bpf_skb_load_bytes(skb, 0, record + 1, last + 1);
	}
	if (error)
		record->filters = 0; /* not discarded: the reader knows one kind of record */
	counters->unannounced += bytes;
	if (counters->unannounced >= *(volatile __u32 *)&packet_state.wakeup_bytes) {
		counters->unannounced = 0;
		flags = BPF_RB_FORCE_WAKEUP;
	}
	bpf_ringbuf_submit(record, flags);
	return error;
}

/* ``octets`` is meta->caplen. Before Linux 6.8 the verifier loses sight of what it knows of a number that a function
 * reads from the stack of its caller: it takes branches for dead that are not (backtrack_insn: not through r10). */
static __noinline int copy_octets(struct __sk_buff *skb, const struct packet_meta *meta, __u32 cpu, __u32 octets)
{
	struct packet_counters *counters = bpf_map_lookup_elem(&packet_counters, &cpu);
	void *ring = bpf_map_lookup_elem(&packet_rings, &cpu);

	if (!counters || !ring)
		return -1;
#pragma unroll
	for (unsigned int i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++)
		if (octets <= rooms[i])
			return copy_into(skb, ring, meta, counters, octets, rooms[i]);
	return -1;
}

/* Only where packets are lost: takes its time. When the map is full, the packet is in the counter of its CPU only. */
static __noinline void count_loss(const struct packet_meta *meta)
{
	struct packet_loss loss = { .filters = meta->filters, .ifindex = meta->ifindex };
	__u64 none = 0, *packets;

	packets = bpf_map_lookup_elem(&packet_losses, &loss);
	if (!packets) {
		bpf_map_update_elem(&packet_losses, &loss, &none, BPF_NOEXIST);
		packets = bpf_map_lookup_elem(&packet_losses, &loss);
	}
	if (packets)
		__sync_fetch_and_add(packets, 1);
}

static __always_inline void set_tag(struct __sk_buff *skb, struct packet_meta *meta)
{
	if (skb->vlan_present) {
		meta->vlan_tci = skb->vlan_tci;
		meta->vlan_proto = bpf_ntohs(skb->vlan_proto);
	}
}

static __always_inline __u32 octets_to_copy(const struct packet_meta *meta)
{
	__u32 snaplen = *(volatile __u32 *)&packet_state.snaplen;

	if (snaplen < PACKET_LEAST_SNAPLEN)
		snaplen = PACKET_LEAST_SNAPLEN;
	if (snaplen > PACKET_SNAPLEN)
		snaplen = PACKET_SNAPLEN;
	if (meta->vlan_proto)
		snaplen -= PACKET_TAG_OCTETS;
	return meta->length < snaplen ? meta->length : snaplen;
}

static __always_inline int copy(struct __sk_buff *skb, enum netobs_direction direction, enum packet_link link)
{
	__u32 zero = 0, cpu = bpf_get_smp_processor_id();
	struct packet_counters *counters = bpf_map_lookup_elem(&packet_counters, &cpu);
	__u32 *filters = bpf_map_lookup_elem(&packet_matches, &zero);
	__u16 own_port = *(volatile __u16 *)&packet_state.own_port;
	struct packet_meta meta = { .ifindex = skb->ifindex, .direction = direction, .link = link };
	int error;

	if (!counters || !filters)
		return NEXT;
	if (own_port && is_own_stream(skb, link == PACKET_LINK_ETHERNET, own_port)) {
		counters->own++;
		return NEXT;
	}
	meta.filters = *filters;
	meta.length = skb->len;
	if (link == PACKET_LINK_ETHERNET)
		set_tag(skb, &meta);
	meta.caplen = octets_to_copy(&meta);
	meta.time_ns = bpf_ktime_get_ns();
	error = copy_octets(skb, &meta, cpu, meta.caplen);
	if (error) {
		counters->lost++;
		count_loss(&meta);
	} else {
		counters->copied++;
	}
	return NEXT;
}

/* Attached to interfaces. */

SEC("tc") int packets_ingress(struct __sk_buff *skb)
{
	bpf_tail_call_static(skb, &packet_programs, PACKET_FILTER_INGRESS);
	return NEXT;
}

SEC("tc") int packets_egress(struct __sk_buff *skb)
{
	bpf_tail_call_static(skb, &packet_programs, PACKET_FILTER_EGRESS);
	return NEXT;
}

SEC("tc") int packets_l3_ingress(struct __sk_buff *skb)
{
	bpf_tail_call_static(skb, &packet_programs, PACKET_FILTER_L3_INGRESS);
	return NEXT;
}

SEC("tc") int packets_l3_egress(struct __sk_buff *skb)
{
	bpf_tail_call_static(skb, &packet_programs, PACKET_FILTER_L3_EGRESS);
	return NEXT;
}

/* In the program array. */

/* A filter that selects nothing: to empty a slot that was in use takes the kernel a grace period, to fill it none
 * (arch/x86/net/bpf_jit_comp.c: bpf_arch_poke_desc_update). */
SEC("tc") int packets_none(struct __sk_buff *skb __attribute__((unused)))
{
	return NEXT;
}

SEC("tc") int packets_copy_ingress(struct __sk_buff *skb)
{
	return copy(skb, NETOBS_INGRESS, PACKET_LINK_ETHERNET);
}

SEC("tc") int packets_copy_egress(struct __sk_buff *skb)
{
	return copy(skb, NETOBS_EGRESS, PACKET_LINK_ETHERNET);
}

SEC("tc") int packets_copy_l3_ingress(struct __sk_buff *skb)
{
	return copy(skb, NETOBS_INGRESS, PACKET_LINK_IP);
}

SEC("tc") int packets_copy_l3_egress(struct __sk_buff *skb)
{
	return copy(skb, NETOBS_EGRESS, PACKET_LINK_IP);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
