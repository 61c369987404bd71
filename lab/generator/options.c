/* The command line of the traffic generator. */
#include "options.h"

#include <getopt.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"

static const char usage[] =
	"usage: netobs-traffic --interface NAME [options]\n"
	"Sends flows of Ethernet frames and prints what the kernel accepted as one line of JSON.\n"
	"  --flows N           number of flows (1)\n"
	"  --packets N         number of packets of all flows (flows)\n"
	"  --order ORDER       round-robin, random or burst (round-robin)\n"
	"  --burst N           packets in a row of one flow, with --order burst (32)\n"
	"  --size BYTES        frame size without FCS, N or MIN-MAX (64, or what the headers need)\n"
	"  --protocol NAME     tcp, udp or icmp (udp)\n"
	"  --ipv6              IPv6 in place of IPv4\n"
	"  --vlan ID           802.1Q tag\n"
	"  --qinq ID           a second, inner tag; the tag of --vlan becomes 802.1ad\n"
	"  --priority N        priority in the tags, 0-7 (0)\n"
	"  --tos N             ToS or traffic class (0)\n"
	"  --ttl N             TTL or hop limit (64)\n"
	"  --dst-port N        destination port (9)\n"
	"  --tcp-flags FLAGS   a number up to 0xfff, or letters of NCEUAPRSF (A)\n"
	"  --gso OCTETS        TCP super-packets, OCTETS of payload a segment\n"
	"  --rate PPS          packets per second of all threads (0 = full speed)\n"
	"  --threads N         sending threads (1, or one for each CPU of --cpu)\n"
	"  --cpu LIST          pin the threads to these CPUs, in turn: 0,2,3\n"
	"  --src-mac MAC       (that of the interface)\n"
	"  --dst-mac MAC       (ff:ff:ff:ff:ff:ff)\n"
	"  --flow-base N       number of the first flow (0)\n"
	"  --seed N            seed of --order random and of random sizes (0)\n";

static const char *current_option = "";

__attribute__((noreturn)) static void reject(const char *text, const char *expected)
{
	fprintf(stderr, "netobs-traffic: --%s: expected %s, got \"%s\"\n", current_option, expected, text);
	exit(2);
}

static uint64_t number(const char *text, uint64_t least, uint64_t most)
{
	char *end, expected[64];
	uint64_t value = strtoull(text, &end, 0);

	if (end == text || *end || text[0] == '-' || value < least || value > most) {
		snprintf(expected, sizeof(expected), "a number from %llu to %llu", (unsigned long long)least,
			 (unsigned long long)most);
		reject(text, expected);
	}
	return value;
}

static uint8_t choice(const char *text, const char *const *names, const char *expected)
{
	for (uint8_t i = 0; names[i]; i++)
		if (!strcmp(text, names[i]))
			return i;
	reject(text, expected);
}

static void parse_interface(struct plan *plan, char *text)
{
	if (!*text || strlen(text) >= sizeof(plan->interface))
		reject(text, "an interface name");
	strcpy(plan->interface, text);
}

static void parse_order(struct plan *plan, char *text)
{
	static const char *const orders[] = { "round-robin", "random", "burst", NULL };

	plan->order = choice(text, orders, "round-robin, random or burst");
}

static void parse_protocol(struct plan *plan, char *text)
{
	static const char *const protocols[] = { "tcp", "udp", "icmp", NULL };
	static const uint8_t numbers[] = { IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP };

	plan->protocol = numbers[choice(text, protocols, "tcp, udp or icmp")];
}

static void parse_size(struct plan *plan, char *text)
{
	char *dash = strchr(text, '-');

	if (dash)
		*dash = 0;
	plan->size_min = number(text, 1, 65535);
	plan->size_max = dash ? number(dash + 1, plan->size_min, 65535) : plan->size_min;
}

static void parse_ipv6(struct plan *plan, char *text)
{
	(void)text;
	plan->ipv6 = true;
}

static void parse_tcp_flags(struct plan *plan, char *text)
{
	static const char letters[] = "FSRPAUECN";

	plan->tcp_flags = 0;
	if (text[0] >= '0' && text[0] <= '9') {
		plan->tcp_flags = number(text, 0, 0xfff);
		return;
	}
	for (const char *letter = text; *letter; letter++) {
		const char *found = strchr(letters, *letter);

		if (!found)
			reject(text, "a number or letters of NCEUAPRSF");
		plan->tcp_flags |= 1 << (found - letters);
	}
}

static void parse_rate(struct plan *plan, char *text)
{
	char *end;

	plan->rate = strtod(text, &end);
	if (end == text || *end || !(plan->rate >= 0))
		reject(text, "packets per second, 0 or more");
}

static void parse_cpus(struct plan *plan, char *text)
{
	for (char *item = strtok(text, ","); item; item = strtok(NULL, ",")) {
		if (plan->cpu_count == sizeof(plan->cpus) / sizeof(plan->cpus[0]))
			reject(item, "at most 64 CPUs");
		plan->cpus[plan->cpu_count++] = number(item, 0, 1023);
	}
	if (!plan->cpu_count)
		reject("", "CPU numbers such as 0,2,3");
}

static void parse_mac(const char *text, uint8_t *bytes)
{
	unsigned int parts[6];
	char rest;

	if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%c", &parts[0], &parts[1], &parts[2], &parts[3], &parts[4], &parts[5],
		   &rest) != 6)
		reject(text, "a MAC address such as 02:00:00:00:00:01");
	for (int i = 0; i < 6; i++)
		bytes[i] = parts[i];
}

static void parse_src_mac(struct plan *plan, char *text)
{
	parse_mac(text, plan->src_mac);
	plan->src_mac_given = true;
}

static void parse_dst_mac(struct plan *plan, char *text)
{
	parse_mac(text, plan->dst_mac);
}

static void print_help(struct plan *plan, char *text)
{
	(void)plan;
	(void)text;
	fputs(usage, stdout);
	exit(0);
}

/* An option is a number, put into a field of the plan, or has a function of its own. */
struct spec {
	const char *name;
	int has_argument;
	void (*parse)(struct plan *plan, char *text);
	size_t offset, bytes;
	uint64_t least, most;
};

#define NUMBER(name, field, least, most)                                                                               \
	{                                                                                                              \
		name, required_argument, NULL, offsetof(struct plan, field), sizeof(((struct plan *)0)->field), least, \
			most                                                                                           \
	}
#define PARSED(name, parse)                                                                                            \
	{                                                                                                              \
		name, required_argument, parse, 0, 0, 0, 0                                                             \
	}
#define FLAG(name, parse)                                                                                              \
	{                                                                                                              \
		name, no_argument, parse, 0, 0, 0, 0                                                                   \
	}

static const struct spec specs[] = {
	PARSED("interface", parse_interface),
	NUMBER("flows", flows, 1, UINT32_MAX),
	NUMBER("packets", packets, 1, 1ull << 48),
	PARSED("order", parse_order),
	NUMBER("burst", burst, 1, UINT32_MAX),
	PARSED("size", parse_size),
	PARSED("protocol", parse_protocol),
	FLAG("ipv6", parse_ipv6),
	NUMBER("vlan", vlan, 0, 4095),
	NUMBER("qinq", qinq, 0, 4095),
	NUMBER("priority", priority, 0, 7),
	NUMBER("tos", tos, 0, 255),
	NUMBER("ttl", ttl, 0, 255),
	NUMBER("dst-port", dst_port, 0, 65535),
	PARSED("tcp-flags", parse_tcp_flags),
	NUMBER("gso", gso, 1, 65535),
	PARSED("rate", parse_rate),
	NUMBER("threads", threads, 1, 64),
	PARSED("cpu", parse_cpus),
	PARSED("src-mac", parse_src_mac),
	PARSED("dst-mac", parse_dst_mac),
	NUMBER("flow-base", flow_base, 0, UINT32_MAX),
	NUMBER("seed", seed, 0, UINT64_MAX),
	FLAG("help", print_help),
};

#define SPECS (sizeof(specs) / sizeof(specs[0]))

static void apply(const struct spec *spec, struct plan *plan, char *text)
{
	void *field = (char *)plan + spec->offset;

	current_option = spec->name;
	if (spec->parse)
		spec->parse(plan, text);
	else if (spec->bytes == 1)
		*(uint8_t *)field = number(text, spec->least, spec->most);
	else if (spec->bytes == 2)
		*(uint16_t *)field = number(text, spec->least, spec->most);
	else if (spec->bytes == 4)
		*(uint32_t *)field = number(text, spec->least, spec->most);
	else
		*(uint64_t *)field = number(text, spec->least, spec->most);
}

__attribute__((noreturn)) static void fail(const char *message)
{
	fprintf(stderr, "netobs-traffic: %s\n", message);
	exit(2);
}

static void check(struct plan *plan)
{
	char message[96];
	uint32_t least = frame_layout(plan).payload;

	if (!plan->interface[0])
		fail("--interface is missing (--help lists the options)");
	if (plan->qinq >= 0 && plan->vlan < 0)
		fail("--qinq needs --vlan, the outer tag");
	if (plan->gso && plan->protocol != IPPROTO_TCP)
		fail("--gso needs --protocol tcp");
	if (plan->flow_base + plan->flows > 1ull << 32)
		fail("--flow-base plus --flows must not exceed 4294967296");
	if (!plan->size_min)
		plan->size_min = plan->size_max = least > 64 ? least : 64;
	if (plan->size_min < least) {
		snprintf(message, sizeof(message), "--size: the headers of these frames alone take %u bytes", least);
		fail(message);
	}
	if (!plan->packets)
		plan->packets = plan->flows;
	if (!plan->threads)
		plan->threads = plan->cpu_count ? plan->cpu_count : 1;
	if ((uint64_t)plan->threads > plan->packets)
		plan->threads = plan->packets;
}

void options_parse(struct plan *plan, int argc, char **argv)
{
	struct option options[SPECS + 1] = { 0 };
	int id, index = 0;

	for (size_t i = 0; i < SPECS; i++)
		options[i] = (struct option){ specs[i].name, specs[i].has_argument, NULL, 0 };
	*plan = (struct plan){ .flows = 1, .burst = 32, .protocol = IPPROTO_UDP };
	plan->vlan = plan->qinq = -1;
	plan->ttl = 64;
	plan->dst_port = 9;
	plan->tcp_flags = 0x10;
	memset(plan->dst_mac, 0xff, sizeof(plan->dst_mac));
	while ((id = getopt_long(argc, argv, "", options, &index)) != -1) {
		if (id == '?')
			exit(2);
		apply(&specs[index], plan, optarg);
	}
	if (optind < argc)
		fail("unexpected argument (--help lists the options)");
	check(plan);
}
