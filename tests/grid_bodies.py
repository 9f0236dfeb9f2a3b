"""The documented shapes of the grid sources' replies, to be played by `grid_server`."""

from __future__ import annotations

from typing import Any


def electricity_maps_series(key: str = "data", *values: Any, **common: Any) -> dict[str, Any]:
    """`history`, `past-range` (`data`) or `forecast`: hours from 2024-03-06T18:00Z."""
    rows = []
    for hour, value in enumerate(values or (216, 220.5, None), start=18):
        row: dict[str, Any] = {
            "carbonIntensity": value,
            "datetime": f"2024-03-06T{hour:02}:00:00.000Z",
        }
        if key != "forecast":
            row |= {
                "zone": "US-CAR-DUK",
                "updatedAt": "2024-03-07T03:48:27.926Z",
                "emissionFactorType": "lifecycle",
                "isEstimated": hour > 18,
                "estimationMethod": "TIME_SLICER_AVERAGE" if hour > 18 else None,
            }
        rows.append(row)
    return {"zone": "US-CAR-DUK", key: rows, "updatedAt": "2024-03-07T03:48:27.926Z"} | common


def neso_region(*forecasts: Any, as_list: bool = True, **named: Any) -> dict[str, Any]:
    """`/regional/…`: half hours from 2018-01-20T12:00Z."""
    rows = []
    for number, forecast in enumerate(forecasts or (266,)):
        start, end = 720 + 30 * number, 750 + 30 * number
        rows.append(
            {
                "from": f"2018-01-20T{start // 60:02}:{start % 60:02}Z",
                "to": f"2018-01-20T{end // 60:02}:{end % 60:02}Z",
                "intensity": {"forecast": forecast, "index": "moderate"},
                "generationmix": [{"fuel": "gas", "perc": 43.6}],
            }
        )
    region = {
        "regionid": 13,
        "dnoregion": "UKPN London",
        "shortname": "London",
        "data": rows,
        **named,
    }
    return {"data": [region] if as_list else region}


def watttime(*values: Any, **meta: Any) -> dict[str, Any]:
    """`/v3/historical` and `/v3/forecast`: five-minute points from 2022-07-15T00:00Z."""
    return {
        "data": [
            {
                "point_time": f"2022-07-15T00:{5 * number:02}:00+00:00",
                "value": value,
                "last_updated": "2023-10-01T00:00:00Z",
            }
            for number, value in enumerate(values or (870,))
        ],
        "meta": {
            "data_point_period_seconds": 300,
            "region": "CAISO_NORTH",
            "signal_type": "co2_moer",
            "units": "lbs_co2_per_mwh",
            "warnings": [],
            "model": {"date": "2023-03-01"},
            **meta,
        },
    }


def energy_charts(
    known: list[Any], ahead: list[Any], first_s: int = 1_709_751_600, step_s: int = 900
) -> dict[str, Any]:
    """`/co2eq`: parallel arrays from 2024-03-06T19:00Z."""
    count = max(len(known), len(ahead))
    return {
        "unix_seconds": [first_s + step_s * number for number in range(count)],
        "co2eq": known,
        "co2eq_forecast": ahead,
        "deprecated": False,
    }


def energinet(*values: Any, area: Any = "DK1") -> dict[str, Any]:
    """`/dataset/CO2Emis` and `CO2EmisProg`: five minutes from 2024-03-06T19:00, newest first."""
    return {
        "total": 100,
        "filters": '{"PriceArea":["DK1"]}',
        "limit": 24,
        "dataset": "CO2Emis",
        "records": [
            {
                "Minutes5UTC": f"2024-03-06T19:{5 * number:02}:00",
                "PriceArea": area,
                "CO2Emission": value,
            }
            for number, value in reversed(list(enumerate(values or (121.0,))))
        ],
    }


def rte(*values: Any) -> list[dict[str, Any]]:
    """`results` of `/records`, and the whole of `/exports/json`: from 2024-10-08T18:00Z."""
    return [
        {"date_heure": f"2024-10-08T18:{15 * number:02}:00+00:00", "taux_co2": value}
        for number, value in enumerate(values or (34,))
    ]


def eia(*hours: dict[str, Any], respondent: Any = "CISO", end: int = 19) -> dict[str, Any]:
    """`/electricity/rto/fuel-type-data/data/`: hours that end from 2024-03-06T19 on."""
    rows = [
        {
            "period": f"2024-03-06T{end + number:02}",
            "respondent": respondent,
            "respondent-name": "California Independent System Operator",
            "fueltype": fuel,
            "type-name": fuel,
            "value": value,
            "value-units": "megawatthours",
        }
        for number, hour in enumerate(hours or ({"NG": "500", "SUN": "500"},))
        for fuel, value in hour.items()
    ]
    return {
        "response": {"total": str(len(rows)), "frequency": "hourly", "data": rows[::-1]},
        "apiVersion": "2.1.8",
    }


def entsoe_series(
    code: str,
    powers: dict[int, Any],
    *,
    resolution: str = "PT60M",
    start: str = "2024-03-06T18:00Z",
    end: str = "2024-03-06T20:00Z",
    curve: str = "A01",
    area: str = "10Y1001A1001A83F",
    domain: str = "in",
    unit: str = "MAW",
) -> str:
    """One `TimeSeries` of a generation document; `powers` by position."""
    points = "".join(
        f"<Point><position>{position}</position><quantity>{power}</quantity></Point>"
        for position, power in powers.items()
    )
    return f"""<TimeSeries><mRID>1</mRID><businessType>A01</businessType>
      <{domain}BiddingZone_Domain.mRID codingScheme="A01">{area}</{domain}BiddingZone_Domain.mRID>
      <quantity_Measure_Unit.name>{unit}</quantity_Measure_Unit.name><curveType>{curve}</curveType>
      <MktPSRType><psrType>{code}</psrType></MktPSRType>
      <Period><timeInterval><start>{start}</start><end>{end}</end></timeInterval>
      <resolution>{resolution}</resolution>{points}</Period></TimeSeries>"""


def entsoe(*series: str) -> bytes:
    """A reply of document type A75."""
    space = "urn:iec62325.351:tc57wg16:451-6:generationloaddocument:3:0"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<GL_MarketDocument xmlns="{space}">'
        f"<mRID>x</mRID><type>A75</type>{''.join(series)}</GL_MarketDocument>"
    ).encode()


ENTSOE_NOTHING = b"""<?xml version="1.0" encoding="UTF-8"?>
<Acknowledgement_MarketDocument xmlns="urn:iec62325.351:tc57wg16:451-1:acknowledgementdocument:7:0">
<mRID>x</mRID><Reason><code>999</code><text>No matching data found for Data item</text></Reason>
</Acknowledgement_MarketDocument>"""


def carbon_aware(*ratings: Any, **changes: Any) -> list[dict[str, Any]]:
    """`/emissions/bylocation`: five minutes from 2022-09-06T20:45Z."""
    return [
        {
            "location": "PJM_ROANOKE",
            "time": f"2022-09-06T20:{45 + 5 * number}:00+00:00",
            "rating": rating,
            "duration": "00:05:00",
            **changes,
        }
        for number, rating in enumerate(ratings or (70,))
    ]


def carbon_aware_forecast(*values: Any) -> list[dict[str, Any]]:
    """`/emissions/forecasts/current`: five minutes from 2022-09-06T20:45Z."""
    rows = [
        {
            "location": "eastus",
            "timestamp": f"2022-09-06T20:{45 + 5 * number}:00+00:00",
            "duration": 5,
            "value": value,
        }
        for number, value in enumerate(values or (359.23,))
    ]
    return [
        {
            "generatedAt": "2022-09-06T20:40:00+00:00",
            "location": "eastus",
            "windowSize": 5,
            "optimalDataPoints": rows[:1],
            "forecastData": rows,
        }
    ]


def prometheus(*samples: tuple[Any, Any], **changes: Any) -> dict[str, Any]:
    """`/api/v1/query_range` of one series."""
    values = [list(sample) for sample in samples or ((1_709_751_600, "12.5"),)]
    data = {
        "resultType": "matrix",
        "result": [{"metric": {"__name__": "ppa"}, "values": values}],
    }
    return {"status": "success", "data": data, **changes}
