"""Sizes, durations and rates as people read them."""

BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
"""Decimal: each is 1,000 times the one before."""

MINUTE, HOUR, DAY, YEAR = 60, 3_600, 86_400, 31_557_600
"""Seconds."""
LONGEST_IN_HOURS = 2_000 * HOUR
"""Seconds up to which a duration is given in hours; longer ones are a warning."""


def format_bytes(size: float) -> str:
    """A number of bytes with a decimal unit and one digit after the point, such as `23.6 GB`.

    Args:
        size: bytes, 0 or more.
    """
    size = round(size)
    if size < 1_000:
        return f"{size} B"
    unit = 0
    while round(size, 1) >= 1_000 and unit < len(BYTE_UNITS) - 1:
        size, unit = size / 1_000, unit + 1
    return f"{size:,.1f} {BYTE_UNITS[unit]}"


def format_duration(seconds: float) -> str:
    """A duration, such as `2 h 05 min`; from 2,000 hours on, such as `about 7.7 years on this device`.

    Args:
        seconds: 0 or more.
    """
    whole = round(seconds)
    if whole < 1:
        return f"{seconds:.2f} s"
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE:02d} s"
    if whole >= LONGEST_IN_HOURS:
        return _long_duration(whole)
    minutes = round(whole / MINUTE)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def format_rate(rate: float) -> str:
    """A rate in the shortest unit of time in which it is 1 or more, such as `12.3/s` or `30.0/h`; else by the day.

    Args:
        rate: per second, 0 or more.
    """
    units = {"s": 1, "min": MINUTE, "h": HOUR}
    name, seconds = next(((name, unit) for name, unit in units.items() if round(rate * unit, 1) >= 1), ("day", DAY))
    amount = rate * seconds
    return f"{amount:,.1f}/{name}" if amount >= 0.1 else f"{amount:.1g}/{name}"


def _long_duration(seconds: int) -> str:
    amount = f"{seconds / YEAR:,.1f} years" if seconds >= YEAR else f"{seconds / DAY:.0f} days"
    return f"about {amount} on this device"
