"""`near`: places within a distance. https://hl7.org/fhir/R4/location.html#positional

The index of ranges finds the places in a belt of latitudes around the point, and in a box within it; how far each
is from the point is reckoned on a sphere, where the longest error is half a percent.
"""

from decimal import Decimal
from fractions import Fraction
from math import asin, cos, degrees, inf, pi, radians, sin
from typing import Any

from fhir_server.index import ucum
from fhir_server.search.terms import RANGES, Asked, Condition, any_of
from fhir_server.search.values import bad_value, decimal_value, split, unescape

RADIUS_M = 6_371_008.8  # of the earth, on average
DEFAULT_KM = Decimal(10)
_EXPECTED = "latitude|longitude, latitude|longitude|distance or latitude|longitude|distance|unit of length"
_NAMED = {"": "km", "mi": "[mi_i]"}


def near(asked: Asked) -> Condition:
    """`latitude|longitude|distance|units`: degrees, and km unless another unit of length is said."""
    return any_of([_within(asked, value) for value in asked.values], RANGES)


def _within(asked: Asked, value: str) -> dict:
    parts = [unescape(part) for part in split(value, "|")]
    if not 2 <= len(parts) <= 4:
        raise bad_value(asked.name, _EXPECTED)
    numbers = [decimal_value(part) for part in parts[:3] if part]
    unit = parts[3] if len(parts) == 4 else ""
    scale = ucum.scale(_NAMED.get(unit, unit))
    if len(numbers) < 2 or None in numbers or scale is None or scale.dimension != "m1":
        raise bad_value(asked.name, _EXPECTED)
    latitude, longitude, distance = (*(one for one in numbers if one is not None), DEFAULT_KM)[:3]
    if abs(latitude) > 90 or abs(longitude) > 180 or distance < 0:
        raise bad_value(asked.name, "a latitude up to 90, a longitude up to 180 and a distance that is not negative")
    if len(numbers) == 2:
        scale = ucum.scale("km") or scale
    return _circle(asked.parameter.code, float(latitude), float(longitude), _meters(scale, distance))


def _meters(scale: ucum.Scale, distance: Decimal) -> float:
    return float(min(Fraction(distance) * scale.factor, Fraction(100_000_000)))


def _circle(code: str, latitude: float, longitude: float, meters: float) -> dict:
    """Places in the box around the circle, and of these those in the circle."""
    angle = meters / RADIUS_M + 1e-9  # the box a little wider, so that rounding leaves nothing out
    low, high = latitude - degrees(angle), latitude + degrees(angle)
    boxes: list[dict] = [{}]
    if angle < pi / 2 and low > -90 and high < 90:
        width = degrees(asin(min(1.0, sin(angle) / cos(radians(latitude)))))
        west, east = longitude - width, longitude + width
        boxes = [{"hi": {"$gte": west, "$lte": east}}]
        if west < -180:  # on the other side of the date line too
            boxes.append({"hi": {"$gte": west + 360}})
        if east > 180:
            boxes.append({"hi": {"$lte": east - 360}})
    belt = {"p": code, "lo": {"$gte": low, "$lte": high}}
    in_box = [{"r": {"$elemMatch": belt | box}} for box in boxes]
    place = {"$first": {"$filter": {"input": "$r", "cond": {"$eq": ["$$this.p", code]}}}}
    there = {"$expr": {"$let": {"vars": {"place": place}, "in": _is_within(latitude, longitude, meters)}}}
    return {"$and": [in_box[0] if len(in_box) == 1 else {"$or": in_box}, there]}


def _is_within(latitude: float, longitude: float, meters: float) -> dict:
    """By the haversine formula, which is exact where distances are short."""
    lat, lon = radians(latitude), radians(longitude)

    def haversine(field: str, origin: float) -> dict:
        half = {"$divide": [{"$subtract": [{"$degreesToRadians": f"$$place.{field}"}, origin]}, 2]}
        return {"$pow": [{"$sin": half}, 2]}

    across: Any = {"$multiply": [{"$cos": {"$degreesToRadians": "$$place.lo"}}, cos(lat), haversine("hi", lon)]}
    limit = sin(meters / RADIUS_M / 2) ** 2 if meters < pi * RADIUS_M else inf
    return {"$lte": [{"$add": [haversine("lo", lat), across]}, limit]}
