"""Schedules by the sun: dawn, sunrise, noon, sunset and dusk at a place. Needs the library ephem (`opsq[solar]`)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

from opsq.exceptions import ImproperlyConfigured
from opsq.schedules.base import BaseSchedule


class _Event(NamedTuple):
    """How ephem is asked: the horizon (degrees), its method, and whether the sun's centre counts or its edge."""

    horizon: str
    method: str
    center: bool


EVENTS = {
    "dawn_astronomical": _Event("-18", "next_rising", True),
    "dawn_nautical": _Event("-12", "next_rising", True),
    "dawn_civil": _Event("-6", "next_rising", True),
    "sunrise": _Event("-0:34", "next_rising", False),
    "solar_noon": _Event("0", "next_transit", False),
    "sunset": _Event("-0:34", "next_setting", False),
    "dusk_civil": _Event("-6", "next_setting", True),
    "dusk_nautical": _Event("-12", "next_setting", True),
    "dusk_astronomical": _Event("-18", "next_setting", True),
}
#: Near the poles an event may not happen for months; the search ends after so many days.
MAX_SEARCH_DAYS = 366


class solar(BaseSchedule):
    """Whenever the sun does `event` (a key of EVENTS) at latitude `lat` and longitude `lon` (degrees)."""

    def __init__(self, event: str, lat: float, lon: float, **kwargs: Any) -> None:
        try:
            import ephem
        except ImportError:
            raise ImproperlyConfigured(
                "cannot use solar schedules", why="the library ephem is not installed", hint="pip install 'opsq[solar]'"
            ) from None
        if event not in EVENTS:
            raise ValueError(f'Argument event "{event}" is invalid, must be one of {", ".join(sorted(EVENTS))}.')
        if not -90 <= lat <= 90:
            raise ValueError(f"Argument latitude {lat} is invalid, must be between -90 and 90.")
        if not -180 <= lon <= 180:
            raise ValueError(f"Argument longitude {lon} is invalid, must be between -180 and 180.")
        self._ephem: Any = ephem
        self.event, self.lat, self.lon = event, lat, lon
        super().__init__(**kwargs)

    def next_after(self, moment: datetime) -> datetime:
        """The next time of the event; near the poles the end of the search, when there is none for a year."""
        ephem, how = self._ephem, EVENTS[self.event]
        place = ephem.Observer()
        place.lat, place.lon, place.elev, place.pressure = str(self.lat), str(self.lon), 0, 0
        place.horizon = how.horizon
        sun, options = ephem.Sun(), {"use_center": True} if how.center else {}
        start = ephem.Date(moment.astimezone(UTC).replace(tzinfo=None))
        for _day in range(MAX_SEARCH_DAYS):
            try:
                found = getattr(place, how.method)(sun, start=start, **options)
                break
            except ephem.CircumpolarError:
                found = start = place.next_antitransit(sun, start=start)
        found_at: datetime = found.datetime()
        return found_at.replace(tzinfo=UTC)

    def __repr__(self) -> str:
        return f"<solar: {self.event} at latitude {self.lat}, longitude: {self.lon}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, solar):
            return NotImplemented
        return (self.event, self.lat, self.lon) == (other.event, other.lat, other.lon) and super().__eq__(other)

    __hash__ = object.__hash__

    def __reduce__(self) -> Any:
        return type(self), (self.event, self.lat, self.lon)
