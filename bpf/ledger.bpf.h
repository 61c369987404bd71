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

/* Whether this program may write the data of its CPU: no other program there is between enter() and leave(). Each adds
 * itself first, so that of two that find each other neither may. (Linux 5.10 has no atomic that returns a value.) */
static __always_inline int enter(struct ledger *ledger)
{
	if (!settings.preemptible)
		return 1;
	__sync_fetch_and_add(&ledger->inside, 1);
	return *(volatile __u64 *)&ledger->inside == 1;
}

static __always_inline void leave(struct ledger *ledger)
{
	if (settings.preemptible)
		__sync_fetch_and_add(&ledger->inside, -1);
}

#endif
