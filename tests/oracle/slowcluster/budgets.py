"""Migrations under budgets and shared links: dictionaries, sets, whole numbers of any size."""

from __future__ import annotations

from collections import Counter

PART = 10**6  # of a byte: a rate of 1 byte/ms moves one each ns


def fair(users, capacity):
    """Raise all rates together; who meets a full link stays there. Rounded down at each link."""
    rates = {}
    left = dict(capacity)
    while len(rates) < len(users):
        open_ = {name: links for name, links in users.items() if name not in rates}
        load = Counter(link for links in open_.values() for link in links)
        share = {link: left[link] // n for link, n in load.items()}
        least = min(share.values())
        for name, links in open_.items():
            if any(share[link] == least for link in links):
                rates[name] = least
                for link in links:
                    left[link] -= least
    return {name: max(rate, 1) for name, rate in rates.items()}


def run(jobs, limits, capacity, overtake):
    """Give {name: (start, end, downtime, sent, rounds, guest time lost)}.

    `jobs` is a list of dictionaries, in any order: name, submit, costs {budget: cost}, links,
    size, dirty (bytes/ms), most (bytes that can be dirty), goal, rounds, switch, sdps.
    """
    queue = sorted(jobs, key=lambda job: (job["submit"], job["name"]))
    used = Counter()
    live = {}
    done = {}
    now = 0
    while queue or live:
        times = [job["due"] for job in live.values()]
        times += [job["submit"] for job in queue if job["submit"] > now][:1]
        if not live and any(job["submit"] <= now for job in queue):
            times.append(now)
        after = min(times)
        for job in live.values():
            if job["phase"] != "switch":
                job["left"] = max(0, job["left"] - job["rate"] * (after - job["since"]))
                job["since"] = after
        now = after
        for name, job in sorted(live.items()):
            if job["due"] > now:
                continue
            if job["phase"] == "copy":
                job["sent"] += job["volume"]
                job["made"] += 1
                took = now - job["begun"]
                again = min(job["most"] * PART, job["writes"] * took)
                if job["dirty"]:
                    job["lost"] += took * (job["dirty"] - job["writes"]) // job["dirty"]
                over = again <= job["rate"] * job["goal"] or job["made"] >= job["rounds"]
                if not over and again >= job["volume"] - job["volume"] // 10:
                    over = True
                    if job["sdps"] and took and again // took:
                        wanted = job["writes"] * (job["rate"] // 2) // (again // took)
                        wanted = max(wanted, job["dirty"] // 100)
                        if wanted < job["writes"]:
                            job["writes"], over = wanted, False
                if over:
                    job["phase"], job["stopped"] = "rest", now
                job["volume"] = job["left"] = again
                job["begun"] = now
                if job["phase"] == "rest" and again == 0:
                    job["phase"], job["due"] = "switch", now + job["switch"]
            elif job["phase"] == "rest":
                job["sent"] += job["volume"]
                job["phase"], job["due"] = "switch", now + job["switch"]
            if job["phase"] == "switch" and job["due"] <= now:
                used.subtract(job["costs"])
                done[name] = (
                    job["start"], now, now - job["stopped"], job["sent"] // PART, job["made"],
                    job["lost"],
                )  # fmt: skip
                del live[name]
        closed = set()
        waiting = []
        for job in queue:
            short = {b for b, c in job["costs"].items() if used[b] + c > limits[b]}
            if job["submit"] > now or short or closed & set(job["costs"]):
                waiting.append(job)
                if job["submit"] <= now and not overtake:
                    closed |= short
                continue
            used.update(job["costs"])
            live[job["name"]] = {
                **job, "start": now, "phase": "copy", "volume": job["size"] * PART,
                "left": job["size"] * PART, "begun": now, "since": now, "sent": 0, "made": 0,
                "writes": job["dirty"], "lost": 0,
            }  # fmt: skip
        queue = waiting
        moving = {name: job["links"] for name, job in live.items() if job["phase"] != "switch"}
        for name, rate in fair(moving, capacity).items():
            job = live[name]
            job["rate"] = rate
            job["due"] = now - (-job["left"] // rate)
    return done
