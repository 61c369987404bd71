// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* What any program costs on the hook: the measurements subtract it. It needs no header. */
struct __sk_buff;

__attribute__((section("tc"), used)) int empty(struct __sk_buff *skb __attribute__((unused)))
{
	return -1;
}

char LICENSE[] __attribute__((section("license"), used)) = "Dual BSD/GPL";
