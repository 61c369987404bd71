// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Somebody else's programs on the hook: one counts packets, one drops them. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define NEXT (-1)
#define SHOT 2 /* TC_ACT_SHOT, TCX_DROP */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} packets SEC(".maps");

static __always_inline void count(__u32 which)
{
	__u64 *counter = bpf_map_lookup_elem(&packets, &which);

	if (counter)
		__sync_fetch_and_add(counter, 1);
}

SEC("tc") int foreign_count(struct __sk_buff *skb)
{
	count(0);
	return NEXT;
}

SEC("tc") int foreign_drop(struct __sk_buff *skb)
{
	count(1);
	return SHOT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
