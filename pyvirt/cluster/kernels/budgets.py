"""Migrations that wait for budgets and share links, event by event, in whole nanoseconds.

Data come in grains, of a byte or more, and are counted in millionths of them: a rate of r grains a
millisecond moves r of these each ns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["schedule"]

NEVER = np.int64(2**62)
WHOLE = 1_000_000
# A round stalls that leaves more than 9/10; SDPS aims at 1/2 of the rate, and keeps 1/100 of the
# guest's speed: the defaults of `Precopy`.
STALL_PART, SDPS_PART, SLOWEST_PART = 10, 2, 100
# where a migration is: waiting, guest running, guest stopped for the rest, switching over, over
WAITING, COPYING, STOPPED, SWITCHING, OVER = 0, 1, 2, 3, 4


@njit(cache=True, nogil=True)
def _sink(key: Any, item: Any, size: int, at: int) -> None:
    """Move an entry of a heap down to where it belongs."""
    while True:
        child = 2 * at + 1
        if child >= size:
            return
        if child + 1 < size and key[child + 1] < key[child]:
            child += 1
        if key[at] <= key[child]:
            return
        key[at], key[child] = key[child], key[at]
        item[at], item[child] = item[child], item[at]
        at = child


@njit(cache=True, nogil=True)
def _share(active: Any, count: int, state: Any, links: Any, capacity: Any, rate: Any) -> None:
    """Max-min fair rates, rounded down, of the migrations that move data; at least 1.

    The links with the least share for each user give it to theirs, who free something of their
    other links; and so on. A link's share only grows, so a heap with old shares finds the least.
    """
    users = np.zeros(capacity.size, np.int64)
    left = capacity.copy()
    for k in range(count):
        i = active[k]
        if state[i] <= STOPPED:
            rate[i] = 0
            for n in range(links.shape[1]):
                link = links[i, n]
                if link >= 0:
                    users[link] += 1
    start = np.zeros(capacity.size + 1, np.int64)
    key = np.empty(capacity.size, np.int64)
    item = np.empty(capacity.size, np.int64)
    size = 0
    for link in range(capacity.size):
        start[link + 1] = start[link] + users[link]
        if users[link] > 0:
            key[size] = left[link] // users[link]
            item[size] = link
            size += 1
    of_link = np.empty(start[-1], np.int64)
    fill = start[:-1].copy()
    for k in range(count):
        i = active[k]
        if state[i] <= STOPPED:
            for n in range(links.shape[1]):
                link = links[i, n]
                if link >= 0:
                    of_link[fill[link]] = i
                    fill[link] += 1
    for at in range(size // 2 - 1, -1, -1):
        _sink(key, item, size, at)
    least = np.int64(0)
    tight = np.empty(size, np.int64)
    while size > 0:
        least = NEVER
        found = 0
        while size > 0 and key[0] <= least:
            link = item[0]
            share = left[link] // users[link] if users[link] > 0 else NEVER
            if share < NEVER and share > key[0]:
                key[0] = share
            else:
                if share < NEVER:
                    least = share
                    tight[found] = link
                    found += 1
                size -= 1
                key[0], item[0] = key[size], item[size]
            _sink(key, item, size, 0)
        for k in range(found):
            link = tight[k]
            for at in range(start[link], start[link + 1]):
                i = of_link[at]
                if rate[i] == 0:
                    rate[i] = max(least, 1)
                    for n in range(links.shape[1]):
                        other = links[i, n]
                        if other >= 0:
                            users[other] -= 1
                            left[other] -= least


@njit(cache=True, nogil=True)
def schedule(
    submit: Any,
    needs: Any,
    costs: Any,
    links: Any,
    size: Any,
    dirty: Any,
    working_set: Any,
    goal: Any,
    most_rounds: Any,
    switch: Any,
    sdps: Any,
    limit: Any,
    hosts: int,
    capacity: Any,
    overtake: bool,
    out: Any,
    peak: Any,
) -> int:
    """Fill `out`: start, end, downtime, data sent, rounds and guest time lost of each.

    Gives the number of events.

    The migrations are given by time of submission. `needs` are up to five budgets of each, the
    hosts' first, -1 for none, and `costs` what it takes of them; `limit` is each budget. `links`
    are up to five links of each and `capacity` their grains a millisecond; `size` and
    `working_set` are in millionths, `dirty` in grains a millisecond. `peak` becomes the most
    that was in use of each budget.
    """
    count = submit.size
    free = limit.copy()
    state = np.zeros(count, np.int64)
    rate = np.ones(count, np.int64)
    left = np.zeros(count, np.int64)  # of this round, at `since`
    since = np.zeros(count, np.int64)  # when its rate or its round changed
    volume = np.zeros(count, np.int64)  # of this round, at its begin
    begun = np.zeros(count, np.int64)  # the round
    part = np.zeros(count, np.int64)  # what was sent beyond whole grains
    writes = dirty.copy()  # bytes a millisecond, as far as the guest is slowed down
    due = np.full(count, NEVER)  # by place in `active`, where all are side by side
    follower = np.empty(count + 1, np.int64)  # the queue; entry `count` is its head
    for i in range(count):
        follower[i] = i + 1 if i + 1 < count else -1
    follower[count] = 0 if count > 0 else -1
    # those that lack room where nothing is left, and nowhere else
    small = np.ones(count, np.bool_)
    for i in range(count):
        for n in range(needs.shape[1]):
            if needs[i, n] >= 0 and costs[i, n] > 1:
                small[i] = False
    mark = np.zeros(limit.size, np.int64)
    active = np.empty(count, np.int64)
    running = 0
    now = np.int64(0)
    events = 0
    coming = 0  # the first that is not submitted yet
    while True:
        # the next time at which something happens
        next_ = NEVER
        for k in range(running):
            next_ = min(next_, due[k])
        if coming < count:
            next_ = min(next_, max(submit[coming], now))
        if next_ == NEVER:
            break
        events += 1
        released = False
        changed = False
        now = next_
        while coming < count and submit[coming] <= now:
            coming += 1
            released = True
        ended = False
        for k in range(running):
            if due[k] > now:
                continue
            i = active[k]
            if state[i] == COPYING:
                sent = volume[i] + part[i]
                out[i, 3], part[i] = out[i, 3] + sent // WHOLE, sent % WHOLE
                out[i, 4] += 1
                seconds = now - begun[i]
                again = np.int64(0)
                if writes[i] > 0:
                    again = working_set[i]
                    if seconds < again // writes[i] + 1:
                        again = min(again, writes[i] * seconds)
                    held = dirty[i] - writes[i]
                    out[i, 5] += seconds // dirty[i] * held + seconds % dirty[i] * held // dirty[i]
                last = again <= rate[i] * goal[i] or out[i, 4] >= most_rounds[i]
                if not last and again >= volume[i] - volume[i] // STALL_PART:
                    # a stalled round: what is written is brought down to half of what is sent
                    slower = writes[i]
                    if sdps[i] and seconds > 0 and again // seconds > 0:
                        slower = slower * (rate[i] // SDPS_PART) // (again // seconds)
                        slower = max(slower, dirty[i] // SLOWEST_PART)
                    last = slower >= writes[i]
                    writes[i] = min(slower, writes[i])
                state[i] = STOPPED if last else COPYING
                if state[i] == STOPPED:
                    out[i, 2] = now
                volume[i] = left[i] = again
                begun[i] = since[i] = now
                due[k] = now + (again + rate[i] - 1) // rate[i]
            elif state[i] == STOPPED:
                sent = volume[i] + part[i]
                out[i, 3], part[i] = out[i, 3] + sent // WHOLE, sent % WHOLE
                volume[i] = 0
                left[i] = 0
            if state[i] == STOPPED and left[i] == 0:
                state[i] = SWITCHING
                due[k] = now + switch[i]
                changed = True
            if state[i] == SWITCHING and due[k] <= now:
                state[i] = OVER
                out[i, 1] = now
                out[i, 2] = now - out[i, 2]
                for n in range(needs.shape[1]):
                    if needs[i, n] >= 0:
                        free[needs[i, n]] += costs[i, n]
                ended = True
        if ended:
            released = True
            keep = 0
            for k in range(running):
                if state[active[k]] != OVER:
                    active[keep], due[keep] = active[k], due[k]
                    keep += 1
            running = keep
        if released:
            # a budget is marked if whoever comes later in the queue cannot have of it
            shut = 0
            for need in range(limit.size):
                if free[need] <= 0:
                    mark[need] = events
                    if need < hosts:
                        shut += 1
            before = np.int64(count)
            i = follower[count]
            while i >= 0 and submit[i] <= now and shut < hosts:
                can = True
                for n in range(needs.shape[1]):
                    need = needs[i, n]
                    if need >= 0 and (mark[need] == events or costs[i, n] > free[need]):
                        can = False
                        if small[i]:
                            break
                if not can and small[i]:
                    before, i = i, follower[i]
                    continue
                if can:
                    follower[before] = follower[i]
                    active[running] = i
                    running += 1
                    state[i] = COPYING
                    out[i, 0] = now
                    volume[i] = left[i] = size[i]
                    begun[i] = since[i] = now
                    changed = True
                else:
                    before = i
                for n in range(needs.shape[1]):
                    need = needs[i, n]
                    if need < 0:
                        continue
                    if can:
                        free[need] -= costs[i, n]
                        peak[need] = max(peak[need], limit[need] - free[need])
                    waits = not can and not overtake and costs[i, n] > free[need]
                    if mark[need] != events and (waits or free[need] <= 0):
                        mark[need] = events
                        if need < hosts:
                            shut += 1
                i = follower[i]
        if changed:
            for k in range(running):
                i = active[k]
                if state[i] <= STOPPED:
                    left[i] -= rate[i] * (now - since[i])
                    since[i] = now
            _share(active, running, state, links, capacity, rate)
            for k in range(running):
                i = active[k]
                if state[i] <= STOPPED:
                    due[k] = now + max(left[i] + rate[i] - 1, 0) // rate[i]
    return events
