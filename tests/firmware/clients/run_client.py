"""One MQTT client at work, ours or another, told what to do. Runs on MicroPython.

    micropython run_client.py '{"client": its name or "session", "port": …, "id": …, "identity": folder or null, "server": its name, …}'

In: {"press": [how many, ms between]}, {"gap": true}. Out: {"up": heap of the client, bytes}, {"acked": press, "us": since it},
{"failed": press}, {"gap": ms, the longest time that the button was not read, over the 10 ms between readings
and without the time that a busy machine kept from this process}.
Each line has "at", UTC nanoseconds.
"""

import asyncio
import gc
import json
import select
import sys
import time

READ_MS = 10
NS = 1_000_000  # in a millisecond


def starved_ms():
    """How long this process had something to do and the machine no time for it; 0 where Linux does not say."""
    try:
        with open("/proc/self/schedstat") as file:
            return int(file.read().split()[1]) // NS
    except OSError:
        return 0


def tell(**line):
    """One line to whoever measures."""
    line["at"] = time.time_ns()
    print(json.dumps(line))


class Work:
    """Presses that are due, and how long the button was not read."""

    def __init__(self):
        self.gap_ms = 0
        self._read_ms = None
        self._starved_ms = 0
        self._due = []  # (press, when)
        self._pressed = 0
        self._line = ""
        self._poll = select.poll()
        self._poll.register(sys.stdin, select.POLLIN)

    def read(self):
        """Reads the button, and what is to be done."""
        now, starved = time.ticks_ms(), starved_ms()
        if self._read_ms is not None:
            gap_ms = time.ticks_diff(now, self._read_ms) - (starved - self._starved_ms)
            self.gap_ms = max(self.gap_ms, gap_ms - READ_MS)
        self._read_ms, self._starved_ms = now, starved
        while self._poll.poll(0):
            octet = sys.stdin.buffer.read(1)
            if not octet:
                raise SystemExit
            self._line += octet.decode()
            if octet == b"\n":
                self._obey(json.loads(self._line))
                self._line = ""

    def _obey(self, told):
        if "gap" in told:
            tell(gap=self.gap_ms)
            self.gap_ms = 0
        if "press" in told:
            count, every_ms = told["press"]
            for n in range(count):
                self._due.append((self._pressed, time.ticks_add(time.ticks_ms(), n * every_ms)))
                self._pressed += 1

    def due(self):
        """The next press whose time has come, or None."""
        if self._due and time.ticks_diff(time.ticks_ms(), self._due[0][1]) >= 0:
            return self._due.pop(0)[0]
        return None


def acked(press, since_us):
    """A PUBACK."""
    tell(acked=press, us=time.ticks_diff(time.ticks_us(), since_us))


def topic(told):
    """Of presses."""
    return "tocsin/1/%s/alarm" % told["id"]


def payload(press):
    """Of a press, for clients that have no format of their own."""
    return b"%06d" % press + bytes(300 - 6)


def octets(path):
    """A file."""
    with open(path, "rb") as file:
        return file.read()


def tls_of(told):
    """What wrap_socket of this board wants."""
    folder = told["identity"]
    return {
        "key": octets(folder + "/key.der"),
        "cert": octets(folder + "/cert.der"),
        "cadata": octets(folder + "/ca.der"),
        "server_hostname": told["server"],
    }


# ------------------------------------------------------------------------------------ umqtt: calls that block


def run_umqtt(told, work, module):
    """The loop of a program around umqtt: it reads the button, and publishes. After an error it connects again."""
    client = module.MQTTClient(
        told["id"],
        "127.0.0.1",
        told["port"],
        keepalive=60,
        ssl=bool(told["identity"]),
        ssl_params=tls_of(told) if told["identity"] else {},
    )
    work.read()
    client.connect()
    up()
    while True:
        work.read()
        press = work.due()
        if press is not None:
            since_us = time.ticks_us()
            try:
                client.publish(topic(told), payload(press), qos=1)
                acked(press, since_us)
            except Exception as problem:
                tell(failed=press, why=repr(problem))
                try:
                    client.connect()
                except Exception:
                    pass
        time.sleep_ms(READ_MS)


# ---------------------------------------------------------------------------- clients that are tasks themselves


async def read_for_ever(work, press):
    """Reads the button; each press is a task."""
    while True:
        work.read()
        number = work.due()
        while number is not None:
            asyncio.create_task(press(number))
            number = work.due()
        await asyncio.sleep_ms(READ_MS)


async def run_peer(told, work, client):
    """mqtt_as or mqtt_async."""

    async def press(number):
        since_us = time.ticks_us()
        await client.publish(topic(told), payload(number), qos=1)
        acked(number, since_us)

    reading = asyncio.create_task(read_for_ever(work, press))
    await client.connect()
    up()
    await reading


def mqtt_async(told):
    """Derived from mqtt_as: without TLS."""
    import mqtt_async

    mqtt_async.log.info = mqtt_async.log.warning = lambda *_: None
    config = mqtt_async.MQTTConfig()
    config.client_id, config.server, config.port = told["id"], "127.0.0.1", told["port"]
    config.ssid, config.wifi_pw = "here", "here"
    config.response_time, config.keepalive = 2, 8
    client = mqtt_async.MQTTClient(config)
    address = ("127.0.0.1", told["port"])
    client._dns_lookup = lambda: setattr(client, "_addr", address)  # the unix port's look-up answers in another form
    return client


def mqtt_as(told):
    """As its users tune it for quick recovery."""
    import mqtt_as

    mqtt_as.config.update(
        {"client_id": told["id"], "server": "127.0.0.1", "port": told["port"], "ssid": "here", "wifi_pw": "here"}
    )
    mqtt_as.config.update({"keepalive": 8, "response_time": 2, "queue_len": 1})
    if told["identity"]:
        mqtt_as.config.update({"ssl": True, "ssl_params": dict(tls_of(told), do_handshake=False)})
    return mqtt_as.MQTTClient(mqtt_as.config)


# ------------------------------------------------------------------------------------------------------- ours


class Board:
    """As little of a board as a button needs."""

    SAMPLE_MS = 10
    reset_cause = 1
    version = "bench"

    def readings(self):
        return 340, 610, 340

    def battery_mv(self):
        return 4050

    def mains(self):
        return True

    def rssi(self):
        return None

    def tell(self, name, value, **more):
        if name == "alarm":
            tell(receipt=value[1], stage=more["stage"])


class Told:
    """A button's settings."""

    contacts = "both"
    alarms_per_minute = 6000
    hq = "hq"

    def __init__(self, name):
        self.id = name


async def run_ours(told, work):
    """The button's own conduct, latch, outbox, window and session; only the board is missing."""
    from firmware import mqtt
    from firmware.app import BEAT_MS, Bell
    from firmware.button import Button
    from firmware.clock import Clock
    from firmware.flash import Flash
    from firmware.outbox import Outbox
    from firmware.session import Session

    bell = Bell()
    store = Outbox(Flash("state"), lambda text: tell(complaint=text))
    button = Button(Told(told["id"]), bytes.fromhex(told["key"]), store, Board(), Clock(), bell.ring)
    came_up = asyncio.Event()

    def connected():
        button.connected()
        came_up.set()

    session = button.session = Session(
        told["id"],
        [["127.0.0.1", told["port"], told["server"]]],
        told["identity"],
        will=button.will,
        on_message=button.received,
        on_up=connected,
        on_down=button.disconnected,
        log=lambda text: tell(log=text),
    )
    of_packet, of_alarm, since_us = {}, {}, {}
    take, send_alarm = session._take, button._send_alarm

    def spy_take(packet):
        if packet[0] == mqtt.PUBACK:
            number = of_packet.pop(packet[1], None)
            if number in since_us:
                acked(number, since_us.pop(number))
        return take(packet)

    def spy_send(alarm, now_ms):
        number = of_alarm.setdefault(alarm.seq, pressing[0])
        done = send_alarm(alarm, now_ms)
        if done:
            of_packet[session._packet_id] = number
        return done

    session._take, button._send_alarm = spy_take, spy_send
    pressing = [None]

    async def press(number):
        since_us[number] = time.ticks_us()
        pressing[0] = number
        button.test()

    async def send():
        while True:
            button.send_due()
            wait_ms = button.wait_ms()
            await bell.wait(BEAT_MS if wait_ms is None else wait_ms)

    async def beat():
        while True:
            await asyncio.sleep_ms(BEAT_MS)
            button.beat()

    reading = asyncio.create_task(read_for_ever(work, press))
    for task in (session.run(), send(), beat()):
        asyncio.create_task(task)
    await came_up.wait()
    up()
    await reading


async def run_session(told):
    """Our client alone, without the button: what the others are."""
    from firmware.session import Session

    came_up = asyncio.Event()
    session = Session(
        told["id"],
        [["127.0.0.1", told["port"], told["server"]]],
        told["identity"],
        will=lambda: ("tocsin/1/%s/presence" % told["id"], b"gone"),
        on_message=lambda *_: None,
        on_up=came_up.set,
        on_down=lambda _: None,
    )
    asyncio.create_task(session.run())
    await came_up.wait()
    up()
    await asyncio.sleep(60)


class Machine:
    """In the place of the unix port's machine module, which does not say who it is."""

    @staticmethod
    def unique_id():
        return b"bench"


heap_before = 0


def up():
    """The client is connected: what it takes of the heap, and from now on what to do."""
    gc.collect()
    tell(up=gc.mem_alloc() - heap_before)


def main():
    """Runs the client for ever."""
    global heap_before
    told = json.loads(sys.argv[1])
    name = told["client"]
    sys.modules["machine"] = Machine
    work = Work()
    gc.collect()
    heap_before = gc.mem_alloc()
    if name == "session":
        asyncio.run(run_session(told))
    elif name == "tocsin":
        asyncio.run(run_ours(told, work))
    elif name == "umqtt.simple":
        import umqtt.simple

        run_umqtt(told, work, umqtt.simple)
    elif name == "umqtt.robust":
        import umqtt.robust

        run_umqtt(told, work, umqtt.robust)
    elif name == "mqtt_async":
        asyncio.run(run_peer(told, work, mqtt_async(told)))
    else:
        asyncio.run(run_peer(told, work, mqtt_as(told)))


main()
