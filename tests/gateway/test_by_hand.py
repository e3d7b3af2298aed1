"""A press by hand, from docs/protocol.md alone: no code of the project makes or reads the messages here."""

from __future__ import annotations

import hashlib
import hmac
import ssl
import threading

import cbor2
import paho.mqtt.client as mqtt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.hashes import SHA256
from paho.mqtt.enums import CallbackAPIVersion

from demo.process import wait_until
from demo.world import World
from tests.operator import Operator

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


def mac(key: bytes, header: bytes, payload: bytes) -> bytes:
    return hmac.new(key, cbor2.dumps(["MAC0", header, b"", payload]), hashlib.sha256).digest()


def test_a_press_written_by_hand_shows_at_headquarters_and_is_receipted() -> None:
    name = "by-hand"
    with World(buttons=("clifton-gate",)) as world:
        identity = world.issue(name)
        world.enrol_button(name)
        operator = Operator(world).sign_in()
        wait_until(lambda: any(child["id"] == name for child in operator.get("children")), 10, "the enrolment")
        folder = world.folder / "hand"
        identity.write_pem(folder)

        parent = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), world.hq_message_point)
        shared = identity.key.exchange(ec.ECDH(), parent)
        key = HKDF(SHA256(), 32, None, b"tocsin/1 message key\0by-hand\0hq").derive(shared)
        header = cbor2.dumps({1: 5, 4: name.encode()}, canonical=True)
        payload = cbor2.dumps({0: 1, 1: 1, 2: 1, 3: 12, 5: 1}, canonical=True)
        press = cbor2.dumps(cbor2.CBORTag(17, [header, {}, payload, mac(key, header, payload)]))

        receipts: list[bytes] = []
        green = threading.Event()

        def received(_client: object, _data: object, message: mqtt.MQTTMessage) -> None:
            receipts.append(bytes(message.payload))
            green.set()

        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        context.check_hostname = False  # the broker's name is not its address; the authority is checked all the same
        client = mqtt.Client(CallbackAPIVersion.VERSION2)
        client.tls_set_context(context)
        client.on_message = received
        subscribed = threading.Event()
        client.on_subscribe = lambda *_: subscribed.set()
        client.connect("127.0.0.1", world.site_port)
        client.loop_start()
        client.subscribe(f"tocsin/1/{name}/receipt", 1)
        assert subscribed.wait(10)
        client.publish(f"tocsin/1/{name}/alarm", press, 1)

        wait_until(lambda: any(r[:1] == b"\xd1" for r in receipts), 10, "a sealed receipt")
        sealed = cbor2.loads(next(r for r in receipts if r[:1] == b"\xd1"))
        their_header, _, body, tag = sealed.value
        assert hmac.compare_digest(tag, mac(key, their_header, body))
        assert cbor2.loads(their_header) == {1: 5, 4: b"hq"}
        receipt = cbor2.loads(body)
        assert {field: receipt[field] for field in (0, 1, 2, 10, 11)} == {0: 4, 1: 1, 2: 1, 10: 2, 11: name}
        client.disconnect()
        client.loop_stop()

        (incident,) = [one for one in operator.get("incidents") if one["device"] == name]
        assert incident["cause"] == "hold_up"
        assert incident["received_at_ms"] - incident["pressed_at_ms"] < 1_000
