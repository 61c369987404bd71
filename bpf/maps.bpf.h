/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What netobs.bpf.c shares with user space: settings, state and maps. */
#ifndef NETOBS_MAPS_BPF_H
#define NETOBS_MAPS_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "netobs.h"

const volatile struct netobs_settings settings = {
	.sampling = 1,
	.slots = 1,
	.slot_netns = 1 << SLOT_USED_SHIFT,
	.interface_rows = 1,
};

struct netobs_state state;

/* All maps are sized before load; the maps of unused tables are not created. */

struct { /* one for each possible CPU */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ledger);
} ledgers SEC(".maps");

struct { /* as ledgers */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct not_ip);
} not_ip SEC(".maps");

struct { /* for each possible CPU settings.interface_rows rows */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct interface_count);
} interface_counts SEC(".maps");

/* percpu_array: for each possible CPU two halves of settings.slots slots. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_slot);
} flow_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_start);
} flow_starts SEC(".maps");

#if NETOBS_EXTRA
struct extra_array {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_extra);
} flow_extras SEC(".maps"), packet_extras SEC(".maps"); /* as flow_slots; of the packet at hand: one for each CPU */
#endif

#if NETOBS_INSIGHT
struct { /* as flow_slots */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_insight);
} flow_insights SEC(".maps");

struct { /* as flow_slots: the sequence number behind the highest so far. Packed, for nearly each TCP packet needs it */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} next_seqs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tcp_bucket);
} tcp_pairs SEC(".maps");

struct { /* one for each possible CPU */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_metrics);
} fresh_entries SEC(".maps");
#endif

/* percpu_array: packets that found no slot. */
struct overflow_hash {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct overflow_key);
	__type(value, struct flow_metrics);
} overflow_0 SEC(".maps"), overflow_1 SEC(".maps");

/* The paper's table, twice: a packet that is counted while its entry is being read and deleted would be lost. */
struct flow_hash {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1);
	__type(key, struct flow_key);
	__type(value, struct flow_metrics);
} flow_hash_0 SEC(".maps"), flow_hash_1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

#endif
