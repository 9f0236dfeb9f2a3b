"""On-site water by the weather: from air to wet bulb, from wet bulb to what a cooling tower drinks.

Both formulas are fits to measurements, so that they are floats; what is booked is rounded by
`quantised`.
"""

from __future__ import annotations

from math import atan, sqrt

from wattledger.units import micro

STULL_HUMIDITY_PERCENT = (5.0, 99.0)
STULL_TEMPERATURE_C = (-20.0, 50.0)
DRY_COLD_C = -3.0  # below it the fit of a tower's water is negative whatever the humidity
WUE_STEP_UL_PER_KWH = 10_000  # 0.01 L/kWh: the fits are good for a tenth at best
PUE_STEP_PPM = 1_000


def wet_bulb_c(temperature_c: float, humidity_percent: float) -> float | None:
    """The wet-bulb temperature of air at the pressure of sea level, in °C.

    R. Stull, "Wet-Bulb Temperature from Relative Humidity and Air Temperature", J. Appl. Meteor.
    Climatol. 50 (2011) 2267, equation 1: −1 to +0.65 °C off, 0.3 °C in the mean.

    Args:
        temperature_c: of the dry bulb, in °C.
        humidity_percent: relative, in %.

    Returns:
        That of the air itself above 99 %: saturated air cools nothing by evaporating, and no wet
        bulb is warmer than its air. None below 5 % and above 50 °C, and in the cold where the fit
        does not hold: below −20 °C, or where dry air leads it above the air's own temperature.
    """
    low, high = STULL_HUMIDITY_PERCENT
    coldest, hottest = STULL_TEMPERATURE_C
    if not (low <= humidity_percent and temperature_c <= hottest):
        return None
    if humidity_percent > high:
        return temperature_c
    if temperature_c < coldest:
        return None
    t, rh = temperature_c, humidity_percent
    wet = (
        t * atan(0.151977 * sqrt(rh + 8.313659))
        + atan(t + rh)
        - atan(rh - 1.676331)
        + 0.00391838 * rh**1.5 * atan(0.023101 * rh)
        - 4.686035
    )
    return min(wet, t) if wet <= t + 0.65 else None  # its own error may lift it so far


def fahrenheit(celsius: float) -> float:
    """Degrees Celsius in degrees Fahrenheit."""
    return celsius * 1.8 + 32.0


def tower_wue_l_per_kwh(wet_bulb_f: float, cycles: float, least_l_per_kwh: float) -> float:
    """What cooling towers take in for each kWh of IT energy, in litres.

    S/(S−1) × (6e-5·T³ − 0.01·T² + 0.61·T − 10.4): the fit that comes with Li et al., "Making AI
    Less Thirsty" (arXiv 2304.03271; github.com/Ren-Research/Making-AI-Less-Thirsty). Below 27 °F it
    is negative: then the floor holds.

    Args:
        wet_bulb_f: the wet bulb in degrees FAHRENHEIT; Celsius would give the floor, silently.
        cycles: S, how often the water goes round before it is let off, above 1.
        least_l_per_kwh: the floor.
    """
    t = wet_bulb_f
    evaporated = 6e-5 * t**3 - 0.01 * t**2 + 0.61 * t - 10.4
    return max(cycles / (cycles - 1.0) * evaporated, least_l_per_kwh)


def weather_wue_ul_per_kwh(
    temperature_c: float, humidity_percent: float, cycles: float, least_l_per_kwh: float
) -> int | None:
    """The WUE of a weather in µL per kWh of IT energy, quantised; None: no formula holds.

    In frost it is the floor, without a wet bulb: that is no warmer than the air, and below −2.8 °C
    (27 °F) nothing evaporates by the formula.

    Args:
        temperature_c: see `wet_bulb_c`.
        humidity_percent: likewise.
        cycles: see `tower_wue_l_per_kwh`.
        least_l_per_kwh: likewise.
    """
    if temperature_c < DRY_COLD_C:
        return quantised(micro(least_l_per_kwh), WUE_STEP_UL_PER_KWH)
    wet_c = wet_bulb_c(temperature_c, humidity_percent)
    if wet_c is None:
        return None
    wue = tower_wue_l_per_kwh(fahrenheit(wet_c), cycles, least_l_per_kwh)
    return quantised(micro(wue), WUE_STEP_UL_PER_KWH)


def quantised(millionths: int, step: int) -> int:
    """The nearest multiple of a step, halves upwards: only a change that matters is a new price."""
    return (millionths + step // 2) // step * step
