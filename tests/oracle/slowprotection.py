"""The privilege rules of x86 as a table: what must hold, in which order, else which fault.

Written from Intel's manual (SDM vol. 3, chapter 5; vol. 2 for the order), for the operations of
`pyvirt.x86.protection.check`, on plain dictionaries. Slow, and shares nothing with the package.
"""

from collections.abc import Callable
from typing import NamedTuple

LEGACY = 0


class Answer(NamedTuple):
    vector: int
    error: int
    cpl: int
    visible: bool
    stack_switched: bool
    task_switched: bool


def fields(raw: int) -> dict[str, int]:
    """Cut eight bytes, as the manual's figures show them, into what the rules ask for."""
    data = raw.to_bytes(8, "little")
    access, flags = data[5], data[6] >> 4
    segment = bool(access & 0x10)
    code = segment and bool(access & 0x08)
    return {
        "present": access >> 7,
        "dpl": access >> 5 & 3,
        "segment": segment,
        "code": code,
        "data": segment and not code,
        "conforming": code and bool(access & 4),
        "readable": segment and (not code or bool(access & 2)),
        "writable": segment and not code and bool(access & 2),
        "system": None if segment else access & 15,
        "long": flags >> 1 & 1,
        "big": flags >> 2 & 1,
        "names": int.from_bytes(data[2:4], "little"),
    }


class FaultError(Exception):
    pass


def need(condition: object, vector: str, error: int) -> None:
    if not condition:
        raise FaultError({"TS": 10, "NP": 11, "SS": 12, "GP": 13}[vector], error)


def named(selector: int, ext: int = 0) -> int:
    return selector - selector % 4 + ext


def answer(
    operation: str,
    cpl: int,
    selector: int,
    descriptor: int,
    target: int = 0,
    stack_selector: int = 0,
    stack: int = 0,
    mode: int = LEGACY,
) -> Answer:
    """Give what the manual says of one case."""
    state = {"cpl": cpl, "visible": False, "stack": False, "task": False}
    rules: dict[str, Callable[[], None]] = {}
    d, t, s = fields(descriptor), fields(target), fields(stack)
    rpl = selector % 4
    null = selector < 4
    ia32e = mode != LEGACY

    def load() -> None:
        if null:
            return
        need(d["readable"], "GP", named(selector))
        need(d["conforming"] or (cpl <= d["dpl"] and rpl <= d["dpl"]), "GP", named(selector))
        need(d["present"], "NP", named(selector))

    def stack_for(level: int, which: int, about: dict[str, int], vector: str, ext: int) -> None:
        need(which % 4 == level, vector, named(which, ext))
        need(about["writable"], vector, named(which, ext))
        need(about["dpl"] == level, vector, named(which, ext))
        need(about["present"], "SS", named(which, ext))

    def load_ss() -> None:
        if null:
            need(mode == 2 and cpl in (0, 1, 2) and rpl == cpl, "GP", 0)
        else:
            stack_for(cpl, selector, d, "GP", 0)

    def inward(code: dict[str, int], which: int, ext: int) -> None:
        """Enter code through a gate by CALL or an event."""
        need(which >= 4, "GP", ext)
        need(code["code"], "GP", named(which, ext))
        need(code["dpl"] <= cpl, "GP", named(which, ext))
        need(not ia32e or (code["long"] and not code["big"]), "GP", named(which, ext))
        need(code["present"], "NP", named(which, ext))
        if code["conforming"] or code["dpl"] == cpl:
            return
        if not ia32e:
            need(stack_selector >= 4, "TS", ext)
            stack_for(code["dpl"], stack_selector, s, "TS", ext)
        state["cpl"], state["stack"] = code["dpl"], True

    def task(which: int, about: dict[str, int], ext: int) -> None:
        need(not which & 4, "GP", named(which, ext))
        need(about["system"] in (1, 9), "GP", named(which, ext))
        need(about["present"], "NP", named(which, ext))
        state["task"] = True

    def far() -> None:
        need(not null, "GP", 0)
        me = named(selector)
        if d["code"]:
            need(not (ia32e and d["long"] and d["big"]), "GP", me)
            if d["conforming"]:
                need(d["dpl"] <= cpl, "GP", me)
            else:
                need(d["dpl"] == cpl and rpl <= cpl, "GP", me)
            need(d["present"], "NP", me)
            return
        call_gates = (12,) if ia32e else (4, 12)
        tasks = () if ia32e else (1, 5, 9)
        need(d["system"] in (*call_gates, *tasks), "GP", me)
        need(cpl <= d["dpl"] and rpl <= d["dpl"], "GP", me)
        if d["system"] in (1, 9):
            task(selector, d, 0)
            return
        need(d["present"], "NP", me)
        if d["system"] == 5:
            task(d["names"], t, 0)
            return
        if operation == "jmp":
            need(d["names"] >= 4, "GP", 0)
            to = named(d["names"])
            need(t["code"], "GP", to)
            need(not ia32e or (t["long"] and not t["big"]), "GP", to)
            need(t["dpl"] <= cpl if t["conforming"] else t["dpl"] == cpl, "GP", to)
            need(t["present"], "NP", to)
        else:
            inward(t, d["names"], 0)

    def back() -> None:
        need(not null, "GP", 0)
        me = named(selector)
        need(d["code"], "GP", me)
        need(rpl >= cpl, "GP", me)
        need(d["dpl"] <= rpl if d["conforming"] else d["dpl"] == rpl, "GP", me)
        need(not (ia32e and d["long"] and d["big"]), "GP", me)
        need(d["present"], "NP", me)
        if rpl > cpl or (operation == "iret" and mode == 2):
            state["stack"] = True
            if stack_selector < 4:
                # a null SS is for 64-bit code of the privileges 0 to 2, with the same RPL
                need(ia32e and d["long"] and rpl != 3 and stack_selector == rpl, "GP", 0)
            else:
                stack_for(rpl, stack_selector, s, "GP", 0)
        state["cpl"] = rpl

    def event() -> None:
        ext = 1 if operation == "event" else 0
        me = 8 * (selector & 255) + 2 + ext
        need(d["system"] in ((14, 15) if ia32e else (5, 6, 7, 14, 15)), "GP", me)
        need(operation == "event" or cpl <= d["dpl"], "GP", me)
        need(d["present"], "NP", me)
        if d["system"] == 5:
            task(d["names"], t, ext)
        else:
            inward(t, d["names"], ext)

    def seen() -> None:
        if null or not (d["conforming"] or (cpl <= d["dpl"] and rpl <= d["dpl"])):
            return
        kinds = {
            "lar": (2, 9, 11, 12) if ia32e else (1, 2, 3, 4, 5, 9, 11, 12),
            "lsl": (2, 9, 11) if ia32e else (1, 2, 3, 9, 11),
        }
        if operation in kinds:
            state["visible"] = bool(d["segment"]) or d["system"] in kinds[operation]
        elif operation == "verr":
            state["visible"] = bool(d["readable"])
        else:
            state["visible"] = bool(d["writable"])

    rules = {"load": load, "load_ss": load_ss, "jmp": far, "call": far, "retf": back, "iret": back}
    rules |= {"int": event, "event": event}
    rules |= dict.fromkeys(("lar", "lsl", "verr", "verw"), seen)
    try:
        rules[operation]()
    except FaultError as fault:
        return Answer(*fault.args, cpl, False, False, False)
    return Answer(-1, 0, state["cpl"], state["visible"], state["stack"], state["task"])
