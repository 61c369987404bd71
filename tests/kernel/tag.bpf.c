// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Gives a packet that leaves a VLAN tag beside its octets, as a VLAN interface does where the one below can insert it. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define NEXT (-1)
#define MARK 77 /* and the VLAN */

SEC("tc") int push_tag(struct __sk_buff *skb)
{
	if (skb->mark == MARK)
		bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), MARK);
	return NEXT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
