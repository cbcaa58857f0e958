"""Pre-copy with fractions and sets: the rules of the guide, one statement for each."""

from __future__ import annotations

from fractions import Fraction
from math import exp


def written(model, begin, end):
    """Distinct pages written in [begin, end) of the guest's time, in seconds."""
    kind = model[0]
    if kind == "constant":
        _, memory, rate = model
        return min(Fraction(memory), Fraction(rate) * (end - begin))
    if kind in ("in turn", "at random"):
        _, memory, pages, rate, cold = model
        if kind == "in turn":
            hot = min(Fraction(pages), Fraction(rate) * (end - begin))
        else:
            hot = Fraction(pages * (1 - exp(-float(Fraction(rate) * (end - begin)) / pages)))
        return hot + min(Fraction(memory - pages), Fraction(cold) * (end - begin))
    _, events, period = model
    seen = set()
    for time, frame in events:
        if not period:
            if begin <= time < end:
                seen.add(frame)
            continue
        # is there a whole k with begin <= time + k * period < end?
        k = max(0, -((time - begin) // period))
        if time + k * period < end:
            seen.add(frame)
    return Fraction(len(seen))


def precopy(memory, model, bandwidth, rules, round_s=Fraction(0)):
    """Give (ended, rounds, total, downtime, sent, lost), all in pages and seconds.

    `rules` has goal, rounds, progress, most_sent (or None), target (or None), slowest, switch.
    """
    left, clock, guest, sent, lost, speed = Fraction(memory), 0, Fraction(0), 0, 0, Fraction(1)
    rounds = []
    ended = "AT_ONCE"
    while len(rounds) < rules["rounds"]:
        seconds = left / bandwidth + round_s
        dirty = written(model, guest, guest + seconds * speed)
        rounds.append((left, seconds, dirty, speed))
        clock += seconds
        guest += seconds * speed
        sent += left
        lost += seconds * (1 - speed)
        if dirty / bandwidth + round_s + rules["switch"] <= rules["goal"]:
            ended, left = "GOAL", dirty
            break
        if len(rounds) == rules["rounds"]:
            ended, left = "ROUNDS", dirty
            break
        if rules["most_sent"] is not None and sent + dirty > rules["most_sent"] * memory:
            ended, left = "DATA", dirty
            break
        if dirty >= rules["progress"] * left:
            wanted = speed
            if rules["target"] is not None and dirty > 0:
                wanted = speed * rules["target"] * bandwidth / (dirty / seconds)
                wanted = max(rules["slowest"], wanted)
            if wanted >= speed * (1 - Fraction(1, 10**9)):
                ended, left = "STALLED", dirty
                break
            speed = wanted
        left = dirty
    down = left / bandwidth + round_s + rules["switch"]
    return ended, rounds, clock + down, down, sent + left, lost
