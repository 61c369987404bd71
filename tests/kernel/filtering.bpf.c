// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What stands around a filter in its tests: in front of it an entry, behind it a copier that tells the mask. */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define NEXT (-1)
#define FAILED (-3) /* as if all filters but the first matched: no test has that */
#define SLOTS 64
#define PACKETS 4096

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} packet_programs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} packet_matches SEC(".maps");

struct seen {
	__u32 filters;
	__u32 length;
	__u32 linear; /* octets that can be reached by pointer */
	__u32 vlan; /* TPID and TCI of a tag beside */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PACKETS);
	__type(key, __u32);
	__type(value, struct seen);
} packets_seen SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} packets_counted SEC(".maps");

static __always_inline __u32 filters_matched(void)
{
	__u32 zero = 0, *matches = bpf_map_lookup_elem(&packet_matches, &zero);

	return matches ? *matches : 0;
}

/* In a test run: makes of the frame what cb says, as no context can have it. */
SEC("tc") int stage(struct __sk_buff *skb)
{
	__u32 length = skb->cb[0], proto = skb->cb[1], tci = skb->cb[2], slot = skb->cb[3];

	if (length && bpf_skb_change_tail(skb, length, 0))
		return FAILED;
	if (proto && bpf_skb_vlan_push(skb, bpf_htons(proto), tci))
		return FAILED;
	bpf_tail_call(skb, &packet_programs, slot);
	return FAILED;
}

/* The mask - 1: then 0 is what a filter returns that selects nothing. */
SEC("tc") int tell(struct __sk_buff *skb)
{
	return filters_matched() - 1;
}

/* On an interface: keeps for each packet, in their order, what it was like, and the mask. The filter is in slot 0. */
SEC("tc") int watch(struct __sk_buff *skb)
{
	__u32 zero = 0, *count = bpf_map_lookup_elem(&packets_counted, &zero), index;
	struct seen *seen;

	if (!count)
		return NEXT;
	index = *count;
	seen = bpf_map_lookup_elem(&packets_seen, &index);
	if (!seen)
		return NEXT;
	seen->filters = 0;
	seen->length = skb->len;
	seen->linear = skb->data_end - skb->data;
	seen->vlan = skb->vlan_present ? (__u32)bpf_ntohs(skb->vlan_proto) << 16 | skb->vlan_tci : 0;
	*count = index + 1;
	bpf_tail_call(skb, &packet_programs, 0);
	return NEXT;
}

SEC("tc") int keep(struct __sk_buff *skb)
{
	__u32 zero = 0, *count = bpf_map_lookup_elem(&packets_counted, &zero), index;
	struct seen *seen;

	if (!count)
		return NEXT;
	index = *count - 1;
	seen = bpf_map_lookup_elem(&packets_seen, &index);
	if (seen)
		seen->filters = filters_matched();
	return NEXT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
