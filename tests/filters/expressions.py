"""Expressions of pcap-filter(7), by what they are about. libpcap 1.9 and later can compile all of them."""

from __future__ import annotations

HOSTS4, HOSTS6 = ("10.0.0.1", "10.1.2.3", "192.0.2.1"), ("2001:db8::1", "fe80::1")
MAC = "02:00:00:00:00:01"

PROTOCOLS = [
    *["tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "esp", "ah", "pim", "vrrp", "ip", "ip6", "arp", "rarp", "vlan"],
    *["mpls", "pppoed", "pppoes", "geneve", "stp", "netbeui", "multicast", "broadcast"],
    *[f"ip proto {n}" for n in (1, 6, 17, 47, 50, 89, 132)],
    *[f"ip6 proto {n}" for n in (6, 17, 43, 44, 58, 60)],
    *["ip proto \\tcp", "ip6 proto \\udp", "proto \\icmp", "proto 47", "ether proto \\ip", "ether proto 0x88cc"],
    *["ip multicast", "ip6 multicast", "ether multicast", "ether broadcast", "not ip", "not (ip or ip6)"],
    *["ether proto \\arp", "ether proto \\ip6", "llc", "llc u", "llc i", "llc s", "iso", "ipx", "atalk"],
]
HOSTS = [
    *[f"{way}host {host}" for host in (*HOSTS4, *HOSTS6) for way in ("", "src ", "dst ", "not ")],
    *[f"{kind} host 10.0.0.1" for kind in ("ip", "arp", "rarp", "arp src", "src or dst", "src and dst")],
    *[f"{way}net {net}" for net in ("10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32") for way in ("", "src ", "dst ")],
    *["net 10.0", "net 10", "dst net 224.0.0.0/4", "net 10.0.0.0 mask 255.255.255.252", "host 10.0.0.1 or 10.0.0.2"],
    *[f"ether {way}{MAC}" for way in ("host ", "src ", "dst ")],
    *["ether src host 02:00:00:00:00:02", "ether dst ff:ff:ff:ff:ff:ff"],
]
PORTS = [
    *[f"{protocol}port {port}" for port in (22, 53, 80, 443) for protocol in ("", "tcp ", "udp ", "sctp ")],
    *[f"{way} port {port}" for port in (80, 6081) for way in ("src", "dst", "tcp src", "udp dst", "src or dst")],
    *[f"{kind}portrange {ports}" for ports in ("1-79", "22-443", "4000-65535") for kind in ("", "tcp ", "udp dst ")],
    *["port domain", "tcp port http", "tcp port 80 or 443", "tcp port 80 or tcp port 443 or udp port 53"],
    *["not port 22", "tcp and not port 22", "port 80 and host 10.0.0.1", "udp and (port 53 or port 4789)"],
]
TAGS = [
    *[
        "vlan 1",
        "vlan 100",
        "vlan and vlan",
        "vlan and vlan 100",
        "vlan 200 and vlan 1",
        "vlan and tcp",
        "vlan and arp",
    ],
    *[f"vlan and {rest}" for rest in ("ip", "ip6", "udp port 53", "host 10.0.0.1", "net 2001:db8::/32", "not ip")],
    *[f"vlan and vlan and {rest}" for rest in ("ip", "tcp port 80", "src host 192.0.2.1", "icmp6")],
    *[f"{rest} or (vlan and {rest})" for rest in ("tcp port 80", "udp", "host 10.0.0.2", "arp", "icmp")],
    *["mpls 16", "mpls 1023", "mpls and ip", "mpls and mpls", "mpls and mpls 100 and host 10.0.0.1", "mpls and tcp"],
    *["mpls and udp port 53", "vlan and mpls", "vlan and mpls and ip6", "mpls 100 or mpls 2"],
    *["pppoes 7", "pppoes and ip", "pppoes and ip6", "pppoes and tcp", "pppoes and udp port 53", "pppoes 500 and ip6"],
    *["pppoes and host 10.0.0.1", "pppoed or pppoes", "vlan and pppoes and ip"],
    *["geneve 77", "geneve and ip", "geneve and tcp port 80", "geneve 77 and arp", "geneve and vlan", "geneve and ip6"],
    *["geneve and host 10.0.0.1", "geneve and udp and port 53", "geneve and ether host " + MAC],
]
OCTETS = [
    *[
        "ip[6:2] & 0x1fff != 0",
        "ip[6:2] & 0x1fff = 0",
        "ip[8] < 5",
        "ip[0] & 0xf > 5",
        "ip[0] & 0xf != 5",
        "ip[1] & 3 = 1",
    ],
    *["tcp[tcpflags] & tcp-syn != 0", "tcp[tcpflags] & (tcp-syn|tcp-fin) = 0", "tcp[tcpflags] = tcp-syn|tcp-ack"],
    *["tcp[13] & 7 != 0", "tcp[12] >> 4 > 5", "tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420", "tcp[4:4] = 1"],
    *["udp[4:2] > 40", "udp[8:4] & 0xff = 0", "icmp[icmptype] = icmp-echo", "icmp[0] = 8 or icmp[0] = 0"],
    *["icmp[icmptype] != icmp-echo and icmp[icmpcode] < 2", "icmp6[0] = 135", "icmp6[icmp6type] = icmp6-echo"],
    *[
        "ip6[6] = 44",
        "ip6[40] = 6",
        "ip6[4:2] > 60",
        "ip6[7] < 64",
        "ip6[0:4] & 0xff00000 != 0",
        "ip6[24:4] = 0x20010db8",
    ],
    *["ether[0] & 1 = 1", "ether[0] & 1 = 0 and ip[16] >= 224", "ether[12:2] = 0x8100", "ether[12:4] = 0x81006001"],
    *[
        "ether[12:2] > 1500",
        "ether[14:2] & 0xfff = 100",
        "ether[16:2] = 0x0800",
        "ether[11:2] = 0x0181",
        "ether[13:4] & 1 = 0",
    ],
    *[
        "ether[15:2] & 0xff = 8",
        "ether[10:4] != 0",
        "ether[9:4] & 0xff = 0x81",
        "ether[20:4] > 0x40000000",
        "ether[13] = 0",
    ],
    *[
        "len >= 100",
        "len < 64",
        "less 60",
        "greater 1000",
        "len = 9000",
        "len - 14 = ip[2:2]",
        "len > 64 and len < 128",
    ],
    *[
        "ip[2:2] - ((ip[0] & 0xf) << 2) > 40",
        "ip[8] * 2 > 100",
        "ip[8] / 3 = 20",
        "ip[8] % 7 = 3",
        "ip[4:2] ^ 0x1234 = 0",
    ],
    *["ip[2:2] / ip[8] > 1", "ip[12] % (ip[19] + 1) = 0", "len % ip[8] = 0", "ip[12:4] / 0x1000000 = 10"],
    *[
        "1 << (ip[9] & 31) & 0x20042 != 0",
        "ip[12:4] >> (ip[1] & 31) & 1 = 1",
        "ip[1] << ip[8] > 0",
        "ip[12:4] >> ip[8] = 0",
    ],
    *[
        "-ip[8] > 0xffffff80",
        "ip[12:4] - ip[16:4] > 0x7fffffff",
        "ip[12:4] = ip[16:4]",
        "ip[8] | 1 = 65",
        "ip[12:4] * 3 > 100",
    ],
    *["ether[len - 1] = 0", "ether[len - 4:4] = 0", "ip[ip[8]] & 1 = 1", "ip[ip[8]:2] & 1 = 1", "ip[ip[1]:4] != 0"],
    *[
        "ether[ip[8] & 15] & 1 = 1",
        "ether[ip[8] & 15:2] & 0x180 != 0",
        "ether[ip[8] & 15:4] > 0x8000",
        "ether[70000] = 0",
    ],
    *["ether[ip[8] & 31:4] & 0xff = 8", "ether[4000:4] = 0", "ether[8900] = 0", "ether[40000] = 0 or ip"],
    *["udp[ip[8]:2] = 0", "tcp[ip[8] & 31] != 0", "ip6[ip6[7]] = 0", "ether[ether[13] & 3 + 11] != 0"],
]
JOINED = [
    *["tcp and ip", "tcp or udp", "tcp and host 10.0.0.1", "tcp port 443 and host 10.0.0.1", "ip and not tcp"],
    *["(tcp or udp) and (port 53 or port 80)", "not (tcp or udp or icmp)", "ip6 and tcp and not port 443"],
    *[
        "src host 10.0.0.1 and dst host 10.0.0.2",
        "(src net 10 and dst net 10) or arp",
        "tcp and (ip[8] > 64 or ip6[7] > 64)",
    ],
    *[
        "host 10.0.0.1 and not (port 22 or port 53)",
        "ip and (len > 100 or tcp[13] & 2 != 0)",
        "udp port 53 and len > 80",
    ],
    *["(ip and tcp[13] & 4 != 0) or (ip6 and ip6[53] & 4 != 0)", "ether broadcast and not arp", "arp or icmp or icmp6"],
    *[
        "(host 10.0.0.1 or host 10.0.0.2 or host 192.0.2.1) and (tcp or udp) and not port 443",
        "not vlan",
        "not len > 200",
    ],
    *["ip host 10.0.0.1 and (tcp port 80 or udp portrange 50-60)", "src portrange 1-1023 and dst portrange 1-1023"],
    *["ip[9] = 6 or ip[9] = 17 or ip6[6] = 6 or ip6[6] = 17", "(tcp and port 80) or (udp and port 53) or (icmp)"],
    *[
        "ether src 02:00:00:00:00:01 and ip",
        "ether host 02:00:00:00:00:02 or net 2001:db8::/32",
        "multicast and not broadcast",
    ],
    *["ip and not (src net 10 or dst net 10)", "tcp or vlan", "ip6 or (vlan and ip6)", ""],
    " or ".join(f"host 10.0.{n // 8}.{n}" for n in range(120)),
]
EXPRESSIONS = list(dict.fromkeys([*PROTOCOLS, *HOSTS, *PORTS, *TAGS, *OCTETS, *JOINED]))
"""At least 300 different ones."""

REFUSED = [
    *["tcp portx", "host", "tcp port 80 and", "tcp and udp", "ip broadcast", "port nosuchservice", "net 10.0.0.1/24"],
    *[
        "tcp[tcpflags",
        "ether host 10.0.0.1",
        "ip proto nosuch",
        "tcp port 80 80",
        "vlan 5000",
        "ip[2:3] = 1",
        "1 / 0 = 1",
    ],
]
