/* Builds Ethernet frames: VLAN tags, IPv4 or IPv6, TCP, UDP or ICMP. The payload is zeros, so no checksum reads it. */
#include "frame.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <string.h>

#define IPV4_HEADER 20
#define IPV6_HEADER 40
#define TCP_HEADER 20
#define UDP_HEADER 8
#define ICMP_HEADER 8
#define VLAN_TAG 4

static void put16(uint8_t *at, uint16_t value)
{
	at[0] = value >> 8;
	at[1] = value & 0xff;
}

static void put32(uint8_t *at, uint32_t value)
{
	put16(at, value >> 16);
	put16(at + 2, value & 0xffff);
}

static uint32_t sum16(const uint8_t *bytes, size_t length, uint32_t sum)
{
	for (size_t i = 0; i < length; i += 2)
		sum += (uint32_t)bytes[i] << 8 | bytes[i + 1];
	return sum;
}

static uint16_t fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

static uint8_t l4_protocol(const struct plan *plan)
{
	return plan->protocol == IPPROTO_ICMP && plan->ipv6 ? IPPROTO_ICMPV6 : plan->protocol;
}

struct layout frame_layout(const struct plan *plan)
{
	struct layout at = { .ip = ETH_HLEN };

	at.ip += (plan->vlan >= 0) * VLAN_TAG + (plan->qinq >= 0) * VLAN_TAG;
	at.l4 = at.ip + (plan->ipv6 ? IPV6_HEADER : IPV4_HEADER);
	at.payload = at.l4 + (plan->protocol == IPPROTO_TCP   ? TCP_HEADER
			      : plan->protocol == IPPROTO_UDP ? UDP_HEADER
							      : ICMP_HEADER);
	return at;
}

static void init_ethernet(const struct plan *plan, uint8_t *frame)
{
	uint8_t *type = frame + 2 * ETH_ALEN;

	memcpy(frame, plan->dst_mac, ETH_ALEN);
	memcpy(frame + ETH_ALEN, plan->src_mac, ETH_ALEN);
	if (plan->vlan >= 0) {
		put16(type, plan->qinq >= 0 ? ETH_P_8021AD : ETH_P_8021Q);
		put16(type + 2, plan->priority << 13 | plan->vlan);
		type += VLAN_TAG;
	}
	if (plan->qinq >= 0) {
		put16(type, ETH_P_8021Q);
		put16(type + 2, plan->priority << 13 | plan->qinq);
		type += VLAN_TAG;
	}
	put16(type, plan->ipv6 ? ETH_P_IPV6 : ETH_P_IP);
}

static void init_ip(const struct plan *plan, uint8_t *ip)
{
	if (plan->ipv6) {
		put16(ip, 6 << 12 | plan->tos << 4);
		ip[6] = l4_protocol(plan);
		ip[7] = plan->ttl;
		put32(ip + 8, 0x20010db8);
		put32(ip + 12, 0x00010000);
		put32(ip + 24, 0x20010db8);
		put32(ip + 28, 0x00020000);
		return;
	}
	ip[0] = 4 << 4 | IPV4_HEADER / 4;
	ip[1] = plan->tos;
	put16(ip + 6, 0x4000); /* don't fragment, so identification may be 0 (RFC 6864, section 4.1) */
	ip[8] = plan->ttl;
	ip[9] = l4_protocol(plan);
}

void frame_init(const struct plan *plan, uint8_t *frame)
{
	struct layout at = frame_layout(plan);
	uint8_t *l4 = frame + at.l4;

	init_ethernet(plan, frame);
	init_ip(plan, frame + at.ip);
	if (plan->protocol == IPPROTO_ICMP) {
		l4[0] = plan->ipv6 ? 128 : 8; /* echo request */
		return;
	}
	put16(l4 + 2, plan->dst_port);
	if (plan->protocol == IPPROTO_TCP) {
		put16(l4 + 12, TCP_HEADER / 4 << 12 | plan->tcp_flags);
		put16(l4 + 14, 0xffff);
	}
}

/* Addresses, length and, in IPv4, the header checksum. Returns the sum of the pseudo header. */
static uint32_t set_ip(const struct plan *plan, uint8_t *ip, uint32_t flow, uint32_t ip_octets)
{
	uint32_t server = ((flow >> 16) + 1) & 0xffff;

	if (plan->ipv6) {
		uint32_t l4_octets = ip_octets - IPV6_HEADER;

		put16(ip + 4, l4_octets);
		put32(ip + 20, flow);
		put32(ip + 36, server);
		return sum16(ip + 8, 32, l4_octets + l4_protocol(plan));
	}
	put16(ip + 2, ip_octets);
	put16(ip + 10, 0);
	put32(ip + 12, 0xc6120000 + (flow & 0xffff));
	put32(ip + 16, 0xc6130000 + server);
	put16(ip + 10, ~fold(sum16(ip, IPV4_HEADER, 0)));
	return sum16(ip + 12, 8, ip_octets - IPV4_HEADER + l4_protocol(plan));
}

static void set_tcp(const struct plan *plan, uint8_t *tcp, uint64_t packet, uint32_t pseudo, bool offload)
{
	put32(tcp + 4, (uint32_t)packet);
	put16(tcp + 16, 0);
	if (plan->tcp_flags & 0x10)
		put32(tcp + 8, 1);
	/* With checksum offload the field holds the pseudo header's sum only. */
	put16(tcp + 16, offload ? fold(pseudo) : (uint16_t)~fold(sum16(tcp, TCP_HEADER, pseudo)));
}

static void set_udp(uint8_t *udp, uint32_t l4_octets, uint32_t pseudo)
{
	uint16_t checksum;

	put16(udp + 4, l4_octets);
	put16(udp + 6, 0);
	checksum = ~fold(sum16(udp, UDP_HEADER, pseudo));
	put16(udp + 6, checksum ? checksum : 0xffff);
}

static void set_icmp(const struct plan *plan, uint8_t *icmp, uint32_t flow, uint64_t packet, uint32_t pseudo)
{
	put16(icmp + 2, 0);
	put16(icmp + 4, flow & 0xffff);
	put16(icmp + 6, packet & 0xffff);
	put16(icmp + 2, ~fold(sum16(icmp, ICMP_HEADER, plan->ipv6 ? pseudo : 0)));
}

void frame_set(const struct plan *plan, const struct layout *at, uint8_t *frame, uint64_t packet, uint32_t size)
{
	uint32_t flow = plan->flow_base + (uint32_t)plan_flow(plan, packet);
	uint32_t pseudo = set_ip(plan, frame + at->ip, flow, size - at->ip);
	uint8_t *l4 = frame + at->l4;

	if (plan->protocol == IPPROTO_ICMP) {
		set_icmp(plan, l4, flow, packet, pseudo);
		return;
	}
	put16(l4, 1024 + flow % 64512);
	if (plan->protocol == IPPROTO_TCP)
		set_tcp(plan, l4, packet, pseudo, plan->gso != 0);
	else
		set_udp(l4, size - at->l4, pseudo);
}

struct wire frame_wire(const struct plan *plan, const struct layout *at, uint32_t size)
{
	uint32_t payload = size - at->payload;
	uint64_t segments = plan->gso && payload > plan->gso ? (payload + plan->gso - 1) / plan->gso : 1;

	return (struct wire){
		.packets = segments,
		.ip_octets = segments * (at->payload - at->ip) + payload,
		.frame_octets = segments * at->payload + payload,
	};
}

void frame_vnet_header(const struct plan *plan, const struct layout *at, uint32_t size, struct virtio_net_hdr *vnet)
{
	memset(vnet, 0, sizeof(*vnet));
	vnet->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	vnet->csum_start = at->l4;
	vnet->csum_offset = 16;
	if (size - at->payload > plan->gso) {
		vnet->gso_type = plan->ipv6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
		vnet->gso_size = plan->gso;
		vnet->hdr_len = at->payload;
	}
}
