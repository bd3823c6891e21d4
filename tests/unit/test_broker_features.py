"""What a broker lacks is said once, and done without."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fogmqtt.transport.features import MAX_CUTS, BrokerFeatures
from fogmqtt.transport.link import Address, short_client_id

BAD_CLIENT_ID = 0x85
SHARED, PLAIN = "$share/gateways/fog/v1/submit/+/+", "fog/v1/submit/+/+"


@pytest.fixture
def broker() -> BrokerFeatures:
    return BrokerFeatures(Address("broker", 1883))


def test_a_broker_that_announces_nothing_has_everything(
    broker: BrokerFeatures, caplog: pytest.LogCaptureFixture
) -> None:
    broker.announced(None)
    broker.announced(SimpleNamespace(TopicAliasMaximum=10))
    assert broker.subscription(SHARED) == SHARED
    assert broker.has_retain
    assert broker.max_qos == 2
    assert caplog.messages == []


def test_what_a_broker_lacks_is_said_once(
    broker: BrokerFeatures, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        broker.announced(
            SimpleNamespace(SharedSubscriptionAvailable=0, RetainAvailable=0, MaximumQoS=0)
        )
    assert broker.subscription(SHARED) == PLAIN
    assert not broker.has_retain
    assert broker.max_qos == 0
    assert len(caplog.messages) == 3
    assert all(text.startswith("the broker at broker:1883 ") for text in caplog.messages)


def test_a_client_that_shares_nothing_does_not_say_that_nothing_is_shared(
    broker: BrokerFeatures, caplog: pytest.LogCaptureFixture
) -> None:
    broker.announced(SimpleNamespace(SharedSubscriptionAvailable=0))
    assert broker.subscription("fog/v1/devices/eya/tiles") == "fog/v1/devices/eya/tiles"
    assert caplog.messages == []


def test_a_refused_share_is_replaced_by_a_plain_subscription(broker: BrokerFeatures) -> None:
    assert broker.share_refused(SHARED)
    assert broker.subscription(SHARED) == PLAIN
    assert not broker.share_refused(SHARED), "the plain one was refused too"


def test_a_refused_plain_subscription_has_no_other_form(broker: BrokerFeatures) -> None:
    assert not broker.share_refused(PLAIN)


def test_a_broker_that_cuts_whoever_asks_for_a_share_is_asked_twice(broker: BrokerFeatures) -> None:
    for _ in range(MAX_CUTS):
        assert broker.subscription(SHARED) == SHARED
        broker.lost_before_answer([PLAIN, SHARED])
        broker.announced(None)
    assert broker.subscription(SHARED) == PLAIN


def test_a_later_connection_asks_for_a_share_again(broker: BrokerFeatures) -> None:
    for _ in range(MAX_CUTS):
        broker.lost_before_answer([SHARED])
    broker.announced(None)
    broker.answered()
    broker.announced(None)
    assert broker.subscription(SHARED) == SHARED
    broker.lost_before_answer([SHARED])
    broker.announced(None)
    assert broker.subscription(SHARED) == PLAIN


def test_losses_for_other_reasons_do_not_count(broker: BrokerFeatures) -> None:
    for _ in range(MAX_CUTS):
        broker.lost_before_answer([PLAIN])
        broker.lost_before_answer([SHARED])
        broker.answered()
        broker.announced(None)
    assert broker.subscription(SHARED) == SHARED


@pytest.mark.parametrize(("code", "again"), [(0x9A, True), (0x9B, True), (0x87, False)])
def test_a_will_that_the_broker_cannot_hold_is_changed_once(
    broker: BrokerFeatures, code: int, again: bool
) -> None:
    assert broker.connect_refused(code, "eya") is again
    assert not broker.connect_refused(code, "eya")


def test_a_client_id_that_the_broker_refuses_is_shortened_once_and_always_the_same(
    broker: BrokerFeatures, caplog: pytest.LogCaptureFixture
) -> None:
    long = "fog-v1-gateway-mariem-run-1a2b"
    assert broker.client_id(long) == long
    assert broker.connect_refused(BAD_CLIENT_ID, long)
    short = broker.client_id(long)
    assert len(short) == 23
    assert short.isalnum()
    assert short == BrokerFeatures(Address("other", 1)).client_id(short_client_id(long))
    assert broker.client_id("fog-v1-device-mariem") != short
    assert not broker.connect_refused(BAD_CLIENT_ID, long), "the short one was refused, too"
    (said,) = caplog.messages
    assert long in said
    assert short in said


def test_without_wildcards_only_plain_subscriptions_are_granted(broker: BrokerFeatures) -> None:
    assert broker.grants("fog/v1/devices/+/status")
    broker.announced(SimpleNamespace(WildcardSubscriptionAvailable=0))
    assert not broker.grants("fog/v1/devices/+/status")
    assert not broker.grants("fog/#")
    assert broker.grants("fog/v1/devices/eya/tiles")
