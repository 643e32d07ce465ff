"""Units of UCUM reduced to base units, so that 5 mg and 0.005 g are the same. https://ucum.org/ucum

The table is the UCUM organization's own (`ucum-essence.xml`, which ucumvert brings with it); reckoning is exact.
An arbitrary unit such as [iU] is a kind of its own. What is on a logarithmic scale is not reduced.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

SYSTEM = "http://unitsofmeasure.org"
MAX_CODE = 100  # characters
_NAMESPACE = "{http://unitsofmeasure.org/ucum-essence}"
_KELVIN = Fraction("273.15")
# Scales with a zero of their own: factor and zero point in kelvin.
_TEMPERATURES: Mapping[str, tuple[Fraction, Fraction]] = {
    "Cel": (Fraction(1), _KELVIN),
    "[degF]": (Fraction(5, 9), _KELVIN - 32 * Fraction(5, 9)),
    "[degRe]": (Fraction(5, 4), _KELVIN),
}
_TOKEN = re.compile(r"[./()]|\{[^{}]*\}|(?:\[[^\[\]\s]*\]|[^./(){}\[\]\s])+", re.ASCII)
_POWER = re.compile(r"(10[*^]|.*?[^\d+-])([+-]?\d{1,2})?", re.ASCII)
_FACTOR = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Scale:
    """A unit: so many base units, from a zero point. dimension: of the base units, such as `g.m-3`."""

    factor: Fraction
    dimension: str
    zero: Fraction = Fraction(0)

    def base(self, value: Decimal) -> float:
        """A value in this unit, in base units. Raises OverflowError."""
        return float(Fraction(value) * self.factor + self.zero)


@dataclass(slots=True)
class _Product:
    """A factor and the powers of base units."""

    factor: Fraction = Fraction(1)
    powers: dict[str, int] = field(default_factory=dict)

    def times(self, other: "_Product", power: int) -> None:
        self.factor *= other.factor**power
        for base, exponent in other.powers.items():
            self.powers[base] = self.powers.get(base, 0) + exponent * power

    @property
    def dimension(self) -> str:
        return ".".join(f"{base}{power}" for base, power in sorted(self.powers.items()) if power) or "1"


@dataclass(frozen=True, slots=True)
class _Atom:
    metric: bool
    value: Fraction
    unit: str | None  # None: of a kind of its own


class _Unknown(ValueError):
    """No unit, or one that cannot be reduced."""


@lru_cache(4096)
def scale(code: str) -> Scale | None:
    """What a UCUM code stands for; None for what is none, or cannot be compared with other units."""
    if code in _TEMPERATURES:
        factor, zero = _TEMPERATURES[code]
        return Scale(factor, "K1", zero)
    if not code or len(code) > MAX_CODE:
        return None
    try:
        product = _reduced(code)
    except _Unknown:
        return None
    return Scale(product.factor, product.dimension)


def _reduced(code: str) -> _Product:
    tokens = _TOKEN.findall(code)
    if "".join(tokens) != code:
        raise _Unknown(code)
    product = _term(tokens)
    if tokens:
        raise _Unknown(code)
    return product


def _term(tokens: list[str]) -> _Product:
    """From left to right, as UCUM has it: `a/b.c` is a/b times c."""
    product, power = _Product(), 1
    if tokens and tokens[0] == "/":
        power = -1
        tokens.pop(0)
    while True:
        product.times(_component(tokens), power)
        if not tokens or tokens[0] not in "./":
            return product
        power = 1 if tokens.pop(0) == "." else -1


def _component(tokens: list[str]) -> _Product:
    sign = tokens.pop(0) if tokens else ""
    if sign == "(":
        product = _term(tokens)
        if not tokens or tokens.pop(0) != ")":
            raise _Unknown
    elif sign.startswith("{"):
        return _Product()
    elif _FACTOR.fullmatch(sign) and int(sign):
        product = _Product(Fraction(sign))
    else:
        match = _POWER.fullmatch(sign)
        if match is None:
            raise _Unknown(sign)
        product = _Product()
        product.times(_simple(match[1]), int(match[2] or 1))
    if tokens and tokens[0].startswith("{"):
        tokens.pop(0)
    return product


@lru_cache(1024)
def _simple(code: str) -> _Product:
    """An atom, or a metric one behind a prefix."""
    prefixes, atoms = _table()
    atom, factor = atoms.get(code), Fraction(1)
    if atom is None:
        for prefix, value in prefixes.items():
            rest = atoms.get(code.removeprefix(prefix)) if code.startswith(prefix) else None
            if rest is not None and rest.metric:
                code, atom, factor = code.removeprefix(prefix), rest, value
                break
    if atom is None:
        raise _Unknown(code)
    product = _Product(factor * atom.value)
    product.times(_Product(powers={code: 1}) if atom.unit is None else _reduced(atom.unit), 1)
    return product


@cache
def _table() -> tuple[Mapping[str, Fraction], Mapping[str, _Atom]]:
    """Prefixes, and the atoms that can be reduced."""
    package = find_spec("ucumvert")
    if package is None or package.origin is None:
        raise RuntimeError("the package ucumvert, which has the table of units, is not installed")
    root = ElementTree.parse(Path(package.origin).parent / "vendor" / "ucum-essence.xml").getroot()  # noqa: S314 - of a package
    prefixes, atoms = {}, {}
    for element in root.iter(f"{_NAMESPACE}prefix"):
        prefixes[element.attrib["Code"]] = Fraction(element.find(f"{_NAMESPACE}value").attrib["value"])  # type: ignore[union-attr]
    for element in root.iter(f"{_NAMESPACE}base-unit"):
        atoms[element.attrib["Code"]] = _Atom(True, Fraction(1), None)
    for element in root.iter(f"{_NAMESPACE}unit"):
        if element.get("isSpecial") == "yes":
            continue
        value = element.find(f"{_NAMESPACE}value")
        if value is None:
            raise RuntimeError(f"the table of units says nothing of {element.attrib['Code']}")
        arbitrary = element.get("isArbitrary") == "yes" and value.attrib["Unit"] == "1"
        number = Fraction(value.attrib["value"])
        atoms[element.attrib["Code"]] = _Atom(
            element.get("isMetric") == "yes", number, None if arbitrary else value.attrib["Unit"]
        )
    return prefixes, atoms
