"""Europe: generation by type of plant from ENTSO-E's Transparency Platform, with a token.

    GET https://web-api.tp.entsoe.eu/api?securityToken=…&documentType=A75&processType=A16
        &in_Domain=10Y1001A1001A83F&periodStart=202403061800&periodEnd=202403062000
    <GL_MarketDocument xmlns="urn:iec62325.351:tc57wg16:451-6:generationloaddocument:3:0">
      <TimeSeries>
        <inBiddingZone_Domain.mRID codingScheme="A01">10Y1001A1001A83F</…>
        <quantity_Measure_Unit.name>MAW</…><curveType>A01</curveType>
        <MktPSRType><psrType>B04</psrType></MktPSRType>
        <Period><timeInterval><start>2024-03-06T18:00Z</start><end>2024-03-06T20:00Z</end>…
          <resolution>PT15M</resolution>
          <Point><position>1</position><quantity>4321</quantity></Point>…

Documented at https://transparencyplatform.zendesk.com (Restful API guide). Series with an
`outBiddingZone_Domain` are consumption and left out. In curve type A03 a point that is missing
repeats the one before. "No matching data" comes as an Acknowledgement_MarketDocument with status
200. Powers become the energies of whole hours, and these an intensity by the medians of
`data/fuel_factors.csv`, marked as estimated.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from wattledger.grid.checks import instant_ns
from wattledger.grid.client import HttpClient
from wattledger.grid.mix import STORAGE, UNKNOWN, ewif_ul_per_kwh, g_per_kwh, whole
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.provider import (
    DAY_NS,
    HOUR_NS,
    MINUTE_NS,
    Provider,
    collect,
    good_of,
    token_of,
    utc,
)
from wattledger.model import Basis, GridSignal

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

HOST = "web-api.tp.entsoe.eu"
URL = f"https://{HOST}/api"
FUELS = {
    "B01": "biomass",
    "B02": "coal",  # brown
    "B03": "coal",  # gas made of it
    "B04": "gas",
    "B05": "coal",
    "B06": "oil",
    "B07": "oil",  # shale
    "B08": "coal",  # peat, for which there is no median
    "B09": "geothermal",
    "B10": STORAGE,  # pumped water
    "B11": "hydro",
    "B12": "hydro",
    "B13": "ocean",
    "B14": "nuclear",
    "B15": UNKNOWN,  # other renewable
    "B16": "solar",
    "B17": UNKNOWN,  # waste
    "B18": "wind_offshore",
    "B19": "wind",
    "B20": UNKNOWN,
    "B25": STORAGE,
}
# Area → energy identification code (EIC), as ENTSO-E's list of areas has them.
AREAS = {
    "AT": "10YAT-APG------L",
    "BE": "10YBE----------2",
    "BG": "10YCA-BULGARIA-R",
    "CH": "10YCH-SWISSGRIDZ",
    "CZ": "10YCZ-CEPS-----N",
    "DE": "10Y1001A1001A83F",
    "DK": "10Y1001A1001A65H",
    "DK1": "10YDK-1--------W",
    "DK2": "10YDK-2--------M",
    "EE": "10Y1001A1001A39I",
    "ES": "10YES-REE------0",
    "FI": "10YFI-1--------U",
    "FR": "10YFR-RTE------C",
    "GR": "10YGR-HTSO-----Y",
    "HR": "10YHR-HEP------M",
    "HU": "10YHU-MAVIR----U",
    "IE": "10YIE-1001A00010",
    "IT": "10YIT-GRTN-----B",
    "LT": "10YLT-1001A0008Q",
    "LU": "10YLU-CEGEDEL-NQ",
    "LV": "10YLV-1001A00074",
    "NL": "10YNL----------L",
    "NO": "10YNO-0--------C",
    "NO1": "10YNO-1--------2",
    "NO2": "10YNO-2--------T",
    "NO3": "10YNO-3--------J",
    "NO4": "10YNO-4--------9",
    "NO5": "10Y1001A1001A48H",
    "PL": "10YPL-AREA-----S",
    "PT": "10YPT-REN------W",
    "RO": "10YRO-TEL------P",
    "RS": "10YCS-SERBIATSOV",
    "SE": "10YSE-1--------K",
    "SE1": "10Y1001A1001A44P",
    "SE2": "10Y1001A1001A45N",
    "SE3": "10Y1001A1001A46L",
    "SE4": "10Y1001A1001A47J",
    "SI": "10YSI-ELES-----O",
    "SK": "10YSK-SEPS-----K",
}
_EIC = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-"
_RESOLUTIONS_NS = {"PT15M": 15 * MINUTE_NS, "PT30M": 30 * MINUTE_NS, "PT60M": HOUR_NS}
_WINDOW_NS = 8 * HOUR_NS
_LONGEST_NS = DAY_NS // 2  # 20 types of plants in quarter hours stay below the client's bound
_MAX_POINTS = 100_000


def eic_of(zone: str) -> str | None:
    """The code of an area: `DE`, `SE3`, `SE-SE3`, or a code itself; None: it is none."""
    if zone in AREAS:
        return AREAS[zone]
    country, _, area = zone.partition("-")
    if country and area.startswith(country) and area in AREAS:
        return AREAS[area]
    return zone if is_eic(zone) else None


def is_eic(text: str) -> bool:
    """Whether a text is an energy identification code: its last character proves the others.

    Weights 16 to 2, modulo 37: ENTSO-E, "EIC Reference Manual", annex on the check character.
    """
    if len(text) != 16 or any(character not in _EIC for character in text):
        return False
    total = sum(_EIC.index(character) * (16 - n) for n, character in enumerate(text[:15]))
    return _EIC[36 - (total - 1) % 37] == text[15]


class Entsoe(Provider):
    """The source `entsoe`.

    Args:
        client: the way out.
        zone: see `eic_of`.
        token_file: where the token lies; read at each request.
        url: the API's address; default the provider's own.
        name: the `source` label.

    Raises:
        ValueError: the url must not be asked, or the zone is not one.
    """

    def __init__(
        self,
        client: HttpClient,
        *,
        zone: str,
        token_file: Path,
        url: str = "",
        name: str = "entsoe",
    ) -> None:
        eic = eic_of(zone)
        if eic is None:
            raise ValueError(f"{zone!r} is not an area of ENTSO-E, such as DE or SE3")
        super().__init__(
            client,
            url=url,
            default_url=URL,
            name=name,
            zone=zone,
            basis=Basis.LIFECYCLE,
            cadence_ns=HOUR_NS,
        )
        self._eic = eic
        self._token_file = token_file

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        """The whole hours of the last eight. See `Source.latest`."""
        return self.parse(self._ask(now_wall_ns - _WINDOW_NS, now_wall_ns), now_wall_ns)

    def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
        """What is published for a span. See `History.between`."""
        return collect(
            start_ns,
            end_ns,
            _LONGEST_NS,
            lambda from_ns, to_ns: self.parse(self._ask(from_ns, to_ns), now_wall_ns),
        )

    def _ask(self, start_ns: int, end_ns: int) -> bytes:
        form = "%Y%m%d%H00"
        query = {
            "documentType": "A75",
            "processType": "A16",
            "in_Domain": self._eic,
            "periodStart": utc(start_ns, form),
            "periodEnd": utc(end_ns + HOUR_NS - 1, form),
        }
        token = {"securityToken": token_of(self._token_file)}
        return self._get_raw("", query, "application/xml", secret_query=token)

    def parse(self, body: bytes, now_wall_ns: int) -> list[GridSignal]:
        """A reply's signals, one for each hour that is whole.

        Raises:
            GridError: outcome `no_data`, `wrong_zone` or `bad_value`.
        """
        root = _document(body)
        if not root.tag.endswith("}GL_MarketDocument"):
            # An acknowledgement: its text is the provider's, so that it is not repeated.
            raise failure(Outcome.NO_DATA, "there is no matching data")
        hours: dict[int, dict[str, float]] = {}
        for series in root.iterfind("{*}TimeSeries"):
            if series.find("{*}outBiddingZone_Domain.mRID") is not None:
                continue
            if _text(series, "inBiddingZone_Domain.mRID") != self._eic:
                raise failure(Outcome.WRONG_ZONE, f"asked for {self.zone}, answered for another")
            if _text(series, "quantity_Measure_Unit.name") != "MAW":
                raise failure(Outcome.BAD_VALUE, "a series is not in megawatts")
            code = _text(series, "MktPSRType/{*}psrType")
            for start_ns, energy in _hours(series).items():
                made = hours.setdefault(start_ns, {})
                made[code] = made.get(code, 0.0) + energy
        complete = whole(hours)

        def signal(start_ns: int) -> GridSignal:
            return self._signal(
                g_per_kwh(complete[start_ns], FUELS),
                start_ns,
                start_ns + HOUR_NS,
                estimated=True,
                now_wall_ns=now_wall_ns,
                ewif_ul_per_kwh=ewif_ul_per_kwh(complete[start_ns], FUELS),
            )

        return good_of(complete, signal, "the mix")


def _document(body: bytes) -> Element:
    """The root of an XML document without a document type, so that nothing in it can expand."""
    from xml.etree import ElementTree

    try:
        text = body.decode("utf-8")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise failure(Outcome.BAD_VALUE, "the reply declares a document type")
        return ElementTree.fromstring(text)  # noqa: S314 - there are no entities in it
    except (ElementTree.ParseError, ValueError):
        raise failure(Outcome.BAD_VALUE, "the reply is not XML") from None


def _text(parent: Element, path: str) -> str:
    found = parent.findtext("{*}" + path)
    if found is None:
        raise failure(Outcome.BAD_VALUE, f"a series lacks its {path.rpartition('}')[2]}")
    return found.strip()


def _hours(series: Element) -> dict[int, float]:
    """The energy in MWh of each hour that a series covers without a gap."""
    repeats = (series.findtext("{*}curveType") or "A01").strip() == "A03"
    sums: dict[int, float] = {}
    covered: dict[int, int] = {}
    for period in series.iterfind("{*}Period"):
        step_ns = _RESOLUTIONS_NS.get(_text(period, "resolution"))
        start_ns = instant_ns(_text(period, "timeInterval/{*}start"), "start")
        end_ns = instant_ns(_text(period, "timeInterval/{*}end"), "end")
        if step_ns is None or start_ns % step_ns or not 0 < end_ns - start_ns <= 400 * DAY_NS:
            raise failure(Outcome.BAD_VALUE, "a period is not in quarter, half or whole hours")
        count = (end_ns - start_ns) // step_ns
        if count > _MAX_POINTS:
            raise failure(Outcome.BAD_VALUE, "a period is too long")
        for position, power in _powers(period, count, repeats=repeats).items():
            at_ns = start_ns + (position - 1) * step_ns
            hour_ns = at_ns - at_ns % HOUR_NS
            sums[hour_ns] = sums.get(hour_ns, 0.0) + power * step_ns / HOUR_NS
            covered[hour_ns] = covered.get(hour_ns, 0) + step_ns
    return {hour_ns: sums[hour_ns] for hour_ns in sums if covered[hour_ns] == HOUR_NS}


def _powers(period: Element, count: int, *, repeats: bool) -> dict[int, float]:
    """Position → MW of a period of so many steps."""
    found: dict[int, float] = {}
    for point in period.iterfind("{*}Point"):
        try:
            position, power = int(_text(point, "position")), float(_text(point, "quantity"))
        except (ValueError, OverflowError):
            position, power = 0, math.nan
        if not 1 <= position <= count or not abs(power) < 1e7:
            raise failure(Outcome.BAD_VALUE, "a point is no plausible power")
        found[position] = power
    if repeats and found:
        power = found[min(found)]
        for position in range(min(found), count + 1):
            power = found.setdefault(position, power)
    return found
