// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A program that takes its time between reading which half to write and writing it: for tests of grace periods. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define NEXT (-1)
#define CLOCK_READINGS 10000 /* some 30 ns each */

struct shared {
	__u64 half;
	__u64 counted[2];
	__u64 runs;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct shared);
} shared SEC(".maps");

SEC("tc") int slow(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct shared *words = bpf_map_lookup_elem(&shared, &zero);
	__u64 half;

	if (!words)
		return NEXT;
	half = *(volatile __u64 *)&words->half & 1;
	for (int i = 0; i < CLOCK_READINGS; i++)
		bpf_ktime_get_ns();
	words->counted[half]++;
	words->runs++;
	return NEXT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
