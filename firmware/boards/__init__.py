"""One file a board: its pins and its drivers.

A board's module has a class Board(door, version) with SAMPLE_MS, version, reset_cause, and

    readings() -> (loop A, loop B, tamper), per mille of the rail     battery_mv()   mains()   rssi()
    flag() -> what wakes the watching task: set(), clear(), wait()    sample_with(call or None): every SAMPLE_MS
    light("off" | "green" | "amber" | "red")   sound(on)   feed()     tell(name, value, **more)
    async run(): what the board itself has to do, for ever
    lan: Ethernet, a network.LAN; None on a board without
"""
