"""``netobs --dry-run``: checks everything that needs no attaching or sending, and prints the daemon's plan."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from netobs import __version__
from netobs.base.errors import NetobsError
from netobs.base.log import printable_lines
from netobs.config import CaptureConfig, CollectorConfig, Config, MetricsConfig, warnings_of
from netobs.daemon import extra, footprint, host_check, packet_capture
from netobs.daemon.collectors import template_warnings
from netobs.daemon.protocols import exporter
from netobs.datapath.capture import Capture, check_interfaces
from netobs.datapath.datapath import Datapath
from netobs.datapath.memory import MIB
from netobs.encode.options.table import spoken
from netobs.encode.options.wire import Subject
from netobs.export.link.address import Address, resolve
from netobs.export.link.tls import client_context, server_name
from netobs.export.spool.folder import used_bytes
from netobs.export.spool.place import folder_of
from netobs.flow.report import Report
from netobs.kernel import descriptors, libbpf, many, requirements
from netobs.kernel.observation_points import DIRECTIONS

POLICIES = {
    "replicate": "each gets every flow",
    "failover": "the first that is up gets every flow",
    "balance": "each gets its share, a conversation goes to one",
}


@dataclass
class Plan:
    """The daemon's plan (``lines``), its ``warnings``, and the ``problems`` that would keep it from starting."""

    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The lines to print."""
        parts = [*self.lines, *(f"warning: {line}" for line in self.warnings)]
        parts += [f"problem: {line}" for line in self.problems]
        parts.append("netobs would not start" if self.problems else "netobs would start")
        return "\n".join(line for part in parts for line in printable_lines(part))


def make(config: Config) -> Plan:
    """Checks ``config`` against this host. Attaches nothing, sends nothing (except name service queries)."""
    plan = Plan(warnings=[*warnings_of(config), *host_check.warnings_of(config, host_check.present_interfaces())])
    plan.lines.append(f"netobs {__version__}, configuration {config.path}")
    _capture(config, plan)
    lines, warnings, problems = packet_capture.plan(config)
    plan.lines += lines
    plan.warnings += warnings
    plan.problems += problems
    _metrics(config.metrics, plan)
    found = {each.name: _collector(each, config.capture, plan) for each in config.collectors}
    plan.warnings += host_check.twins(config, found)
    for group in config.groups:
        names = ", ".join(f'"{name}"' for name in group.collectors)
        plan.lines.append(f'group "{group.name}": {group.policy} over {names}: {POLICIES[group.policy]}')
    return plan


def _capture(config: Config, plan: Plan) -> None:
    try:
        plan.lines.append(f"kernel {os.uname().release}, libbpf {libbpf.version()}")
        wanted = extra.elements(extra.readable(config))
        capture = Capture(config.capture, extra_groups=extra.groups(config, extra.readable(config)))
    except NetobsError as error:
        plan.problems.append(str(error))
        return
    try:
        _memory(config, capture, wanted, plan)
        interfaces = [f"  {line}" for line in _interfaces(config, capture, plan)]
        plan.lines += ["interfaces:", *interfaces]
    finally:
        capture.close()


def _memory(config: Config, capture: Capture, wanted: dict[str, str], plan: Plan) -> None:
    table, flows = config.capture.flow_table, config.capture.max_flows
    record = capture.datapath.record
    plan.lines.append(
        f"flow table {table}: {flows} flows, {_mib(capture.datapath.kernel_bytes())} of kernel memory "
        f"for {libbpf.possible_cpus()} possible CPUs"
    )
    asked = [*wanted, *(f"[insight] {group}" for group in config.insight.groups)]
    if asked:
        plain_bytes = Datapath(config.capture).kernel_bytes()
        plan.lines.append(
            f"  {_mib(capture.datapath.kernel_bytes() - plain_bytes)} of that, and some time for each packet, for "
            f"{', '.join(asked)}: see netobs-templates(5)"
        )
    cache, eviction = _mib(footprint.cache_bytes(config, record)), _mib(footprint.eviction_bytes(config, record))
    plan.lines.append(f"flow cache: at most {config.metering.max_flows} flows, {cache} of process memory when full")
    plan.lines.append(f"an eviction of {flows} flows takes about {eviction} of process memory more")
    with contextlib.suppress(NetobsError):  # a problem, which loading finds too
        warning = footprint.warning(config, capture.datapath.kernel_bytes(), record)
        plan.warnings += [warning] if warning else []


def _interfaces(config: Config, capture: Capture, plan: Plan) -> Iterator[str]:
    method = ""
    try:
        capture.load()
        method = capture.points.method
        place = config.capture.anchor
        plan.lines.append(f"BPF object: verified by the kernel, attach method {method}, {place} on the hook")
        plan.problems += requirements.modules_that_cannot_load() if method == "tc" else []
    except NetobsError as error:
        plan.problems.append(str(error))
    present = capture.points.links.interfaces()
    try:
        warning = check_interfaces(config.capture, present)
        plan.warnings += [warning] if warning else []
    except NetobsError as error:
        plan.problems.append(str(error))
    if config.capture.netns:
        _namespaces(config, plan)
    directions = " and ".join(DIRECTIONS[config.capture.direction])
    wanted = {interface.index for interface in capture.points.wanted()}
    filters = wanted if method == "tc" else capture.points.for_filters()
    if method:
        _attaching(many.cost(len(wanted), len(filters), len(DIRECTIONS[config.capture.direction])), plan)
    for interface in present:
        if not config.capture.selector.matches(interface.name):
            continue
        if interface.is_measurable:
            by = f", by {'tc' if interface.index in filters else method}" if method else ""
            yield f"{interface.name} (index {interface.index}): {directions}{by}"
        else:
            yield f"{interface.name} (index {interface.index}): left out, link type {interface.arphrd} is not measured"
    names = {interface.name for interface in present}
    for name in config.capture.selector.names:
        if name not in names:
            yield f"{name}: not there now, attached when it appears"


def _attaching(cost: many.AttachingCost, plan: Plan) -> None:
    """What it costs this host, and others on it, if there are many."""
    if cost.links:
        _descriptors(cost.files, plan)
    if not cost.is_high:
        return
    plan.lines.append(
        f"attaching: {cost.links} interfaces by tcx, {cost.filters} by tc, about {max(1, round(cost.seconds))} s; what "
        f'is attached is measured; meanwhile "ip link add" of others takes up to {cost.others_ms} ms longer'
    )
    faster = 'capture.attach = "tc" is faster, but see BUGS in netobs(8) about Open vSwitch and rate limits'
    if cost.links > many.MANY:
        plan.warnings.append(
            f"attaching by tcx to {cost.links} interfaces takes about {round(cost.seconds)} s, and a stop over half "
            f"as long; {faster}"
        )
    elif cost.links:
        plan.lines.append(f"  interfaces that come later get tcx; where hundreds come and go, {faster}")


def _namespaces(config: Config, plan: Plan) -> None:
    from netobs.daemon.namespaces import usual_helper, without_helper

    helper = usual_helper()
    try:
        found = [name for name in helper.list() if config.capture.namespaces.matches(name)]
        names = ", ".join(found) or "none now, measured when they appear"
        plan.lines.append(f"network namespaces by the root helper: {names}")
    except OSError as error:
        plan.warnings.append(without_helper(error.strerror))
    finally:
        helper.close()


def _descriptors(links: int, plan: Plan) -> None:
    most = descriptors.limit()
    plan.lines.append(f"file descriptors: {links} for the interfaces, of {most}")
    if links + descriptors.reserve(most) > most:
        plan.warnings.append(f"some interfaces would not be measured: {descriptors.shortage(most)}")


def _collector(collector: CollectorConfig, capture: CaptureConfig, plan: Plan) -> list[Address]:
    """Its addresses."""
    addresses: list[Address] = []
    plan.lines.append(f'collector "{collector.name}": {collector.protocol} over {collector.transport}')
    try:
        addresses = resolve(collector)
        plan.lines.append("  address " + ", ".join(map(str, addresses)))
    except NetobsError as error:
        if not host_check.missing_interface(collector):  # the daemon starts, and waits for it
            plan.problems.append(str(error))
    if collector.transport == "tls":
        _tls(collector, plan)
    if collector.spool:
        _spool(collector, plan)
    try:
        made = exporter(collector.protocol, collector.template, 0, capture.sampling)
        encoder = made.encoder
        encoder.check(collector.max_message_size)
        template_name = "of NetFlow v5" if collector.protocol == "netflow5" else collector.template
        plan.lines.append(f"  template {template_name}, observation domain {collector.observation_domain}")
        for template in encoder.templates:
            size = f"{len(template.fields)} elements, {template.size}"
            plan.lines.append(f"    {template.id} {template.family}: {size}")
        subject = Subject(Report(sampling=capture.sampling), encoder.templates, collector.observation_domain)
        for options in spoken(encoder.options, subject):
            plan.lines.append(f"    {options.id} options records: {options.kind}")
        plan.warnings += template_warnings(collector, made, capture.sampling, bool(capture.netns))
    except NetobsError as error:
        plan.problems.append(f'collector "{collector.name}": {error}')
    return addresses


def _tls(collector: CollectorConfig, plan: Plan) -> None:
    """Reads the certificates. Only a connection would tell whether the collector accepts them."""
    try:
        client_context(collector)
    except NetobsError as error:
        plan.problems.append(str(error))
        return
    authorities, own = collector.ca or "the system's authorities", collector.cert or "none"
    plan.lines.append(f'  TLS: verified as "{server_name(collector)}" by {authorities}; own certificate: {own}')


def _spool(collector: CollectorConfig, plan: Plan) -> None:
    """Checks that the spool is writable. The daemon starts even if it is not, and retries each minute."""
    directory = folder_of(collector.spool, collector.name)
    plan.lines.append(f"  spool {directory}: {_mib(used_bytes(directory))} used of {_mib(collector.spool_max_bytes)}")
    problem, warning = host_check.check_spool(collector)
    plan.problems += [problem] if problem else []
    plan.warnings += [warning] if warning else []


def _metrics(config: MetricsConfig, plan: Plan) -> None:
    if not config.are_on:
        return
    from netobs.daemon import metrics

    if config.listen.host:
        plan.lines.append(f"metrics: http://{config.listen}{metrics.PATH}")
    if config.textfile:
        plan.lines.append(f"metrics: file {config.textfile}")
    plan.warnings += metrics.problems(config)  # the daemon starts, and tries again


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.1f} MiB"
