/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Counters of each CPU, and who may write its data.
 *
 * All per-CPU data is written without atomics: a TC program runs with bottom halves off, so that on one CPU no other
 * run comes between. This does not hold with PREEMPT_RT: from Linux 6.18 on, local_bh_disable() keeps a task on its CPU
 * and lets others run there (CONFIG_PREEMPT_RT_NEEDS_BH_LOCK is off). What settings.preemptible asks for is for that.
 */
#ifndef NETOBS_LEDGER_BPF_H
#define NETOBS_LEDGER_BPF_H

#include "maps.bpf.h"
#include "netobs.h"
#include "parse.bpf.h"

static __always_inline void count(struct ledger_count *count, __u64 packets, __u64 octets)
{
	if (settings.preemptible) {
		__sync_fetch_and_add(&count->packets, packets);
		__sync_fetch_and_add(&count->octets, octets);
	} else {
		count->packets += packets;
		count->octets += octets;
	}
}

static __always_inline void add(__u64 *counter, __u64 number)
{
	if (settings.preemptible)
		__sync_fetch_and_add(counter, number);
	else
		*counter += number;
}

static __always_inline struct ledger *this_ledger(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&ledgers, &cpu);
}

/* Whether this program may write the data of its CPU: no other program there is between enter() and leave(). Each adds
 * itself first, so that of two that find each other neither may. (Linux 5.10 has no atomic that returns a value.) */
static __always_inline int enter(void)
{
	struct ledger *ledger;

	if (!settings.preemptible)
		return 1;
	ledger = this_ledger();
	if (!ledger)
		return 0;
	__sync_fetch_and_add(&ledger->inside, 1);
	return *(volatile __u64 *)&ledger->inside == 1;
}

static __always_inline void leave(void)
{
	struct ledger *ledger;

	if (!settings.preemptible)
		return;
	ledger = this_ledger();
	if (ledger)
		__sync_fetch_and_add(&ledger->inside, -1);
}

/* The row of this CPU at the low bits of `place`. Neighbours have neighbouring rows: interfaces that were made one after
 * the other never get into each other's way. Those of a namespace begin where the low bits of row_key say. */
static __always_inline struct interface_count *row_at(__u32 place)
{
	__u32 index = bpf_get_smp_processor_id() * settings.interface_rows + (place & settings.interface_mask);

	return bpf_map_lookup_elem(&interface_counts, &index);
}

/* A row in which somebody else may just have put a key. */
#define KEY_OF(row) (*(volatile __u64 *)&(row)->key)

/* Not in the first place, or not yet. A function of its own, so that the common path stays short. */
static __noinline struct interface_count *find_row(__u64 key)
{
	struct interface_count *row;

	for (int i = 0; i < INTERFACE_PROBES; i++) {
		row = row_at(key + i);
		if (!row)
			break;
		if (!KEY_OF(row)) {
			if (enter() && !KEY_OF(row))
				KEY_OF(row) = key;
			leave();
		}
		if (KEY_OF(row) == key)
			return row;
	}
	return 0;
}

/* The row of the packet's interface, or 0 if there is none left. */
static __always_inline struct interface_count *row_of(__u32 ifindex, enum netobs_direction direction)
{
	__u64 key = settings.row_key + ((__u64)ifindex << 1 | direction);
	struct interface_count *row = row_at(key);

	if (row && row->key == key)
		return row;
	return find_row(key);
}

/* Into the ledger's `seen`, if there is no row left. */
static __noinline int seen_elsewhere(__u32 packets, __u32 octets)
{
	struct ledger *ledger = this_ledger();

	if (ledger)
		count(&ledger->seen, packets, octets);
	return 0;
}

/* What sets an skb apart from what is seen of it. `headers`: octets that each segment repeats. A function of its own, and
 * without the struct packet, so that the common path stays short. */
static __noinline int count_unlike(struct __sk_buff *skb, struct interface_count *row, __u32 packets, __u32 octets,
				   __u32 headers)
{
	__u64 more = packets - 1;

	add(&row->link_octets, (__s64)skb->len - octets);
	if (skb->vlan_present) {
		add(&row->tagged_skbs, 1);
		headers += sizeof(struct vlan_header);
	}
	if (more) {
		add(&row->merged, more);
		add(&row->repeated_octets, more * headers);
	}
	return 0;
}

static __always_inline void count_seen(struct __sk_buff *skb, const struct packet *pkt, struct interface_count *row)
{
	if (!row) {
		seen_elsewhere(pkt->packets, pkt->octets);
		return;
	}
	count(&row->seen, pkt->packets, pkt->octets);
	if (pkt->unlike)
		count_unlike(skb, row, pkt->packets, pkt->octets + (pkt->has_ethernet ? ETH_HLEN : 0), pkt->headers);
}

#endif
