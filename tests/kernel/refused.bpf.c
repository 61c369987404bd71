// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A program that no kernel takes: the verifier says so at the end of a long log. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define ROUNDS 2000

SEC("tc") int refused(struct __sk_buff *skb)
{
	__u32 sum = 0;

	for (int i = 0; i < ROUNDS; i++)
		sum += bpf_get_prandom_u32();
	return *(volatile __u32 *)(long)skb->data + sum; /* without a look at data_end */
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
