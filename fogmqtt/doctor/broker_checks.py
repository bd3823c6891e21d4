"""What a look at the broker means: judgements without any I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fogmqtt.core.release import is_older
from fogmqtt.doctor.broker_look import BrokerFacts, Seen
from fogmqtt.doctor.finding import Finding, fault, ok, warning
from fogmqtt.log import one_line

#: Bytes of a message beside its pixels, at most.
_AROUND_TILE = 4096
#: An echo that takes this much longer than a ping waited for a delayed acknowledgement (40 ms).
_NAGLE_S = 0.03
#: Round trips over this make small tiles slow.
_FAR_S = 0.05
#: Clocks that differ by more than this, in seconds, are told; messages take less.
_SKEW_S = 10.0
#: Links below this many bytes per second are slow for pixels.
_SLOW_BYTES_PER_S = 500_000.0


def broker(facts: BrokerFacts, join_again: str = "") -> Iterator[Finding]:
    """Judge whether a broker can be used. Of several, one is enough.

    `join_again` is what a board can do that has joined; empty for others.
    """
    if not facts.reached:
        refusals = list(facts.refusals.values())
        # Of a gateway's addresses, a name that this network does not know tells least.
        telling = [one for one in refusals if not one.startswith("no such host")]
        for refusal in telling or refusals:
            sentence, _, fix = refusal.partition("; ")
            # A board that has joined has no settings of its certificates.
            if join_again and (not fix or fix.startswith("set broker.")):
                fix = ""
            fixes = [one for one in (fix, join_again) if one]
            yield fault(
                "broker", sentence, "; ".join(fixes) or "check broker.url, and that the broker runs"
            )
        return
    failed = ", ".join(refusal.partition("; ")[0] for refusal in facts.refusals.values())
    others = f", after others did not ({failed})" if failed else ""
    yield ok("broker", f"{facts.url} lets this program in{others}")
    if facts.unsteady and not facts.taken_over:
        yield fault(
            "broker",
            f"{facts.url} ends the connection again and again: {facts.unsteady}",
            "look at the broker's log",
        )


def message_limit(facts: BrokerFacts, tile_bytes: int) -> Finding:
    limit = facts.max_packet_bytes
    if limit is None or limit >= tile_bytes + _AROUND_TILE:
        return ok("message limit", "the broker takes messages as large as a tile")
    return fault(
        "message limit",
        f"the broker takes packets of at most {limit:,} bytes, and a tile may have {tile_bytes:,}",
        f"raise max_packet_size in mosquitto.conf, or set wire.max_message_bytes to "
        f"{max(4096, limit - _AROUND_TILE)}",
    )


def counters(facts: BrokerFacts) -> Finding | None:
    """Judge how many messages the broker dropped.

    Mosquitto grants a subscription that its access list forbids, and then sends nothing.
    """
    if facts.has_counters is None:
        return None
    if not facts.has_counters:
        return warning(
            "$SYS",
            "the broker does not say how many messages it drops: this user may not read its $SYS, "
            "or it does not count them as Mosquitto does",
            "add `topic read $SYS/broker/publish/messages/dropped` and `topic read "
            "$SYS/broker/version` for this user to the access list, or run broker/add-user.sh "
            "again; a broker that is not Mosquitto needs nothing",
        )
    if facts.dropped:
        return warning(
            "queue limits",
            f"the broker has dropped {facts.dropped:,} messages since it started: a limit of it is "
            "too low for a client that reads slowly",
            "raise max_queued_messages (10000) or max_queued_bytes in mosquitto.conf",
        )
    return ok("queue limits", "the broker reports no dropped messages")


def taken_over(facts: BrokerFacts, fix: str) -> Finding | None:
    if not facts.taken_over:
        return None
    return warning(
        "user",
        "another program is connected as the same user, and the two disconnect each other, so "
        "not all was examined",
        fix,
    )


def delay(facts: BrokerFacts) -> Finding | None:
    """Judge the round trips: far away, or waiting for acknowledgements that come late."""
    if facts.ping_s is None:
        return None
    milliseconds = f"{1000 * facts.ping_s:.0f} ms"
    if facts.echo_s is not None and facts.echo_s - facts.ping_s > _NAGLE_S:
        return warning(
            "round trip",
            f"a ping takes {milliseconds} and a small message {1000 * facts.echo_s:.0f} ms: the "
            "broker waits for acknowledgements that its clients delay",
            "set `set_tcp_nodelay true` in mosquitto.conf, and restart the broker",
        )
    if facts.ping_s > _FAR_S:
        return warning(
            "round trip",
            f"a ping to the broker takes {milliseconds}",
            "use a cable or a nearer access point; on a local network, set "
            "`set_tcp_nodelay true` in mosquitto.conf",
        )
    return ok("round trip", f"a ping to the broker takes {1000 * facts.ping_s:.1f} ms")


def link_rate(facts: BrokerFacts) -> Finding | None:
    if facts.bytes_per_s is None:
        return None
    rate = f"{facts.bytes_per_s / 1e6:.2f} MB/s"
    if facts.bytes_per_s < _SLOW_BYTES_PER_S:
        return warning(
            "link",
            f"the link to the broker moves {rate}: tiles take longer on it than the work on them",
            "use a cable or 5 GHz Wi-Fi, or `wire.codec: png`",
        )
    return ok("link", f"the link to the broker moves {rate} or more")


def devices(facts: BrokerFacts, start: str) -> Finding:
    """Judge whether devices are online; `start` is how a first one comes."""
    online = sorted(name for name, seen in facts.devices.items() if seen.online)
    if online:
        return ok("devices", f"{len(online)} online: {', '.join(online[:20])}")
    known = sorted(facts.devices)
    if known:
        return warning(
            "devices",
            f"no device is online; the broker remembers {', '.join(known[:20])}",
            f"start them, such as fog-device --id {known[0]}, and look at their logs",
        )
    return warning(
        "devices",
        "no device has announced itself at this broker",
        start,
    )


def gateways(facts: BrokerFacts, *, is_told: bool) -> Finding:
    """Judge whether a gateway is online. Most users of an access list are not told of gateways."""
    online = sorted(name for name, seen in facts.gateways.items() if seen.online)
    if online:
        return ok("gateway", f"online: {', '.join(online[:20])}")
    if not is_told:
        return ok(
            "gateway", "this user is not told which gateways are online; their doctor tells it"
        )
    return warning(
        "gateway",
        "no gateway is online at this broker",
        "start fog-gateway with the same broker.url and wire.prefix",
    )


def several_gateways(facts: BrokerFacts, own: str, *, has_group: bool) -> Finding | None:
    """Judge gateways that would do each submission twice."""
    others = sorted(
        name for name, seen in facts.gateways.items() if seen.online and seen.serves and name != own
    )
    if not others or has_group:
        return None
    return warning(
        "several gateways",
        f"{', '.join(others)} serves at this broker, too: each gateway does every submission",
        "set the same secret gateway.group in all of them, or use one gateway",
    )


def shared(facts: BrokerFacts) -> Finding | None:
    """Judge whether gateways of one group can share submissions."""
    if facts.has_shared is None:
        return None
    if facts.has_shared:
        return ok("shared subscriptions", "the broker lets the group of gateways share submissions")
    return fault(
        "shared subscriptions",
        "this broker has no shared subscriptions, or this user may not join the group, so the "
        "gateways of gateway.group get no submissions",
        "use a broker that has them, such as Mosquitto, or leave gateway.group empty and use one "
        "gateway",
    )


def clocks(facts: BrokerFacts) -> Iterator[Finding]:
    """Judge machines whose clocks differ from this one."""
    for kind, members in (("device", facts.devices), ("gateway", facts.gateways)):
        for name, seen in sorted(members.items()):
            ahead_s = seen.clock_ahead_s
            if ahead_s is not None and abs(ahead_s) > _SKEW_S:
                way = "ahead of" if ahead_s > 0 else "behind"
                yield warning(
                    "clocks",
                    f"the clock of the {kind} {name} is {_duration(ahead_s)} {way} this one: "
                    "certificates and the age of frames are judged by clocks",
                    "set the wrong one: timedatectl set-ntp true",
                )


def _duration(seconds: float) -> str:
    """Return a length of time with the unit that suits it."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if abs(seconds) >= 2 * length:
            return f"{abs(seconds) / length:.0f} {unit}"
    return f"{abs(seconds):.0f} s"


def twins(facts: BrokerFacts) -> Iterator[Finding]:
    """Judge ids that two processes use at the same time."""
    for kind, option, members in (
        ("agents", "--id", facts.devices),
        ("gateways", "gateway.id", facts.gateways),
    ):
        for name, seen in sorted(members.items()):
            if len(seen.live_boots) > 1:
                yield fault(
                    "two of one id",
                    f"two {kind} use the id {name} and disconnect each other",
                    f"give one of them another {option}",
                )


def device_versions(facts: BrokerFacts, own: str) -> Iterator[Finding]:
    """Judge devices of other versions of fogmqtt than the gateway's."""
    apart = _apart(facts.devices, own)
    ahead = [name for name, version in apart.items() if is_older(own, version)]
    updated = [name for name in apart if name not in ahead and facts.devices[name].updates]
    installed = [name for name in apart if name not in ahead and name not in updated]
    for names, fix in (
        (ahead, "install their version on the gateway, too, and restart it"),
        (updated, f"fog-gateway update {' '.join(updated)}"),
        (installed, f"install fogmqtt {own} on them as the first time, and restart them"),
    ):
        if names:
            named = ", ".join(f"{name} {one_line(apart[name])}" for name in names[:20])
            yield warning("versions", f"this is fogmqtt {own}, and devices run: {named}", fix)


def gateway_versions(facts: BrokerFacts, own: str, fix: str) -> Finding | None:
    """Judge gateways of other versions of fogmqtt than this program's."""
    apart = _apart(facts.gateways, own)
    if not apart:
        return None
    named = ", ".join(f"{name} {one_line(version)}" for name, version in list(apart.items())[:20])
    return warning("versions", f"this is fogmqtt {own}, and gateways run: {named}", fix)


def _apart(members: Mapping[str, Seen], own: str) -> dict[str, str]:
    return {
        name: seen.version[:40]
        for name, seen in sorted(members.items())
        if seen.online and seen.version and seen.version != own
    }


def fingerprints(differs: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    """Judge operators that devices compute otherwise than this machine; reasons by ability."""
    for device, abilities in sorted(differs.items()):
        operators = sorted({ability.partition("/")[0] for ability in abilities})
        if operators:
            yield warning(
                "fingerprints",
                f"{device} gets no tiles for {one_line(', '.join(operators))}: it "
                f"{one_line(next(iter(abilities.values())))}",
                "install the same OpenCV on both, or set exact: false",
            )
