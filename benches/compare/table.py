"""The comparison as a Markdown table: rows, targets, and what meets them.

Not for: measuring; it only reads medians.
Called by: rounds.py. Run by itself it checks its own arithmetic: python3 table.py
"""

STREAM = "CPU ms per GiB"
UNARY = "CPU µs per call"
# Title, scenario, figure, most that is allowed as a share of Envoy's and of nghttpx's (None: reported only), what is aimed at.
ROWS = (
    (f"unary, 1x10, {UNARY}", "u_1x10", "cpu_us_per_req", 0.50, 1.0, None),
    (f"unary, 1x100, {UNARY}", "u_1x100", "cpu_us_per_req", 0.50, 1.0, None),
    (f"unary, 10x10, {UNARY}", "u_10x10", "cpu_us_per_req", 0.55, 1.05, (0.45, 0.95)),
    (f"unary, 10x100, {UNARY}", "u_10x100", "cpu_us_per_req", None, None, None),
    (f"unary, one at a time, {UNARY}", "u_1x1", "cpu_us_per_req", 0.85, 1.15, None),
    (f"50 KB FindMissingBlobs, 10x10, {UNARY}", "fmb", "cpu_us_per_req", 0.55, 0.9, None),
    (f"read, 16 KiB frames, 1 stream, {STREAM}", "read1", "cpu_ms_per_gib", 0.90, 1.0, None),
    (f"read, 16 KiB frames, 8 streams, {STREAM}", "read8", "cpu_ms_per_gib", 0.90, 1.0, None),
    (f"read, 16 KiB frames, 10 connections, {STREAM}", "read10c", "cpu_ms_per_gib", 0.90, 1.0, None),
    (f"write, 16 KiB frames, 1 stream, {STREAM}", "write1", "cpu_ms_per_gib", 0.90, 1.0, None),
    (f"write, 16 KiB frames, 8 streams, {STREAM}", "write8", "cpu_ms_per_gib", 0.90, 1.0, None),
    (f"read, 1 MiB messages, 16 KiB frames, {STREAM}", "read1m", "cpu_ms_per_gib", 0.90, 1.0, None),
    (f"write, 1 MiB messages, 16 KiB frames, {STREAM}", "write1m", "cpu_ms_per_gib", 0.90, 1.0, None),
    (f"read, peers that take larger frames, {STREAM}", "frames:read1", "cpu_ms_per_gib", 0.70, 0.8, None),
    (f"write, peers that take larger frames, {STREAM}", "frames:write1", "cpu_ms_per_gib", 0.70, 0.8, None),
    ("added p50 latency, one call at a time, µs", "lat1", "p50_us", 0.75, 1.1, None),
    *(
        (f"{sides}: {what}", f"{variant}:{scenario}", key, None, None, None)
        for variant, sides in (("tls", "TLS on both sides"), ("tls-client", "TLS to the client"), ("tls-upstream", "TLS to the upstream"))
        for what, scenario, key in (
            (f"unary, 10x10, {UNARY}", "u_10x10", "cpu_us_per_req"),
            (f"read, {STREAM}", "read1", "cpu_ms_per_gib"),
            (f"write, {STREAM}", "write1", "cpu_ms_per_gib"),
        )
    ),
    ("idle resident memory, MiB", "hold", "idle_rss_mib", 0.2, 1.0, None),
    ("idle resident memory that no file backs, MiB", "hold", "idle_anon_mib", None, None, None),
    ("1,000 stalled readers: resident memory, MiB", "hold", "rss_mib", 0.15, None, None),
    ("1,000 stalled readers: that no file backs, MiB", "hold", "anon_mib", None, None, None),
    ("1,000 stalled writers: resident memory, MiB", "hold-write", "rss_mib", None, None, None),
    ("1,000 stalled readers, one upstream connection: resident memory, MiB", "hold-cap1", "rss_mib", None, None, None),
)
BYSTANDERS = (
    ("1,000 stalled readers: bystander", "hold"),
    ("upstream reads nothing of 1,000 writers: bystander", "hold-write"),
    ("1,000 stalled readers, one upstream connection: bystander", "hold-cap1"),
)
HARMED_MS = 1000  # a shared machine delays by tens of milliseconds; a blocked call never answers


def figure(medians, scenario, key, name):
    """The figure that is compared: latency is what was added to that of a direct connection."""
    seen = medians.get(scenario, {})
    value = seen.get(name, {}).get(key)
    if value is None or key != "p50_us":
        return value
    direct = seen.get("direct", {}).get(key)
    return None if direct is None else value - direct


def ratio(medians, scenario, key, name, base):
    over, under = figure(medians, scenario, key, name), figure(medians, scenario, key, base)
    return over / under if over is not None and under and under > 0 else None


def unharmed(told):
    """Whether the bystander's unary call and its read, of every round, were answered in time."""
    return bool(told) and all(isinstance(ms, float) and ms <= HARMED_MS for ms in told["unary"] + told["read"])


def bystander(told):
    if not told:
        return "-"
    worst = lambda seen: next((s for s in seen if isinstance(s, str)), None) or f"{max(seen):.1f} ms"
    return f"unary {worst(told['unary'])}, 4 MiB read {worst(told['read'])}"


def number(value):
    return "-" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def share(value):
    return "-" if value is None else f"{value:.2f}"


def verdict(value, most, aim):
    if most is None:
        return "reported"
    text = f"<= {most:.2f}" + (f" (aim {aim:.2f})" if aim else "")
    return f"{text} {'-' if value is None else '✓' if value <= most else '✗'}"


def missed(medians, bystanders, under):
    """Targets that were measured and missed, as texts."""
    out = []
    for title, scenario, key, envoy, nghttpx, _ in ROWS:
        for peer, most in (("envoy", envoy), ("nghttpx", nghttpx)):
            seen = ratio(medians, scenario, key, under, peer)
            if most is not None and seen is not None and seen > most:
                out.append(f"{title}: {seen:.2f} of {peer}'s, at most {most:.2f}")
    for title, scenario in BYSTANDERS:
        if (told := bystanders.get(scenario, {}).get(under)) and not unharmed(told):
            out.append(f"{title}: {bystander(told)}, each within {HARMED_MS} ms is asked for")
    return out


def markdown(medians, bystanders, under="assetgate"):
    """The table; rows that were not measured are left out."""
    lines = [
        f"| | {under.capitalize()} | vs Envoy | target | vs nghttpx | target | TCP relay vs Envoy |",
        "|---|---|---|---|---|---|---|",
    ]
    for title, scenario, key, envoy, nghttpx, aim in ROWS:
        mine = figure(medians, scenario, key, under)
        if mine is None:
            continue
        to_envoy, to_nghttpx = (ratio(medians, scenario, key, under, peer) for peer in ("envoy", "nghttpx"))
        relay = ratio(medians, scenario, key, "tcp", "envoy")
        cells = (number(mine), share(to_envoy), verdict(to_envoy, envoy, aim and aim[0]))
        cells += (share(to_nghttpx), verdict(to_nghttpx, nghttpx, aim and aim[1]), share(relay))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    for title, scenario in BYSTANDERS:
        told = bystanders.get(scenario, {})
        if under in told:
            mark = "✓" if unharmed(told[under]) else "✗"
            mine, *others = (bystander(told.get(name)) for name in (under, "envoy", "nghttpx", "tcp"))
            cells = (mine, others[0], f"unharmed {mark}", others[1], f"unharmed {mark}", others[2])
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def scaling(medians):
    """Threads and what they serve, for the scenario of its own."""
    seen = medians.get("scale")
    if not seen:
        return ""
    lines = [
        "Two cores, nothing pinned, 10x10; the load and the stub share both cores with the proxy, so twice the calls per second is out of reach:",
        "",
        "| | CPU µs per call | calls per second |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {number(got['cpu_us_per_req'])} | {got['rps']:.0f} |" for name, got in seen.items()]
    return "\n".join(lines)


def check():
    medians = {
        "u_10x10": {"assetgate": {"cpu_us_per_req": 5.0}, "envoy": {"cpu_us_per_req": 10.0}, "nghttpx": {"cpu_us_per_req": 4.0}},
        "lat1": {"assetgate": {"p50_us": 100.0}, "envoy": {"p50_us": 140.0}, "direct": {"p50_us": 40.0}},
    }
    assert ratio(medians, "u_10x10", "cpu_us_per_req", "assetgate", "envoy") == 0.5
    assert ratio(medians, "lat1", "p50_us", "assetgate", "envoy") == 0.6, "added, not total"
    assert ratio(medians, "fmb", "cpu_us_per_req", "assetgate", "envoy") is None
    assert len(missed(medians, {}, "assetgate")) == 1, "5.0 is 1.25 of nghttpx's 4.0"
    harmed = {"hold": {"assetgate": {"unary": ["BLOCKED"], "read": [1.0]}}}
    assert len(missed(medians, harmed, "assetgate")) == 2, missed(medians, harmed, "assetgate")
    told = {"hold": {"assetgate": {"unary": [0.6], "read": [4.0]}, "envoy": {"unary": ["BLOCKED"], "read": [9.0]}}}
    text = markdown(medians, told)
    assert "| 5.0 | 0.50 | <= 0.55 (aim 0.45) ✓ | 1.25 | <= 1.05 (aim 0.95) ✗ | - |" in text, text
    assert "unary BLOCKED, 4 MiB read 9.0 ms | unharmed ✓" in text, text
    assert not unharmed({"unary": [0.6, "BLOCKED"], "read": [4.0, 4.0]}) and not unharmed({"unary": [1.0], "read": [1500.0]})


if __name__ == "__main__":
    check()
