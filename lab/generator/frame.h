#ifndef NETOBS_TRAFFIC_FRAME_H
#define NETOBS_TRAFFIC_FRAME_H

#include <linux/virtio_net.h>
#include <stddef.h>

#include "plan.h"

/* Where each header starts in a frame, and what one frame becomes on the wire. */
struct layout {
	uint32_t ip, l4, payload;
};

struct wire {
	uint64_t packets, ip_octets, frame_octets;
};

struct layout frame_layout(const struct plan *plan);

/* Writes all that is the same in every packet. frame: plan->size_max zeroed bytes. */
void frame_init(const struct plan *plan, uint8_t *frame);

/* Turns a frame that frame_init() wrote into packet number `packet`, `size` bytes long. */
void frame_set(const struct plan *plan, const struct layout *at, uint8_t *frame, uint64_t packet, uint32_t size);

/* What a frame of `size` bytes is on the wire: one packet, or as many as the super-packet has segments. */
struct wire frame_wire(const struct plan *plan, const struct layout *at, uint32_t size);

/* The virtio header of a TCP super-packet (or of a plain frame, if it has one segment only). */
void frame_vnet_header(const struct plan *plan, const struct layout *at, uint32_t size, struct virtio_net_hdr *vnet);

#endif
